"""Behaviour of the railway target beyond the contract of targets, and its error messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from graphql import parse, validate
from pydantic import ValidationError
from tenacity import wait_fixed

from blocks.targets import _hosted
from blocks.targets.railway.client import DOCUMENTS
from blocks.targets.railway.target import RailwayTarget
from headway import config
from headway.domain.errors import LockLost, TargetError, UsageError
from headway.domain.plan import Plan
from headway.domain.revision import Artifact, Health, LaunchSpec, Revision
from headway.domain.traffic import Traffic
from headway.rollout import strategies
from headway.rollout.load_generator import Load
from tests.e2e.conftest import APP, GOOD, Repo
from tests.standins.hosted_apps import Trust
from tests.standins.railway import ACCOUNT, PRODUCTION, PROJECT, SCHEMA, STAGING, TOKENS, Railway, railway

pytestmark = pytest.mark.slow

SHA = "1" * 40
SPEC = LaunchSpec(
    environment="production",
    target="railway/prod",
    artifact=Artifact(digest="sha256:" + "a" * 64, location="/", size=1),
    health=Health(startup=20),
    drain=2,
)


@pytest.fixture
def server(tmp_path: Path, trust: Trust) -> Iterator[Railway]:
    with railway(tmp_path / "railway", trust) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hosted, "RETRIES", replace(_hosted.RETRIES, backoff=wait_fixed(0.01)))


@pytest.fixture
def repo(server: Railway, tmp_path: Path) -> Repo:
    """The repository that the service is connected with."""
    made = Repo(tmp_path / "repo", "shop")
    server.repository = made.path
    return made


def made(server: Railway, directory: Path, **changed: object) -> RailwayTarget:
    fields = {
        "directory": directory / "state",
        "url": server.url,
        "token": TOKENS[PRODUCTION],
        "service": "shop",
        "poll": 0.05,
        "timeout": 30,
    }
    return RailwayTarget.model_validate(fields | changed)


@pytest.fixture
def target(server: Railway, tmp_path: Path) -> RailwayTarget:
    return made(server, tmp_path)


def up(target: RailwayTarget, sha: str, spec: LaunchSpec = SPEC) -> Revision:
    revision = spec.revision("shop", sha)
    target.launch(revision, spec)
    target.route("shop", Traffic.all_to(revision))
    return revision


def plan(target: RailwayTarget, strategy: object, spec: LaunchSpec = SPEC) -> Plan:
    environment = config.Environment.model_validate({"target": "railway/prod", "strategy": strategy})
    seen = target.observe("shop").model_copy(update={"traffic": Traffic.all_to(spec.revision("shop", "9" * 40))})
    return strategies.plan(
        environment, seen, spec.revision("shop", SHA), spec, stable=None, capabilities=target.capabilities
    )


def deployments(server: Railway) -> int:
    return len(server.environments[PRODUCTION].made)


def test_every_graphql_document_matches_the_public_schema() -> None:
    faults = {name: validate(SCHEMA, parse(text)) for name, text in DOCUMENTS.items()}
    assert not any(faults.values()), faults


def test_old_deployment_serves_until_the_new_one_is_ready(server: Railway, repo: Repo, tmp_path: Path) -> None:
    target = made(server, tmp_path, overlap=1)
    old = up(target, repo.git("rev-parse", "HEAD"))
    url = target.observe("shop").url
    assert url is not None
    with Load(url, rate=50) as load:
        new = up(target, repo.behave("    return 200, {'new': True}"))
        time.sleep(1.5)
    assert load.failures == []
    assert target.observe("shop").live == new.id != old.id
    given = server.environments[PRODUCTION].made[-1].settings
    assert given == {
        "healthcheckPath": "/health", "healthcheckTimeout": 20, "drainingSeconds": 2, "overlapSeconds": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"build.sh": "echo no module named shop; exit 3"}, "is FAILED: .*no module named shop .* exit code: 3"),
        ({"app.py": "print('cannot bind'); raise SystemExit(1)"}, "is FAILED: .*cannot bind"),
    ],
)
def test_failed_deployment_quotes_its_last_lines_and_replaces_nothing(
    target: RailwayTarget, repo: Repo, files: dict[str, str], words: str
) -> None:
    old = up(target, repo.git("rev-parse", "HEAD"))
    bad = repo.commit("bad", files)
    with pytest.raises(TargetError, match=words):
        up(target, bad)
    assert target.observe("shop").live == old.id


def test_rollback_uses_railways_rollback_and_then_a_new_deployment(
    server: Railway, target: RailwayTarget, repo: Repo
) -> None:
    first = repo.git("rev-parse", "HEAD")
    old = up(target, first)
    new = up(target, repo.behave("    return 200, {'new': True}"))
    server.operations.clear()
    assert up(target, first) == old
    assert target.observe("shop").live == old.id
    assert ("rollBack" in server.operations, "deploy" in server.operations) == (True, False)
    target.route("shop", Traffic.all_to(new))
    for one in server.environments[PRODUCTION].made:
        one.kept = False  # its plan's retention is over
    server.operations.clear()
    up(target, first)
    assert target.observe("shop").live == old.id
    assert ("rollBack" in server.operations, "deploy" in server.operations) == (False, True)


def test_changed_secret_is_in_the_rolled_back_deployment(server: Railway, target: RailwayTarget, repo: Repo) -> None:
    first, told = repo.git("rev-parse", "HEAD"), SPEC.model_copy(update={"env": {"KEY": "old", "URL": "${{db.URL}}"}})
    server.environments[PRODUCTION].variables["THEIRS"] = "1"
    old = up(target, first, told)
    up(target, repo.behave("    return 200, {'new': True}"), told)
    # The value of a secret is not part of the revision: it is a SecretRef where the revision is made.
    target.launch(old, told.model_copy(update={"env": {"KEY": "rotated", "URL": "${{db.URL}}"}}))
    target.route("shop", Traffic.all_to(old))
    live = server.environments[PRODUCTION].made[-1]
    assert live.variables["KEY"] == "rotated"
    assert live.variables["HEADWAY_REVISION"] == old.id
    assert live.variables["THEIRS"] == "1"


def test_an_image_is_deployed_by_its_digest(server: Railway, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (image / "app.py").write_text(GOOD + APP)
    location = "127.0.0.1:1/acme/shop@sha256:" + "b" * 64
    server.images[location] = image
    target = made(server, tmp_path, username="ann", password="hunter2-and-more")
    artifact = Artifact(kind="image", digest="sha256:" + "b" * 64, location=location, size=1)
    spec = SPEC.model_copy(update={"artifact": artifact})
    assert "registry does not say" in str(target.missing(spec))
    revision = up(target, SHA, spec)
    assert target.observe("shop").live == revision.id
    (only,) = server.environments[PRODUCTION].made
    assert only.meta == {"image": location}
    assert only.settings["registryCredentials"] == {"username": "ann", "password": "hunter2-and-more"}
    assert target.missing(spec) is None  # Railway has it, whatever the registry says
    lost = artifact.model_copy(update={"location": location.replace("shop@", "gone@")})
    with pytest.raises(TargetError, match="manifest unknown"):
        up(target, "2" * 40, spec.model_copy(update={"artifact": lost}))


def test_service_with_a_volume_warns_about_downtime(server: Railway, target: RailwayTarget, repo: Repo) -> None:
    target.check("shop", plan(target, "blue_green"))
    server.environments[PRODUCTION].volume = "/data"
    with pytest.raises(UsageError, match=r"has a volume at /data.*cannot be without an interruption") as caught:
        target.check("shop", plan(target, "blue_green"))
    assert "recreate" in caught.value.hint
    target.check("shop", plan(target, "recreate"))
    up(target, repo.git("rev-parse", "HEAD"))
    target.route("shop", Traffic())
    assert target.observe("shop").traffic == Traffic()
    new = up(target, repo.behave("    return 200, {'new': True}"))
    assert target.observe("shop").live == new.id


def test_strategies_that_need_more_than_a_switch_are_refused(target: RailwayTarget) -> None:
    with pytest.raises(UsageError, match="canary needs weighted routing; target railway/prod has: atomic switch, logs"):
        plan(target, "canary")
    with pytest.raises(UsageError, match="instances: target railway/prod sets the number of instances itself"):
        plan(target, "blue_green", SPEC.model_copy(update={"instances": 2}))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"token": "5ec7e7-of-nobody"}, "refuses the token, or it may not do this"),
        ({"project": "0000"}, f"the token is of project {PROJECT}, the block of 0000"),
        ({"environment": "staging"}, "which has: staging, production; the token is of production"),
        ({"service": "shap"}, "project acme has no such service; it has: shop, Postgres"),
        ({"account": True, "token": ACCOUNT}, "no project: the token is of an account"),
        ({"account": True, "token": ACCOUNT, "project": "0000", "environment": "production"}, "Project not found"),
        ({"url": "http://127.0.0.1:1/graphql/v2"}, "Railway does not answer"),
    ],
)
def test_wrong_project_is_found_before_any_change(
    server: Railway, target: RailwayTarget, tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    wanted = plan(target, "blue_green")
    server.operations.clear()
    with pytest.raises(TargetError) as caught:
        made(server, tmp_path, **changed).check("shop", wanted)
    assert words in caught.value.what
    assert caught.value.hint
    assert "5ec7e7" not in str(caught.value)
    assert set(server.operations) <= {"token", "project", "environments", "services", "instance", "volumes"}


def test_undeployable_artifact_is_an_error(server: Railway, target: RailwayTarget, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="connected with no repository"):
        target.launch(SPEC.revision("shop", SHA), SPEC)
    server.repository = Repo(tmp_path / "repo", "shop").path
    with pytest.raises(TargetError, match="Commit not found") as caught:
        up(target, SHA)
    assert caught.value.hint == "push it to the repository that the service is connected with"
    server.environments[PRODUCTION].domain = None
    with pytest.raises(UsageError, match="has no domain"):
        target.check("shop", plan(target, "blue_green"))
    server.environments[PRODUCTION].domain = "x"
    server.approval = True
    with pytest.raises(TargetError, match="waits for somebody's approval"):
        up(target, server_head(server))
    assert server.environments[PRODUCTION].made[-1].status == "REMOVED"


def server_head(server: Railway) -> str:
    assert server.repository is not None
    return (server.repository / ".git/refs/heads/main").read_text().strip()


@pytest.mark.parametrize("fault", ["break", (502, {})])
def test_deployment_with_a_lost_response_is_not_created_twice(
    server: Railway, target: RailwayTarget, repo: Repo, fault: tuple[int, dict[str, str]] | str
) -> None:
    first = repo.git("rev-parse", "HEAD")
    at_the_next(server, "deploy", fault)
    up(target, first)
    assert deployments(server) == 1
    up(target, repo.behave("    return 200, {'new': True}"))
    at_the_next(server, "rollBack", fault)
    old = up(target, first)
    assert deployments(server) == 3
    assert target.observe("shop").live == old.id


def at_the_next(server: Railway, operation: str, fault: tuple[int, dict[str, str]] | str) -> None:
    class Operations(list[str]):
        def append(self, one: str) -> None:
            super().append(one)
            if one == operation and not done:
                done.append(True)
                server.faults.append(fault)

    done: list[bool] = []
    server.operations = Operations(server.operations)


def going(server: Railway, target: RailwayTarget, sha: str, seconds: float) -> tuple[Revision, threading.Thread]:
    """A revision whose deployment was started by a run that died."""
    server.slow = seconds
    count, revision = deployments(server), SPEC.revision("shop", sha)
    target.launch(revision, SPEC)
    run = threading.Thread(target=swallowing, args=(target, revision), daemon=True)
    run.start()
    while deployments(server) == count:
        time.sleep(0.02)
    return revision, run


def swallowing(target: RailwayTarget, revision: Revision) -> None:
    with suppress(TargetError):
        target.route("shop", Traffic.all_to(revision))


def test_build_of_a_dead_run_is_cancelled(server: Railway, target: RailwayTarget, tmp_path: Path, repo: Repo) -> None:
    old = up(target, repo.git("rev-parse", "HEAD"))
    new, run = going(server, made(server, tmp_path), repo.behave("    return 200, {'new': True}"), 10)
    seen = target.observe("shop")
    assert seen.live == old.id
    assert [one.ready for one in seen.instances[new.id]] == [False]
    target.retire(new)
    run.join(60)
    assert target.observe("shop").live == old.id
    assert set(target.observe("shop").instances) == {old.id}


def test_deployment_of_a_dead_run_does_not_replace_a_newer_one(
    server: Railway, target: RailwayTarget, tmp_path: Path, repo: Repo
) -> None:
    _, run = going(server, made(server, tmp_path), repo.git("rev-parse", "HEAD"), 1)
    dead = server.environments[PRODUCTION].made[-1]
    newer = up(target, repo.behave("    return 200, {'new': True}"))
    run.join(60)
    assert dead.status == "REMOVED"
    assert target.observe("shop").live == newer.id


def test_running_build_is_followed_by_the_next_run(
    server: Railway, target: RailwayTarget, tmp_path: Path, repo: Repo
) -> None:
    new, run = going(server, made(server, tmp_path), repo.git("rev-parse", "HEAD"), 1)
    target.route("shop", Traffic.all_to(new))
    assert target.observe("shop").live == new.id
    assert deployments(server) == 1
    run.join(60)


def test_slow_deployment_is_cancelled(server: Railway, tmp_path: Path, repo: Repo) -> None:
    server.slow = 5
    with pytest.raises(TargetError, match=r"is still BUILDING after 0.3 s: cancelled"):
        up(made(server, tmp_path, timeout=0.3), repo.git("rev-parse", "HEAD"))
    assert server.environments[PRODUCTION].made[-1].status == "REMOVED"


def test_crashed_deployment_is_live_and_not_ready(server: Railway, target: RailwayTarget, repo: Repo) -> None:
    revision = up(target, repo.git("rev-parse", "HEAD"))
    server.environments[PRODUCTION].made[-1].status = "CRASHED"
    seen = target.observe("shop")
    assert (seen.live, seen.ready(revision)) == (revision.id, 0)
    target.route("shop", Traffic.all_to(revision))
    assert target.observe("shop").ready(revision) == 1


def test_foreign_deployment_is_not_changed_and_no_rollback_target(
    server: Railway, target: RailwayTarget, repo: Repo
) -> None:
    environment = server.environments[PRODUCTION]
    theirs = server.deploy(environment, {"commitHash": repo.git("rev-parse", "HEAD")}, {"THEIRS": "1"})
    while theirs.status != "SUCCESS":
        time.sleep(0.02)
    assert target.observe("shop").traffic == Traffic()
    target.route("shop", Traffic())
    assert theirs.status == "SUCCESS"
    up(target, repo.behave("    return 200, {'new': True}"))
    target.route("shop", Traffic())
    assert environment.made[-1].variables == {"THEIRS": "1"}
    assert [one.variables for one in environment.active] == [{"THEIRS": "1"}]


def test_ephemeral_environment_is_created_and_deleted(server: Railway, tmp_path: Path, repo: Repo) -> None:
    account = {"token": ACCOUNT, "account": True, "project": PROJECT, "environment": "pr-7", "ephemeral_of": "staging"}
    target = made(server, tmp_path, **account)
    assert target.observe("shop").instances == {}
    target.route("shop", Traffic())
    revision = up(target, repo.git("rev-parse", "HEAD"))
    assert target.observe("shop").live == revision.id
    (ephemeral,) = (one for one in server.environments.values() if one.ephemeral)
    assert (ephemeral.name, len(server.environments[STAGING].made)) == ("pr-7", 0)
    target.destroy()
    assert not any(one.ephemeral for one in server.environments.values())
    one_environment = made(server, tmp_path, environment="pr-8", ephemeral_of="staging")
    with pytest.raises(TargetError, match="needs a token of the account"):
        one_environment.launch(SPEC.revision("shop", SHA), SPEC)


def test_nothing_is_deployed_after_the_lock_is_lost(
    server: Railway, target: RailwayTarget, tmp_path: Path, repo: Repo
) -> None:
    target.claim("shop", 1)
    revision = SPEC.revision("shop", repo.git("rev-parse", "HEAD"))
    target.launch(revision, SPEC)
    made(server, tmp_path).claim("shop", 2)
    changes: list[Callable[[], None]] = [
        lambda: target.launch(revision, SPEC),
        lambda: target.route("shop", Traffic.all_to(revision)),
        lambda: target.retire(revision),
    ]
    for change in changes:
        with pytest.raises(LockLost):
            change()
    assert deployments(server) == 0


def test_new_log_lines_follow(server: Railway, target: RailwayTarget, repo: Repo) -> None:
    revision = up(target, repo.git("rev-parse", "HEAD"))
    lines = target.logs("shop", follow=True)
    assert next(lines).instance.startswith(f"{revision.id}-")
    app = server.environments[PRODUCTION].made[-1].app
    assert app is not None
    with app.log.open("a") as log:
        log.write(f"hello, the token is {TOKENS[PRODUCTION]}\n")
    assert next(lines).text == "hello, the token is ********"


def test_the_secrets_of_the_app_are_in_no_log_and_no_error(
    server: Railway, target: RailwayTarget, tmp_path: Path, repo: Repo
) -> None:
    told = SPEC.model_copy(update={"env": {"KEY": "hunter2-and-more"}, "secrets": ("KEY",)})
    up(target, repo.commit("talks", {"app.py": f"import os\nprint(os.environ['KEY'])\n{GOOD}{APP}"}), told)
    (first, *_) = made(server, tmp_path).logs("shop")  # of a process without the secret in its environment
    assert first.text == "********"
    assert first.at is not None
    with pytest.raises(TargetError, match=r"is FAILED: .*\*{8}") as caught:
        up(target, repo.commit("dies", {"app.py": "import os\nraise SystemExit(os.environ['KEY'])"}), told)
    assert "hunter2" not in str(caught.value)


def test_a_user_without_a_password_is_refused(server: Railway, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        made(server, tmp_path, username="ann")


def test_a_token_is_never_shown(server: Railway, tmp_path: Path) -> None:
    assert TOKENS[PRODUCTION] not in repr(made(server, tmp_path))
