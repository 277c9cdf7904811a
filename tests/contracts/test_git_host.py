"""The contract of git hosts, for each adapter with a stand-in of its host, and for the fake."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr, ValidationError

from blocks.loading import git_hosts
from headway.domain.errors import GitHostError
from headway.domain.git import CommitStatus, DeploymentStatus, PullRequest, StatusState
from headway.domain.ports import GitHost
from headway.testing import FakeGitHost
from tests.standins.git_hosts import REPO, STAND_INS, Answer, Asked, StandIn, listening
from tests.standins.git_hosts import GitHub as GitHubStandIn

pytestmark = pytest.mark.slow

SHA, OTHER = "a" * 40, "b" * 40
MARKER = "<!-- headway shop -->"
STATUS = CommitStatus(
    sha=SHA, context="headway/unit", state=StatusState.RUNNING, description="going on", url="http://prefect/1"
)
DEPLOYMENT = DeploymentStatus(
    sha=SHA,
    environment="staging",
    state=StatusState.RUNNING,
    description="r1",
    log_url="http://prefect/1",
    url="http://staging",
)
WORDS = {
    "github": ("pending", "pending", "success", "failure", "error"),
    "gitea": ("pending", "pending", "success", "failure", "error"),
    "gitlab": ("pending", "running", "success", "failed", "canceled"),
    "bitbucket": ("INPROGRESS", "INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"),
    "fake": tuple(StatusState),
}


class Pair(NamedTuple):
    """An adapter, and the host that it speaks to."""

    kind: str
    host: GitHost
    there: Any


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are looked for; none is loaded from a server."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")


@pytest.fixture(params=[*STAND_INS, "fake"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    kind = str(request.param)
    if kind == "fake":
        fake = FakeGitHost()
        yield Pair(kind, fake, fake)
        return
    with listening(STAND_INS[kind]()) as there:
        yield Pair(kind, adapter(kind, there), there)


@pytest.fixture(params=[*STAND_INS])
def real(request: pytest.FixtureRequest) -> Iterator[tuple[GitHost, StandIn]]:
    """Every pair but the fake."""
    with listening(STAND_INS[request.param]()) as there:
        yield adapter(request.param, there), there


def adapter(kind: str, there: StandIn, **changes: Any) -> GitHost:
    made = git_hosts()[kind](**{"api": there.url, "token": SecretStr("a-token")} | changes)
    assert isinstance(made, GitHost)
    return made


def test_every_adapter_has_a_stand_in() -> None:
    assert git_hosts().keys() == STAND_INS.keys()


# --- marks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standing", StatusState)
def test_commit_gets_a_status(pair: Pair, standing: StatusState) -> None:
    pair.host.set_status(REPO, STATUS.model_copy(update={"state": standing}))
    word = WORDS[pair.kind][list(StatusState).index(standing)]
    assert pair.there.mark(SHA, "headway/unit") == (word, "going on", "http://prefect/1")


def test_later_status_replaces_an_earlier_one(pair: Pair) -> None:
    pair.host.set_status(REPO, STATUS)
    pair.host.set_status(REPO, STATUS.model_copy(update={"context": "headway"}))
    done = {"state": StatusState.SUCCESS, "description": "passed"}
    pair.host.set_status(REPO, STATUS.model_copy(update=done))
    assert pair.there.mark(SHA, "headway/unit")[1] == "passed"
    assert pair.there.mark(SHA, "headway")[1] == "going on"


def test_repeated_status_is_accepted(pair: Pair) -> None:
    for _ in range(2):
        pair.host.set_status(REPO, STATUS)
    assert pair.there.mark(SHA, "headway/unit")[1] == "going on"


def test_a_long_context_keeps_its_name(pair: Pair) -> None:
    name = "headway/" + "x" * 60
    pair.host.set_status(REPO, STATUS.model_copy(update={"context": name}))
    assert pair.there.mark(SHA, name)[1] == "going on"


def test_the_environment_of_a_pull_request_is_transient_and_removed_at_its_teardown() -> None:
    with listening(GitHubStandIn()) as there:
        host = adapter("github", there)
        shown = DEPLOYMENT.model_copy(update={"environment": "shop-pr-42", "transient": True})
        for sha in (SHA, OTHER):
            host.set_deployment(REPO, shown.model_copy(update={"sha": sha}))
        host.set_deployment(REPO, DEPLOYMENT.model_copy(update={"environment": "production"}))
        assert [one["transient_environment"] for one in there.deployments] == [True, True, False]
        assert [one["production_environment"] for one in there.deployments] == [False, False, True]
        # A deployment that a newer commit ended removes nothing: another one is shown.
        host.set_deployment(REPO, shown.model_copy(update={"state": StatusState.ENDED}))
        assert len(there.deployments) == 3
        gone = shown.model_copy(update={"state": StatusState.ENDED, "removed": True})
        host.set_deployment(REPO, gone)
        assert [one["environment"] for one in there.deployments] == ["production"]
        assert there.removed_environments == ["shop-pr-42"]
        there.may_administrate = False  # the token may write deployments, but not remove environments
        host.set_deployment(REPO, gone)
        assert [one["environment"] for one in there.deployments] == ["production"]


@pytest.mark.parametrize(("kind", "api"), [("gitea", "/api/v1"), ("gitlab", "/api/v4")])
def test_hosts_below_a_path_get_the_path_of_the_repository_alone(kind: str, api: str) -> None:
    there = STAND_INS[kind]()
    there.prefix = f"/git{api}"
    with listening(there):
        host = adapter(kind, there)
        there.has_pull(42, SHA)
        for repo in (f"git/{REPO}", REPO):
            host.set_status(repo, STATUS)
            assert host.pull_request(repo, 42)
        assert there.mark(SHA, "headway/unit")[1] == "going on"


def test_draft_pull_requests_of_bitbucket_are_open() -> None:
    there = STAND_INS["bitbucket"]()
    with listening(there):
        host = adapter("bitbucket", there)
        there.has_pull(41, SHA)
        there.has_pull(42, OTHER)
        there.drafts = {42}
        assert host.open_pull_requests(REPO).keys() == {41, 42}
        found = host.pull_request(REPO, 42)
        assert found
        assert found.open


# --- comments --------------------------------------------------------------------------------------------------


def test_only_one_comment_is_created_and_updated(pair: Pair) -> None:
    pair.there.has_pull(42, SHA)
    for text in ("building", "building", "http://shop-pr-42 is up"):
        pair.host.set_comment(REPO, 42, MARKER, text)
    (text,) = pair.there.texts(42)
    assert "http://shop-pr-42 is up" in text
    assert "building" not in text
    assert MARKER in text


def test_comment_is_found_on_later_pages(pair: Pair) -> None:
    pair.there.has_pull(42, SHA)
    for number in range(3):
        pair.host.set_comment(REPO, 42, f"<!-- somebody {number} -->", "hello")
    pair.host.set_comment(REPO, 42, MARKER, "one")
    for number in range(3, 6):
        pair.host.set_comment(REPO, 42, f"<!-- somebody {number} -->", "hello")
    pair.host.set_comment(REPO, 42, MARKER, "two")
    assert len([text for text in pair.there.texts(42) if MARKER in text]) == 1
    assert any("two" in text for text in pair.there.texts(42))


# --- pull requests ---------------------------------------------------------------------------------------------


def test_pull_request_has_its_current_state(pair: Pair) -> None:
    pair.there.has_pull(42, SHA)
    pair.there.has_pull(43, SHA, open=False, fork=True)
    open_, closed = pair.host.pull_request(REPO, 42), pair.host.pull_request(REPO, 43)
    assert open_
    assert closed
    assert (open_.open, open_.fork, closed.open, closed.fork) == (True, False, False, True)
    assert SHA.startswith(open_.head)
    assert (open_.base, open_.branch) == ("main", "feature")
    assert pair.host.pull_request(REPO, 44) is None


def test_all_that_are_open_are_listed(pair: Pair) -> None:
    for number in range(1, 6):
        pair.there.has_pull(number, SHA, fork=number > 3)
    pair.there.has_pull(6, SHA, open=False)
    found = pair.host.open_pull_requests(REPO)
    assert {number: pull.fork for number, pull in found.items()} == {1: False, 2: False, 3: False, 4: True, 5: True}
    assert all(isinstance(pull, PullRequest) and pull.open for pull in found.values())


# --- deployments -----------------------------------------------------------------------------------------------


def test_deployments_are_reported_where_the_host_supports_them(pair: Pair) -> None:
    pair.host.set_deployment(REPO, DEPLOYMENT)
    pair.host.set_deployment(REPO, DEPLOYMENT.model_copy(update={"state": StatusState.SUCCESS}))
    if pair.kind == "github":
        (made,) = pair.there.deployments
        assert (made["ref"], made["environment"], made["required_contexts"]) == (SHA, "staging", [])
        assert [status["state"] for status in made["statuses"]] == ["in_progress", "success"]
        assert made["statuses"][-1]["environment_url"] == "http://staging"


# --- hosts that are not well -----------------------------------------------------------------------------------


def test_transient_host_failure_is_retried(real: tuple[GitHost, StandIn]) -> None:
    host, there = real
    there.has_pull(42, SHA)
    there.faults = [Answer(502), Answer(503)]
    found = host.pull_request(REPO, 42)
    assert found
    assert found.open


def test_lasting_host_failure_is_an_error(real: tuple[GitHost, StandIn]) -> None:
    host, there = real
    there.faults = [Answer(500)] * 10
    with pytest.raises(GitHostError, match="answers 500"):
        host.pull_request(REPO, 42)
    assert len(there.asked) == 3


def test_write_with_a_lost_response_is_not_repeated(real: tuple[GitHost, StandIn]) -> None:
    host, there = real
    there.faults = [Answer(502)]
    with pytest.raises(GitHostError):
        host.set_status(REPO, STATUS)
    assert len(there.asked) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30),
        ({"retry-after": "99999999"}, 3600),
        ({"retry-after": "soon"}, 60),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "0"}, 1),
        ({}, 60),
    ],
)
def test_a_rate_limit_is_obeyed(real: tuple[GitHost, StandIn], headers: dict[str, str], seconds: float) -> None:
    host, there = real
    there.faults = [Answer(429, {}, headers)]
    with pytest.raises(GitHostError) as limited:
        host.set_status(REPO, STATUS)
    assert limited.value.after == seconds


def test_refusal_is_not_a_rate_limit(real: tuple[GitHost, StandIn]) -> None:
    host, there = real
    there.faults = [Answer(403, {"message": "Resource not accessible"})]
    with pytest.raises(GitHostError, match="answers 403") as refused:
        host.set_status(REPO, STATUS)
    assert refused.value.after is None
    assert "token" in refused.value.hint


def test_rate_limit_without_headers_is_obeyed(real: tuple[GitHost, StandIn]) -> None:
    host, there = real
    there.faults = [Answer(403, {"message": "You have exceeded a secondary rate limit. Wait a few minutes."})]
    with pytest.raises(GitHostError) as limited:
        host.set_status(REPO, STATUS)
    assert (limited.value.after, limited.value.refused) == (60, False)


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_refusal_of_one_object_differs_from_a_refusal_of_all(real: tuple[GitHost, StandIn], status: int) -> None:
    host, there = real
    there.faults = [Answer(status, {"message": "No"})]
    with pytest.raises(GitHostError) as refused:
        host.set_status(REPO, STATUS)
    assert refused.value.refused == (status != 401)
    assert pickle.loads(pickle.dumps(refused.value)).refused == refused.value.refused


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", "nothing", [{}]])
def test_unexpected_response_is_an_error(real: tuple[GitHost, StandIn], body: Any) -> None:
    host, there = real
    there.faults = [Answer(200, body)] * 2
    with pytest.raises(GitHostError):
        host.pull_request(REPO, 42)
    with pytest.raises(GitHostError):
        host.open_pull_requests(REPO)


def test_gitlab_merge_request_may_be_locked_or_without_a_branch() -> None:
    with listening(STAND_INS["gitlab"]()) as there:
        there.has_pull(42, SHA)
        known = there.pull(42) | {"state": "locked", "sha": None}  # type: ignore[attr-defined]  # that of GitLab
        there.faults = [Answer(200, known)]
        found = adapter("gitlab", there).pull_request(REPO, 42)
    assert found
    assert (found.open, found.head) == (True, "")


def test_wrong_token_is_an_error_without_the_token(real: tuple[GitHost, StandIn]) -> None:
    _, there = real
    kind = next(kind for kind, stand_in in STAND_INS.items() if type(there) is stand_in)
    host = adapter(kind, there, token=SecretStr("geheim"))
    with pytest.raises(GitHostError, match="answers 401") as refused:
        host.set_status(REPO, STATUS)
    assert "geheim" not in str(refused.value) + repr(host)


def test_unreachable_host_is_an_error(real: tuple[GitHost, StandIn]) -> None:
    _, there = real
    kind = next(kind for kind, stand_in in STAND_INS.items() if type(there) is stand_in)
    host = adapter(kind, there, api="http://127.0.0.1:9")
    with pytest.raises(GitHostError, match="does not answer"):
        host.set_status(REPO, STATUS)


def test_next_page_on_another_host_is_refused() -> None:
    """The token is not sent to a host named in a link header."""
    with listening(GitHubStandIn()) as there:
        there.faults = [Answer(200, [], {"link": '<http://evil.example/x>; rel="next"'})]
        assert adapter("github", there).open_pull_requests(REPO) == {}


# --- a GitHub App ----------------------------------------------------------------------------------------------


class AppStandIn(GitHubStandIn):
    """Gives a token to whoever signs with the app's key."""

    token_header = "Bearer of-the-installation"

    def __init__(self, public: Any) -> None:
        super().__init__()
        self.public = public
        self.given = 0

    def authorized(self, asked: Asked) -> bool:
        if not asked.path.startswith("/app/"):
            return super().authorized(asked)
        signed = asked.headers["authorization"].removeprefix("Bearer ")
        claims = jwt.decode(signed, self.public, algorithms=["RS256"], issuer="12")
        return bool(claims["exp"] - time.time() <= 600 and claims["iat"] < time.time())

    def route(self, asked: Asked) -> Answer:
        if asked.path == "/app/installations/34/access_tokens":
            self.given += 1
            return Answer(201, {"token": "of-the-installation", "expires_at": "2030-01-01T00:00:00Z"})
        return super().route(asked)


@pytest.fixture(scope="module")
def key() -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_github_app_fetches_a_token_and_caches_it(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    with listening(AppStandIn(key.public_key())) as there:
        assert isinstance(there, AppStandIn)
        app = {"token": None, "app_id": "12", "private_key": SecretStr(pem), "installation_id": 34}
        host = adapter("github", there, **app)
        for _ in range(3):
            host.set_status(REPO, STATUS)
        assert there.given == 1
        monkeypatch.setattr("blocks.git_hosts.github.LIFE", 0.0)
        host = adapter("github", there, **app)
        for _ in range(3):
            host.set_status(REPO, STATUS)
        assert there.given == 4


def test_invalid_private_key_is_an_error() -> None:
    with listening(GitHubStandIn()) as there:
        host = adapter("github", there, token=None, app_id="12", private_key=SecretStr("x"), installation_id=34)
        with pytest.raises(GitHostError, match="private key"):
            host.set_status(REPO, STATUS)


def test_credentials_are_required() -> None:
    with pytest.raises(ValidationError, match="give a token, or app_id"):
        git_hosts()["github"](app_id="12")
