"""Client of the Prefect API: start, resume, watch and cancel runs.

Plain REST, because importing Prefect's own client takes seconds that a command line does not have. Deployments are
named by string, see headway.domain.deployments; nothing here imports a flow.
"""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

import httpx
from tenacity import wait_exponential_jitter

from headway.domain.base import Frozen
from headway.domain.deployments import present_name
from headway.domain.errors import HeadwayError, NotFound, ServiceUnavailable
from headway.service.prefect.credential import authorization, server_login
from headway.service.up_record import UpRecord
from headway.system import tls
from headway.system.http_client import Failure, Failures, HttpClient, Limits, Repeat
from headway.system.retry_policy import Retry, Retryable, RetryPolicy

__all__ = ["WORK_POOL", "Control", "FlowRun", "UnfinishedRun", "answers", "api_url"]

ANSWER = 5.0  # seconds

LIMITS = Limits(httpx.Timeout(30.0, connect=5.0))
PATIENCE = 300.0  # seconds that a server may be busy
RETRIES = RetryPolicy(
    attempts=100, backoff=wait_exponential_jitter(initial=0.1, max=5.0, jitter=0.1), deadline=PATIENCE
)
ANNOUNCED = 7  # the attempt, about three seconds after the first, before which people at a terminal get a message
# A server that restarts refuses connections for a while. One that nobody started is reported at once.
RESTARTING = Failures(not_processed=frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS}))
ABSENT = replace(
    RESTARTING,
    errors_not_processed=(httpx.ConnectTimeout, httpx.PoolTimeout),
    errors_unknown=(httpx.TimeoutException, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError),
)

log = logging.getLogger("headway.prefect")
WORK_POOL = "headway"
PREFIX = re.compile(r"^Flow run encountered an exception: (\w+: )?")
FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


class FlowRun(Frozen):
    """A flow run as stored by the server."""

    id: str
    name: str
    state: str
    type: str
    message: str
    deployment_id: str | None = None
    ended: datetime | None = None
    work_pool: str | None = None

    @property
    def error(self) -> str:
        """First line of the error that ended it, without Prefect's words and the class of the error; may be empty."""
        return next(iter(PREFIX.sub("", self.message).strip().splitlines()), "")

    @property
    def final(self) -> bool:
        return self.type in FINAL


class UnfinishedRun(Frozen):
    """A flow run that is executed, or should be, as the server knows it."""

    id: str
    name: str
    type: str
    since: datetime
    """When it entered its state."""
    infrastructure_pid: str | None
    """HOST:PID of the process that the worker started."""
    parent_task_run_id: str | None
    """Set for a subflow, which runs in the process of its parent."""


def api_url() -> str:
    """PREFECT_API_URL, or the server that `headway up` started on this machine. Raises ServiceUnavailable."""
    named = os.environ.get("PREFECT_API_URL")
    if named:
        return named.rstrip("/")
    try:
        return str(json.loads(UpRecord.file().read_text())["api_url"])
    except (FileNotFoundError, ValueError, KeyError):
        raise ServiceUnavailable(
            "no Prefect server is running here and PREFECT_API_URL names no other",
            "start one with `headway up`, or set PREFECT_API_URL",
        ) from None


def answers() -> bool:
    """Whether a Prefect server answers now. For commands that can do without one: they do not wait for it."""
    try:
        url = api_url()
        httpx.get(f"{url}/health", timeout=ANSWER, trust_env=False, verify=tls.for_url(url))
    except (ServiceUnavailable, httpx.TransportError):
        return False
    return True


def _is_restarted(url: str) -> bool:
    """Whether a `headway up` runs on this machine, which starts the server of this URL again when it dies."""
    up = UpRecord.read()
    return up is not None and up.api_url == url and up.is_here and up.runs


def _credentials(url: str) -> dict[str, str]:
    """Those of the environment, or of the server that a `headway up` of this HEADWAY_HOME started."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    login = os.environ.get("PREFECT_API_AUTH_STRING")
    if login is None and (up := UpRecord.read()) and up.api_url == url:
        login = server_login()
    return {"Authorization": authorization(login)} if login else {}


class Control:
    """A connection to one Prefect API. Use it as a context manager.

    A server that is busy (408, 429, 5xx, no answer in time) or restarts is asked again for `patience` seconds. Every
    request may be repeated: a start has an idempotency key, `resume` and `cancel` do the same twice as once.
    """

    def __init__(self, url: str | None = None, *, patience: float = PATIENCE, login: str | None = None) -> None:
        self.url = url or api_url()
        credentials = {"Authorization": authorization(login)} if login else _credentials(self.url)
        failures = RESTARTING if _is_restarted(self.url) else ABSENT
        policy = replace(RETRIES, deadline=patience)
        self._http = HttpClient(self.url, LIMITS, policy, self._failed, failures, headers=credentials)

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def ui_url(self) -> str:
        """PREFECT_UI_URL, or Prefect's UI behind the sign-in of the `headway up` of this HEADWAY_HOME."""
        if named := os.environ.get("PREFECT_UI_URL"):
            return named.rstrip("/")
        up = UpRecord.read()
        return up.ui_url if up and up.ui_url and up.api_url == self.url else self.url.removesuffix("/api")

    def run_url(self, flow_run_id: str) -> str:
        """Where a person looks at the run."""
        return f"{self.ui_url}/runs/flow-run/{flow_run_id}"

    def start(
        self,
        deployment: str,
        parameters: dict[str, Any],
        *,
        idempotency_key: str | None = None,
        creator: Mapping[str, str] | None = None,
    ) -> str:
        """Start a run of a deployment and return its id. The same key gives the same run again.

        The deployment has its present name, or the one of the last version. `creator` says for whom it is started:
        see `headway.ledger.prefect_requests.creator_headers`. Without it the run is one of a service.

        Raises NotFound if the deployment is not registered, HeadwayError if the parameters are refused.
        """
        flow, name = present_name(deployment).split("/")
        found = self._ask("GET", f"/deployments/name/{flow}/{name}")
        if found.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(
                f"{self.url} has no deployment {flow}/{name}", "register them: headway up, or prefect deploy --all"
            )
        key = idempotency_key or uuid.uuid4().hex  # so that a repeated request starts one run
        asked = {"parameters": parameters, "idempotency_key": key, "state": {"type": "SCHEDULED"}}
        path = f"/deployments/{self._checked(found)['id']}/create_flow_run"
        return str(self._checked(self._ask("POST", path, asked, headers=creator))["id"])

    def flow_run(self, flow_run_id: str) -> FlowRun:
        """The current state of a run. Raises NotFound if the server has none with this id."""
        answer = self._ask("GET", f"/flow_runs/{flow_run_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(f"{self.url} has no flow run {flow_run_id}", "is this the server the release ran on?")
        run = self._checked(answer)
        state = run["state"] or {"name": "Scheduled", "type": "SCHEDULED", "message": ""}
        return FlowRun(
            id=run["id"],
            name=run["name"],
            state=state["name"],
            type=state["type"],
            message=state["message"] or "",
            deployment_id=run["deployment_id"],
            ended=run.get("end_time"),
            work_pool=run.get("work_pool_name"),
        )

    def unfinished_runs(self) -> list[UnfinishedRun]:
        """Runs of our work pool that are pending, running or being cancelled, and all such subflows."""
        unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        top = {"flow_runs": unfinished, "work_pools": {"name": {"any_": [WORK_POOL]}}}
        subflows = {"flow_runs": unfinished | {"parent_task_run_id": {"is_null_": False}}}
        found = [run for asked in (top, subflows) for run in self.query("/flow_runs/filter", asked)]
        return [
            UnfinishedRun(
                id=run["id"],
                name=run["name"],
                type=run["state"]["type"],
                since=run["state"]["timestamp"],
                infrastructure_pid=run.get("infrastructure_pid"),
                parent_task_run_id=run.get("parent_task_run_id"),
            )
            for run in found
        ]

    def parent_run(self, parent_task_run_id: str) -> FlowRun:
        """The flow run of a subflow's task run. Raises NotFound."""
        answer = self._ask("GET", f"/task_runs/{parent_task_run_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(f"{self.url} knows no task run {parent_task_run_id}")
        return self.flow_run(self._checked(answer)["flow_run_id"])

    def end(self, flow_run_id: str, state: Literal["CRASHED", "CANCELLED"], message: str) -> None:
        """End a run that nobody executes. Its own process would end it otherwise."""
        self._force(flow_run_id, {"type": state, "name": state.capitalize(), "message": message})

    def schedule_again(self, flow_run_id: str, message: str) -> None:
        """Have another worker start a run that was never started."""
        self._force(flow_run_id, {"type": "SCHEDULED", "name": "Scheduled", "message": message})

    def _force(self, flow_run_id: str, state: dict[str, str]) -> None:
        self._json("POST", f"/flow_runs/{flow_run_id}/set_state", {"state": state, "force": True})

    def resume(self, flow_run_id: str, run_input: dict[str, Any]) -> None:
        """Answer a suspended run and have it go on; one that goes on already gets no other answer.

        Raises HeadwayError when the answer does not fit, or the run has ended.
        """
        answer = self._json("POST", f"/flow_runs/{flow_run_id}/resume", {"run_input": run_input})
        if answer["status"] not in ("ACCEPT", "WAIT"):
            run = self.flow_run(flow_run_id)
            if run.type != "PAUSED" and not run.final:
                return
            raise HeadwayError(
                f"the run could not be resumed: {answer.get('details', {}).get('reason') or answer['status']}",
                f"look at it: {self.run_url(flow_run_id)}",
            )

    def wake(self, flow_run_id: str) -> None:
        """Have a suspended run start from the top, without an answer to its form: it finds the decision in the ledger.

        Does nothing when the run is not suspended. Works without a form, too: a run whose suspension was answered twice
        because the first answer was lost has stored none.
        """
        if self.flow_run(flow_run_id).type == "PAUSED":
            self._force(flow_run_id, {"type": "SCHEDULED", "name": "Resuming", "message": "decided"})

    def cancel(self, flow_run_id: str) -> None:
        """Ask the run to stop; it brings back what it had begun to change. A run that has ended stays as it ended."""
        self._json(
            "POST", f"/flow_runs/{flow_run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        )

    def query(self, path: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        """The objects that a `/filter` endpoint finds."""
        return list(self._document(self._ask("POST", path, wanted)))

    def flow_name(self, flow_id: str) -> str:
        return str(self._checked(self._ask("GET", f"/flows/{flow_id}"))["name"])

    def _json(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._checked(self._ask(method, path, body))

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        content = {"json": body, "headers": headers}
        try:
            answer = self._http.policy.run(
                lambda: self._http.attempt(method, path, repeat=Repeat.IDEMPOTENT, **content), self._announce
            )
        except Retryable as failure:
            raise failure.error from None
        self._http.failures = RESTARTING
        return answer

    def _announce(self, retry: Retry) -> None:
        if retry.number == ANNOUNCED:
            what = retry.error.what if isinstance(retry.error, HeadwayError) else str(retry.error)
            log.warning("%s; trying again for up to %g s", what, self._http.policy.deadline)

    def _checked(self, answer: httpx.Response) -> dict[str, Any]:
        return dict(self._document(answer))

    def _document(self, answer: httpx.Response) -> Any:
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ServiceUnavailable(
                f"{self.url} refuses the credentials", "set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
            )
        if answer.is_error:
            raise self._error_status(answer)
        try:
            return answer.json()
        except ValueError as error:
            raise ServiceUnavailable(
                f"{self.url} answers with something else than a Prefect API does", "PREFECT_API_URL ends with /api"
            ) from error

    def _failed(self, failure: Failure) -> HeadwayError:
        if failure.response is not None:
            return self._error_status(failure.response)
        return ServiceUnavailable(
            f"the Prefect server at {self.url} does not answer ({type(failure.error).__name__})",
            "start one with `headway up`, or correct PREFECT_API_URL",
        )

    def _error_status(self, answer: httpx.Response) -> HeadwayError:
        return HeadwayError(
            f"{self.url} answered {answer.status_code}: {self._http.quote(answer.text)}", "see the server's log"
        )
