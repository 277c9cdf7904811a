"""Client of the Prefect API: start, resume, watch and cancel runs.

Plain REST, because importing Prefect's own client takes seconds that a command line does not have. Deployments are
named by string ("release/main"); nothing here imports a flow.
"""

from __future__ import annotations

import base64
import json
import os
import uuid
from datetime import datetime
from typing import Any

import httpx
from tenacity import wait_exponential_jitter

from headway.domain.base import Frozen
from headway.domain.errors import HeadwayError, NotFound, ServiceUnavailable
from headway.system import tls
from headway.system.http_client import Failure, Failures, HttpClient, Limits
from headway.system.paths import home
from headway.system.retry_policy import RetryPolicy

__all__ = ["Control", "FlowRun", "answers", "api_url"]

ANSWER = 5.0  # seconds

LIMITS = Limits(httpx.Timeout(30.0, connect=5.0))
RETRIES = RetryPolicy(attempts=8, backoff=wait_exponential_jitter(initial=0.1, max=2.0))
# A server on SQLite answers 503 while another writer has the file; nothing was done then, so any request may be
# repeated. A server that does not answer is reported at once: a user waits at a terminal.
FAILURES = Failures(
    not_processed=frozenset({httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS}),
    unknown=frozenset(),
    errors_not_processed=(),
    errors_unknown=(),
)
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

    @property
    def final(self) -> bool:
        return self.type in FINAL


def api_url() -> str:
    """PREFECT_API_URL, or the server that `headway up` started on this machine. Raises ServiceUnavailable."""
    named = os.environ.get("PREFECT_API_URL")
    if named:
        return named.rstrip("/")
    try:
        return str(json.loads((home() / "up.json").read_text())["api_url"])
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


def _credentials() -> dict[str, str]:
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if login := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
    return {}


class Control:
    """A connection to one Prefect API. Use it as a context manager."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or api_url()
        self._http = HttpClient(self.url, LIMITS, RETRIES, self._failed, FAILURES, headers=_credentials())

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def ui_url(self) -> str:
        return self.url.removesuffix("/api")

    def run_url(self, flow_run_id: str) -> str:
        """Where a person looks at the run."""
        return f"{self.ui_url}/runs/flow-run/{flow_run_id}"

    def start(self, deployment: str, parameters: dict[str, Any], *, idempotency_key: str | None = None) -> str:
        """Start a run of a deployment such as "release/main"; returns its id. The same key gives the same run again.

        Raises NotFound if the deployment is not registered, HeadwayError if the parameters are refused.
        """
        flow, name = deployment.split("/")
        found = self._ask("GET", f"/deployments/name/{flow}/{name}")
        if found.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(
                f"{self.url} has no deployment {deployment}", "register them: headway up, or prefect deploy --all"
            )
        key = idempotency_key or uuid.uuid4().hex  # so that a repeated request starts one run
        asked = {"parameters": parameters, "idempotency_key": key, "state": {"type": "SCHEDULED"}}
        return str(self._json("POST", f"/deployments/{self._checked(found)['id']}/create_flow_run", asked)["id"])

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
        )

    def resume(self, flow_run_id: str, run_input: dict[str, Any]) -> None:
        """Answer a suspended run and have it go on. Raises HeadwayError when it is not suspended any more."""
        answer = self._json("POST", f"/flow_runs/{flow_run_id}/resume", {"run_input": run_input})
        if answer["status"] not in ("ACCEPT", "WAIT"):
            raise HeadwayError(
                f"the run could not be resumed: {answer.get('details', {}).get('reason') or answer['status']}",
                f"look at it: {self.run_url(flow_run_id)}",
            )

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

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return self._http.request(method, path, json=body)

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
