from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from headway.config import HttpRequest
from headway.domain.errors import SmokeFailed
from headway.domain.revision import Revision
from headway.domain.source import SmokeReport
from headway.rollout import smoke_tests
from headway.system.redaction import MASK

REVISION = Revision(app="shop", sha="3f2a9c1" + "0" * 33, digest="sha256:" + "a" * 64, configuration="c")


class Answer:
    def __init__(self, status: int = 200, body: Any = "", **headers: str) -> None:
        self.status = status
        self.body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Server(ThreadingHTTPServer):
    """Gives its answers in turn, the last one again and again, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer | threading.Event] = []
        self.asked: list[tuple[str, str, dict[str, str], str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, body))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, threading.Event):
            answer.wait(30)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer  # noqa: N815 - http.server calls them so

    def log_message(self, *args: object) -> None:
        """Not into the output of the tests."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture
def lines() -> list[str]:
    return []


Ask = Callable[..., "asyncio.Future[SmokeReport]"]


@pytest.fixture
def ask(server: Server, lines: list[str]) -> Ask:
    def run(*probes: dict[str, Any], **options: Any) -> asyncio.Future[SmokeReport]:
        models = [HttpRequest.model_validate({"deadline": 30, **probe}) for probe in probes]
        options = {"environment": "staging", "on_line": lines.append, **options}
        return asyncio.ensure_future(smoke_tests.run(server.url, models, REVISION, **options))

    return run


async def failure(asking: asyncio.Future[SmokeReport]) -> str:
    with pytest.raises(SmokeFailed) as failed:
        await asking
    assert failed.value.hint
    return failed.value.what


async def first_failure(asking: asyncio.Future[SmokeReport], lines: list[str]) -> str:
    """What the first attempt has said; there are no others."""
    async with asyncio.timeout(60):
        while not lines:
            assert not asking.done()
            await asyncio.sleep(0.01)
    asking.cancel()
    return lines[0]


async def test_smoke_test_passes(server: Server, ask: Ask, lines: list[str]) -> None:
    server.answers = [Answer(200, {"status": "ok", "version": REVISION.sha})]
    report = await ask({"get": "/health", "version": True, "within": 10})
    assert (report.environment, report.url, report.probes, report.attempts) == ("staging", server.url, 1, 1)
    assert lines == ["staging: GET /health: passed"]


async def test_no_smoke_tests(ask: Ask) -> None:
    assert (await ask()).attempts == 0


async def test_failed_smoke_test_is_retried_and_each_failure_is_logged(
    server: Server, ask: Ask, lines: list[str]
) -> None:
    server.answers = [Answer(503, "warming\n  up"), Answer(500, "x" * 400), Answer()]
    report = await ask({"get": "/health", "deadline": 30})
    assert report.attempts == 3
    assert lines == [
        "staging: GET /health: attempt 1: expected status 200; it answered 503: warming up",
        f"staging: GET /health: attempt 2: expected status 200; it answered 500: {'x' * 300} ...",
        "staging: GET /health: passed at attempt 3",
    ]


async def test_last_failure_is_in_the_error(server: Server, ask: Ask, lines: list[str]) -> None:
    server.answers = [Answer(503, "one"), Answer(404, "", x_headway_revision=REVISION.id)]
    what = await failure(ask({"get": "/a"}))
    assert what.startswith("staging: smoke: GET /a: expected status 200; it answered 404: (empty) (tried 2 times in ")
    assert len(lines) == 2


async def test_smoke_tests_after_a_failed_one_do_not_run(server: Server, ask: Ask) -> None:
    server.answers = [Answer(503)]
    await failure(ask({"get": "/a", "deadline": 0.1}, {"get": "/b"}))
    assert {path for _, path, _, _ in server.asked} == {"/a"}


async def test_request_of_a_smoke_test(server: Server, ask: Ask) -> None:
    server.answers = [Answer(201)]
    await ask(
        {"post": "/a?b=c", "json": {"d": 1}, "headers": {"X-E": "f"}, "expect": 201},
        {"put": "/g", "body": "text", "expect": 201},
        {"head": "/h", "expect": 201},
    )
    (first, second, third) = server.asked
    assert (first[0], first[1], json.loads(first[3]), first[2]["x-e"]) == ("POST", "/a?b=c", {"d": 1}, "f")
    assert first[2]["content-type"] == "application/json"
    assert (second[0], second[1], second[3]) == ("PUT", "/g", "text")
    assert third[0] == "HEAD"


@pytest.mark.parametrize(
    ("probe", "answer", "fault"),
    [
        ({"expect": 404}, Answer(200), "expected status 404; it answered 200"),
        ({"expect": 200}, Answer(302, Location="/b"), "expected status 200; it answered 302"),
        ({"expect_text": "Mugs"}, Answer(200, "Cups"), "expected the text 'Mugs'; it answered 200: Cups"),
        ({"expect_json": {"a": 1}}, Answer(200, "no"), "expected JSON; it"),
        ({"expect_json": {"a": None}}, Answer(200, "{"), "expected JSON; it"),
        ({"expect_json": {"a": None}}, Answer(200, {}), "expected a, which is not there; it"),
        ({"expect_json": {"a": {"b": 1}}}, Answer(200, {"a": {"b": 2}}), "expected a/b to be 1, is 2; it"),
        ({"expect_json": {"a": 1}}, Answer(200, {"a": True}), "expected a to be 1, is True; it"),
        ({"expect_json": {"a": [1, 2]}}, Answer(200, {"a": [1]}), "expected a to be [1, 2], is [1]; it"),
        ({"expect_json": {"a": [{"b": 1}]}}, Answer(200, {"a": [{"b": 3}]}), "expected a/0/b to be 1, is 3; it"),
        ({"expect_json": {"a": 1}}, Answer(200, [1]), "expected the body to be {'a': 1}, is [1]; it"),
        ({"within": 0.0001}, Answer(200), "expected it within 0.0001 s, took "),
        ({"expect": 201, "expect_text": "b"}, Answer(200, "a"), "expected status 201; expected the text 'b'; it"),
    ],
)
async def test_wrong_responses_fail(
    server: Server, ask: Ask, lines: list[str], probe: dict[str, Any], answer: Answer, fault: str
) -> None:
    server.answers = [answer]
    assert f"GET /a: attempt 1: {fault}" in await first_failure(ask({"get": "/a", **probe}), lines)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ({}, {"a": 1}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": 3}),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None, "c": 1}]}),
        ({"a": 1}, {"a": 1.0}),
    ],
)
async def test_expected_json_may_have_other_keys(server: Server, ask: Ask, expected: object, found: object) -> None:
    server.answers = [Answer(200, found)]
    await ask({"get": "/a", "expect_json": expected})


@pytest.mark.parametrize("said", [REVISION.sha, REVISION.sha[:7], REVISION.sha[:12], REVISION.id])
async def test_the_right_version(server: Server, ask: Ask, said: str) -> None:
    server.answers = [Answer(200, {"version": said})]
    await ask({"get": "/health", "version": True})


@pytest.mark.parametrize("body", ["no json", {"version": "5.4.1"}, {"version": 3}])
async def test_the_right_revision_by_header(server: Server, ask: Ask, body: object) -> None:
    server.answers = [Answer(200, body, x_headway_revision=REVISION.id)]
    await ask({"get": "/health", "version": True})


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(200, {"version": "b" * 40}), f"expected version {REVISION.sha}, it says {'b' * 40}"),
        (Answer(200, {"version": "3f2a9c"}), "cannot tell which version answers"),
        (Answer(200, {"version": ""}), "cannot tell which version answers"),
        (Answer(200, {"version": "5.4.1"}), "nor a JSON `version` with a commit: it says 5.4.1"),
        (Answer(200, {}, x_headway_revision="old"), f"expected revision {REVISION.id}, x-headway-revision says old"),
        (Answer(200, {"version": REVISION.sha}, x_headway_revision="old"), "x-headway-revision says old"),
        (Answer(200, {"version": "b" * 40}, x_headway_revision=REVISION.id), f"it says {'b' * 40}"),
        (Answer(200, {"status": "ok"}), "cannot tell which version answers"),
        (Answer(200, ["version"]), "cannot tell which version answers"),
        (Answer(200, "no json"), "cannot tell which version answers"),
    ],
)
async def test_the_wrong_version(server: Server, ask: Ask, lines: list[str], answer: Answer, fault: str) -> None:
    server.answers = [answer]
    assert fault in await first_failure(ask({"get": "/health", "version": True}), lines)


async def test_smoke_test_waits_for_the_version(server: Server, ask: Ask) -> None:
    server.answers = [Answer(200, {"version": "b" * 40}), Answer(200, {"version": REVISION.sha})]
    assert (await ask({"get": "/health", "version": True, "deadline": 30})).attempts == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 422])
@pytest.mark.parametrize(
    "answer",
    [{"body": {}, "x_headway_revision": REVISION.id}, {"body": {"version": REVISION.sha}}],
    ids=["proxy", "app"],
)
async def test_a_client_error_of_the_right_version_is_final(
    server: Server, ask: Ask, lines: list[str], status: int, answer: dict[str, Any]
) -> None:
    server.answers = [Answer(status, **answer)]
    assert f"expected status 200; it answered {status}" in await failure(ask({"get": "/shop", "deadline": 30}))
    assert len(lines) == 1


@pytest.mark.parametrize(
    "first",
    [
        Answer(404),  # of a proxy: no version
        Answer(404, {}, x_headway_revision="old"),
        Answer(404, {"version": "b" * 40}, x_headway_revision=REVISION.id),
        Answer(503, {}, x_headway_revision=REVISION.id),
        Answer(429, {}, x_headway_revision=REVISION.id),
    ],
)
async def test_what_may_still_change_is_tried_again(server: Server, ask: Ask, first: Answer) -> None:
    server.answers = [first, Answer()]
    assert (await ask({"get": "/shop", "deadline": 30})).attempts == 2


async def test_secrets_are_masked(server: Server, ask: Ask, lines: list[str]) -> None:
    refused = "hunter22 is not allowed, nor is s3cr3t-token"
    server.answers = [Answer(403, refused, x_headway_revision=REVISION.id)]
    probe = {"get": "/a", "headers": {"Authorization": "Bearer s3cr3t-token"}}
    said = await failure(ask(probe, secrets=["hunter22"]))
    assert f"{MASK} is not allowed, nor is {MASK}" in said
    assert not any("hunter22" in line or "s3cr3t" in line for line in [said, *lines])
    assert server.asked[0][2]["authorization"] == "Bearer s3cr3t-token"


async def test_smoke_test_without_a_listener_fails(lines: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        probe = HttpRequest.model_validate({"get": "/a", "deadline": 1})
        asking = asyncio.ensure_future(
            smoke_tests.run(url, [probe], REVISION, environment="staging", on_line=lines.append)
        )
        assert "GET /a: no answer: " in await failure(asking)
    assert len(lines) > 1


async def test_missing_response_times_out(server: Server, ask: Ask) -> None:
    never = threading.Event()
    server.answers = [never]
    what = await failure(ask({"get": "/a", "deadline": 0.3}))
    never.set()
    assert "no answer within 0.3 s" in what


async def test_attempt_cut_by_the_deadline_is_not_reported_as_the_reason(server: Server, ask: Ask) -> None:
    never = threading.Event()
    server.answers = [Answer(503), never]
    what = await failure(ask({"get": "/a", "deadline": 2}))
    never.set()
    assert "503" in what
    assert "tried 2 times" in what


async def test_proxy_settings_of_the_environment_are_ignored(
    server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.answers = [Answer()]
    assert (await ask({"get": "/a"})).attempts == 1
