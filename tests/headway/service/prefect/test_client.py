"""Requests of the Prefect API client, and its handling of the responses."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headway.domain.errors import HeadwayError, NotFound, ServiceUnavailable
from headway.service.prefect import client
from headway.service.prefect.client import Control, FlowRun, api_url
from headway.service.up_record import UpRecord
from headway.system.processes import this_process

RUN = "0f3c2a9c-0000-4000-8000-000000000001"
DEPLOYMENT = "GET /deployments/name/release/release-commit"
START = "POST /deployments/d1/create_flow_run"
READ = f"GET /flow_runs/{RUN}"
RESUME = f"POST /flow_runs/{RUN}/resume"
CANCEL = f"POST /flow_runs/{RUN}/set_state"


class Answer:
    def __init__(self, status: int, body: Any = "") -> None:
        self.status = status
        self.body = (body if isinstance(body, str) else json.dumps(body)).encode()


class Prefect(ThreadingHTTPServer):
    """A scripted API: for each request its responses in turn, repeating the last one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.credentials: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/api"

    def says(self, question: str, *answers: Answer) -> None:
        self.script[question] = list(answers)

    def bodies(self, question: str) -> list[Any]:
        """Bodies of every request to this path."""
        return [body for asked, body in self.asked if asked == question]


class Handler(BaseHTTPRequestHandler):
    server: Prefect
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        question = f"{self.command} {self.path.removeprefix('/api')}"
        self.server.asked.append((question, json.loads(body) if body else None))
        self.server.credentials.add(self.headers.get("Authorization"))
        answers = self.server.script.get(question, [Answer(404, {"detail": "Not Found"})])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = answer  # noqa: N815 - http.server calls them so

    def log_message(self, *args: object) -> None:
        """Not into the output of the tests."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses before each retry, recorded instead of slept."""
    waited: list[float] = []
    monkeypatch.setattr(client, "RETRIES", replace(client.RETRIES, sleep=waited.append))
    return waited


@pytest.fixture
def prefect() -> Iterator[Prefect]:
    with Prefect() as serving:
        serving.says(DEPLOYMENT, Answer(200, {"id": "d1"}))
        serving.says(START, Answer(201, {"id": RUN}))
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture
def api(prefect: Prefect, waits: list[float]) -> Iterator[Control]:
    with Control(prefect.url) as connected:
        yield connected


def known(state: dict[str, Any] | None, **more: Any) -> Answer:
    return Answer(200, {"id": RUN, "name": "brave-fox", "state": state, "deployment_id": "d1", **more})


def in_state(type_: str, name: str, message: str | None) -> dict[str, Any]:
    return {"id": "s1", "type": type_, "name": name, "message": message, "timestamp": "2026-01-01T00:00:00Z"}


def nowhere() -> tuple[socket.socket, str]:
    """An address that nobody listens on while the socket is open."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken, f"http://127.0.0.1:{taken.getsockname()[1]}/api"


# --- start ---------------------------------------------------------------------------------------------------------


def test_a_run_of_a_deployment_is_started_with_its_parameters(prefect: Prefect, api: Control) -> None:
    assert api.start("release/release-commit", {"repo": "/r"}, idempotency_key="once") == RUN
    assert [asked for asked, _ in prefect.asked] == [DEPLOYMENT, START]
    assert prefect.bodies(START) == [
        {"parameters": {"repo": "/r"}, "idempotency_key": "once", "state": {"type": "SCHEDULED"}}
    ]


def test_every_start_without_a_key_gets_its_own(prefect: Prefect, api: Control) -> None:
    for _ in range(2):
        api.start("release/release-commit", {})
    first, second = (body["idempotency_key"] for body in prefect.bodies(START))
    assert first
    assert first != second


def test_unregistered_deployment_is_not_found(prefect: Prefect, api: Control) -> None:
    prefect.says(DEPLOYMENT, Answer(404, {"detail": "Deployment not found"}))
    with pytest.raises(NotFound) as missing:
        api.start("release/release-commit", {})
    assert missing.value.what == f"{prefect.url} has no deployment release/release-commit"
    assert "headway up" in missing.value.hint
    assert prefect.bodies(START) == []


def test_refused_parameters_quote_the_servers_message(prefect: Prefect, api: Control) -> None:
    prefect.says(START, Answer(409, {"detail": "Validation failed: 'repo' is a required property"}))
    with pytest.raises(HeadwayError, match=r"answered 409: .*'repo' is a required property"):
        api.start("release/release-commit", {"rep": "/r"})


def test_retry_after_503_keeps_the_key_and_starts_one_run(prefect: Prefect, api: Control) -> None:
    prefect.says(START, Answer(503), Answer(503), Answer(201, {"id": RUN}))
    assert api.start("release/release-commit", {}) == RUN
    assert len({body["idempotency_key"] for body in prefect.bodies(START)}) == 1
    assert len(prefect.bodies(START)) == 3


# --- flow_run ------------------------------------------------------------------------------------------------------


def test_a_flow_run_is_read(prefect: Prefect, api: Control) -> None:
    prefect.says(READ, known(in_state("FAILED", "Failed", "no")))
    assert api.flow_run(RUN) == FlowRun(
        id=RUN, name="brave-fox", state="Failed", type="FAILED", message="no", deployment_id="d1"
    )


@pytest.mark.parametrize(
    ("type_", "final"),
    [
        ("COMPLETED", True),
        ("FAILED", True),
        ("CRASHED", True),
        ("CANCELLED", True),
        ("SCHEDULED", False),
        ("PENDING", False),
        ("RUNNING", False),
        ("PAUSED", False),
        ("CANCELLING", False),
    ],
)
def test_which_states_are_final(prefect: Prefect, api: Control, type_: str, final: bool) -> None:
    prefect.says(READ, known(in_state(type_, type_.capitalize(), None)))
    run = api.flow_run(RUN)
    assert run.final is final
    assert run.message == ""


def test_a_run_without_a_state_is_scheduled(prefect: Prefect, api: Control) -> None:
    prefect.says(READ, known(None, deployment_id=None))
    run = api.flow_run(RUN)
    assert (run.state, run.type, run.message, run.deployment_id) == ("Scheduled", "SCHEDULED", "", None)
    assert not run.final


def test_unknown_run_is_not_found(prefect: Prefect, api: Control) -> None:
    with pytest.raises(NotFound) as missing:
        api.flow_run(RUN)
    assert missing.value.what == f"{prefect.url} has no flow run {RUN}"
    assert missing.value.hint


# --- resume and cancel ---------------------------------------------------------------------------------------------


def test_suspended_run_resumes_with_its_input(prefect: Prefect, api: Control) -> None:
    prefect.says(RESUME, Answer(201, {"status": "ACCEPT", "details": {}, "state": in_state("SCHEDULED", "", None)}))
    api.resume(RUN, {"decision": "approve", "by": "ann"})
    assert prefect.bodies(RESUME) == [{"run_input": {"decision": "approve", "by": "ann"}}]


@pytest.mark.parametrize("status", ["REJECT", "ABORT"])
def test_failed_resume_has_the_servers_reason(prefect: Prefect, api: Control, status: str) -> None:
    reason = "Cannot resume a flow run that is not paused."
    prefect.says(READ, known(in_state("FAILED", "Failed", None)))
    prefect.says(RESUME, Answer(200, {"status": status, "details": {"reason": reason}, "state": None}))
    with pytest.raises(HeadwayError) as refused:
        api.resume(RUN, {})
    assert refused.value.what == f"the run could not be resumed: {reason}"
    assert refused.value.hint.endswith(f"{prefect.url.removesuffix('/api')}/runs/flow-run/{RUN}")


def test_a_refusal_without_a_reason_is_said_too(prefect: Prefect, api: Control) -> None:
    prefect.says(READ, known(in_state("PAUSED", "Suspended", None)))
    prefect.says(RESUME, Answer(200, {"status": "REJECT", "state": None}))
    with pytest.raises(HeadwayError, match="the run could not be resumed: REJECT"):
        api.resume(RUN, {})


def test_resuming_a_deleted_run_is_an_error(api: Control) -> None:
    with pytest.raises(HeadwayError, match="answered 404"):
        api.resume(RUN, {})


def test_wake_starts_a_suspended_run_from_the_top(prefect: Prefect, api: Control) -> None:
    prefect.says(READ, known(in_state("PAUSED", "Suspended", None)))
    prefect.says(CANCEL, Answer(201, {"status": "ACCEPT", "details": {}}))
    api.wake(RUN)
    forced = {"state": {"type": "SCHEDULED", "name": "Resuming", "message": "decided"}, "force": True}
    assert prefect.bodies(CANCEL) == [forced]


@pytest.mark.parametrize("type_", ["RUNNING", "SCHEDULED", "CANCELLED"])
def test_wake_does_nothing_to_a_run_that_is_not_suspended(prefect: Prefect, api: Control, type_: str) -> None:
    prefect.says(READ, known(in_state(type_, "", None)))
    api.wake(RUN)
    assert prefect.bodies(CANCEL) == []


def test_cancel_sets_cancelling_not_cancelled(prefect: Prefect, api: Control) -> None:
    prefect.says(CANCEL, Answer(201, {"status": "ACCEPT", "details": {}}))
    api.cancel(RUN)
    assert prefect.bodies(CANCEL) == [{"state": {"type": "CANCELLING", "name": "Cancelling"}}]


def test_cancelling_a_finished_run_is_not_an_error(prefect: Prefect, api: Control) -> None:
    prefect.says(CANCEL, Answer(200, {"status": "ABORT", "details": {"reason": "This run has already terminated."}}))
    api.cancel(RUN)


# --- a server that is busy, refuses, or is not there -----------------------------------------------------------------


ASKED: dict[str, tuple[Callable[[Control], object], Answer]] = {
    DEPLOYMENT: (lambda api: api.start("release/main", {}), Answer(200, {"id": "d1"})),
    START: (lambda api: api.start("release/main", {}), Answer(201, {"id": RUN})),
    READ: (lambda api: api.flow_run(RUN), known(in_state("RUNNING", "Running", None))),
    RESUME: (lambda api: api.resume(RUN, {}), Answer(201, {"status": "ACCEPT", "state": None})),
    CANCEL: (lambda api: api.cancel(RUN), Answer(201, {"status": "ACCEPT", "details": {}})),
}


@pytest.mark.parametrize("question", ASKED)
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_for_minutes(
    prefect: Prefect, api: Control, waits: list[float], status: int, question: str
) -> None:
    ask, answer = ASKED[question]
    prefect.says(question, *[Answer(status)] * 50, answer)
    ask(api)
    assert len(prefect.bodies(question)) == 51
    assert waits[0] < 1
    assert 200 < sum(waits) < 300
    assert max(waits) < 6


@pytest.mark.parametrize("status", [503, 500])
def test_a_server_that_stays_busy_is_given_up(prefect: Prefect, api: Control, status: int) -> None:
    prefect.says(READ, Answer(status, "x" * 1000))
    for _ in range(2):  # the second has all attempts again
        before = len(prefect.asked)
        with pytest.raises(HeadwayError) as broken:
            api.flow_run(RUN)
        assert broken.value.what == f"{prefect.url} answered {status}: {'x' * 299}…"
        assert len(prefect.asked) - before == client.RETRIES.attempts


def test_attempts_end_at_the_deadline(prefect: Prefect) -> None:
    prefect.says(READ, Answer(503))
    with Control(prefect.url, patience=0.5) as api, pytest.raises(HeadwayError, match="answered 503"):
        api.flow_run(RUN)
    assert 1 < len(prefect.asked) < client.RETRIES.attempts


def test_people_read_what_they_wait_for(prefect: Prefect, api: Control, caplog: pytest.LogCaptureFixture) -> None:
    prefect.says(READ, *[Answer(503)] * 20, known(in_state("RUNNING", "Running", None)))
    api.flow_run(RUN)
    assert caplog.messages == [f"{prefect.url} answered 503: ; trying again for up to 300 s"]


def test_a_resume_whose_answer_was_lost_is_no_error(prefect: Prefect, api: Control) -> None:
    """The first attempt has resumed the run; the second finds it going on."""
    refused = {"status": "ABORT", "details": {"reason": "Cannot resume a flow run that is not paused."}}
    prefect.says(RESUME, Answer(504), Answer(200, refused))
    prefect.says(READ, known(in_state("PENDING", "Pending", None)))
    api.resume(RUN, {"decision": "approve"})


def test_a_server_that_headway_up_restarts_is_waited_for(
    waits: list[float],
) -> None:
    """As long as it runs: the same process number may be that of another process."""
    taken, url = nowhere()
    up = UpRecord(api_url=url, web_url="", **this_process().model_dump())
    with taken:
        for running, waited in ((up, client.RETRIES.attempts - 1), (up.model_copy(update={"created": 1.0}), 0)):
            running.write()
            waits.clear()
            with Control(url) as api, pytest.raises(ServiceUnavailable, match="does not answer"):
                api.flow_run(RUN)
            assert len(waits) == waited


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("question", "ask"),
    [
        (DEPLOYMENT, lambda api: api.start("release/release-commit", {})),
        (START, lambda api: api.start("release/release-commit", {})),
        (READ, lambda api: api.flow_run(RUN)),
        (RESUME, lambda api: api.resume(RUN, {})),
        (CANCEL, lambda api: api.cancel(RUN)),
    ],
)
def test_refused_credentials_are_an_error(
    prefect: Prefect, api: Control, status: int, question: str, ask: Callable[[Control], object]
) -> None:
    prefect.says(question, Answer(status, {"detail": "Unauthorized"}))
    with pytest.raises(ServiceUnavailable, match=r"refuses the credentials\n  hint: .*PREFECT_API_KEY"):
        ask(api)


def test_unreachable_server_is_an_error_with_a_hint() -> None:
    taken, url = nowhere()
    with taken, Control(url) as api, pytest.raises(ServiceUnavailable) as missing:
        api.flow_run(RUN)
    assert missing.value.what == f"the Prefect server at {url} does not answer (ConnectError)"
    assert "headway up" in missing.value.hint


def test_url_without_a_scheme_is_an_error() -> None:
    with Control("127.0.0.1:4200/api") as api, pytest.raises(ServiceUnavailable, match="does not answer"):
        api.flow_run(RUN)


def test_html_instead_of_json_is_an_error(prefect: Prefect, api: Control) -> None:
    # Prefect's UI responds like this to any path: the /api of PREFECT_API_URL is missing.
    prefect.says(READ, Answer(200, "<!DOCTYPE html><html></html>"))
    with pytest.raises(HeadwayError):
        api.flow_run(RUN)


def test_proxy_settings_of_the_environment_are_ignored(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Control(prefect.url) as api:
        assert api.start("release/release-commit", {}) == RUN


# --- credentials and address -----------------------------------------------------------------------------------------


def test_without_credentials_none_are_sent(prefect: Prefect, api: Control) -> None:
    api.start("release/release-commit", {})
    assert prefect.credentials == {None}


def test_an_api_key_is_sent_as_a_bearer_token(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_1")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:pass")
    with Control(prefect.url) as api:
        api.start("release/release-commit", {})
    assert prefect.credentials == {"Bearer pnu_1"}


def test_a_login_is_sent_as_basic_authentication(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:pässword")
    with Control(prefect.url) as api:
        api.start("release/release-commit", {})
    (sent,) = prefect.credentials
    assert sent is not None
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "admin:pässword"


def test_prefect_api_url_setting_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "up.json").write_text('{"api_url": "http://up/api"}')
    monkeypatch.setenv("PREFECT_API_URL", "http://named/api/")
    assert api_url() == "http://named/api"


def test_default_url_is_the_local_headway_up(tmp_path: Path, prefect: Prefect) -> None:
    (tmp_path / "up.json").write_text(json.dumps({"api_url": prefect.url, "pid": 1}))
    assert api_url() == prefect.url
    with Control() as api:
        assert api.start("release/release-commit", {}) == RUN


def test_no_local_or_configured_server_is_an_error_with_a_hint() -> None:
    for ask in (api_url, Control):
        with pytest.raises(ServiceUnavailable, match=r"no Prefect server is running here .*\n  hint: .*headway up"):
            ask()


def test_ui_url_of_a_run(prefect: Prefect, api: Control) -> None:
    assert api.ui_url == prefect.url.removesuffix("/api")
    assert api.run_url(RUN) == f"{api.ui_url}/runs/flow-run/{RUN}"
