"""Behaviour of the vercel target beyond the contract of targets, and its error messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from tenacity import wait_fixed

from blocks.targets import _hosted
from blocks.targets.vercel import client
from blocks.targets.vercel.target import VercelTarget
from headway import config
from headway.domain.errors import LockLost, TargetError, UsageError
from headway.domain.plan import Plan
from headway.domain.revision import Artifact, Health, LaunchSpec, Revision
from headway.domain.traffic import Traffic
from headway.rollout import strategies
from headway.rollout.planning import plan_for
from headway.system import sealed_tree
from tests.e2e.conftest import APP, GOOD, Repo
from tests.standins.hosted_apps import Trust
from tests.standins.vercel import BYPASS, TEAM, TOKEN, Vercel, vercel

pytestmark = pytest.mark.slow

SHA = "1" * 40
STAGES = [{"targetPercentage": weight, "requireApproval": True} for weight in (5, 50, 100)]


@pytest.fixture
def server(tmp_path: Path, trust: Trust) -> Iterator[Vercel]:
    with vercel(tmp_path / "vercel", trust) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hosted, "RETRIES", replace(_hosted.RETRIES, backoff=wait_fixed(0.01)))


@pytest.fixture
def target(server: Vercel, tmp_path: Path) -> VercelTarget:
    return made(server, tmp_path)


def made(server: Vercel, directory: Path, **changed: object) -> VercelTarget:
    fields = {
        "directory": directory / "state",
        "url": server.url,
        "token": TOKEN,
        "team": TEAM,
        "project": "shop",
        "domain": server.production,
        "poll": 0.05,
    }
    return VercelTarget.model_validate(fields | changed)


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., LaunchSpec]:
    def made(files: dict[str, str] | None = None, **changed: object) -> LaunchSpec:
        files = {"app.py": GOOD + APP} | (files or {})
        place = tmp_path / "bundles" / f"{abs(hash(frozenset(files.items())))}"
        for name, content in files.items() if not place.exists() else ():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(content)
        sealed_tree.seal(place)
        artifact = Artifact(digest=f"sha256:{sealed_tree.digest_of(place)}", location=str(place), size=1, sealed=True)
        spec = LaunchSpec(environment="production", target="vercel/prod", artifact=artifact, health=Health(startup=20))
        return spec.model_copy(update=changed)

    return made


def up(target: VercelTarget, spec: LaunchSpec, sha: str = SHA) -> Revision:
    revision = spec.revision("shop", sha)
    target.launch(revision, spec)
    settled(target, revision)
    assert target.ready(revision).ready == 1, target.ready(revision)
    return revision


def settled(target: VercelTarget, revision: Revision) -> None:
    end = time.monotonic() + 60
    while not (said := target.ready(revision)).ready and not said.failed:
        assert time.monotonic() < end, said


def plan(target: VercelTarget, spec: LaunchSpec, strategy: object) -> Plan:
    environment = config.Environment.model_validate({"target": "vercel/prod", "strategy": strategy})
    old = spec.revision("shop", "9" * 40)
    return strategies.plan(
        environment,
        target.observe("shop").model_copy(update={"traffic": Traffic.all_to(old)}),
        spec.revision("shop", SHA),
        spec,
        stable=None,
        capabilities=target.capabilities,
    )


def test_tested_deployment_is_promoted_without_a_build_and_rolled_back_instantly(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    old = up(target, bundle())
    target.route("shop", Traffic.all_to(old))
    new = up(target, bundle({"new": "1"}), "2" * 40)
    built = set(server.made)
    target.route("shop", Traffic.all_to(new))
    assert target.observe("shop").live == new.id
    target.route("shop", Traffic.all_to(old))
    assert target.observe("shop").live == old.id
    assert set(server.made) == built
    moves = [path.split("/")[4] for method, path in server.calls if "/promote/" in path or "/rollback/" in path]
    assert moves == ["promote", "promote", "rollback"]


def test_only_missing_source_files_are_uploaded(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    files = {"a/b.txt": "one", "node_modules/x.js": "x", ".env.local": "SECRET=1", "docs/big": "big"}
    up(target, bundle({**files, ".vercelignore": "docs\n"}))
    assert len(server.uploaded) == 3
    sent = {
        one["file"] for one in server.made["dpl_0002" if "dpl_0002" in server.made else min(server.made)].body["files"]
    }
    assert sent == {"app.py", "a/b.txt", ".vercelignore"}
    server.uploaded.clear()
    up(target, bundle({**files, ".vercelignore": "docs\n", "a/b.txt": "two"}), "2" * 40)
    assert len(server.uploaded) == 1


def test_failed_build_quotes_its_last_lines(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    spec = bundle({"vercel-build.sh": "echo no module named shop; exit 3"})
    revision = spec.revision("shop", SHA)
    target.launch(revision, spec)
    settled(target, revision)
    said = target.ready(revision)
    assert said.failed
    assert "is ERROR" in said.detail
    assert "no module named shop" in said.detail
    assert "exited with 3" in said.detail
    target.launch(revision, spec)  # it is built again, not found again
    assert len(server.made) == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"token": "vcp_wrong"}, "refuses the token"),
        ({"team": "team_other"}, "the token may not do this"),
        ({"project": "shap"}, "Vercel project shap (team team_acme0123456789): there is none"),
        ({"domain": "shop.example.com"}, "shop.example.com is no production domain of it; it has: 127.0.0.1"),
        ({"url": "http://127.0.0.1:1"}, "Vercel does not answer"),
    ],
)
def test_wrong_project_is_found_before_any_change(
    server: Vercel, tmp_path: Path, bundle: Callable[..., LaunchSpec], changed: dict[str, str], words: str
) -> None:
    wanted = plan(made(server, tmp_path), bundle(), "blue_green")
    server.calls.clear()
    with pytest.raises((TargetError, UsageError)) as caught:
        made(server, tmp_path, **changed).check("shop", wanted)
    assert words in caught.value.what
    assert caught.value.hint
    assert TOKEN not in str(caught.value)
    assert {method for method, _ in server.calls} <= {"GET"}


def test_previews_do_not_get_a_production_domain(
    server: Vercel, target: VercelTarget, tmp_path: Path, bundle: Callable[..., LaunchSpec]
) -> None:
    wanted = plan(target, bundle(), "blue_green")
    with pytest.raises(UsageError, match="is a production domain, and a preview would get it"):
        made(server, tmp_path, environment="preview").check("shop", wanted)
    made(server, tmp_path, environment="preview", domain=server.preview).check("shop", wanted)


def test_response_that_is_not_from_the_api_is_an_error(server: Vercel, target: VercelTarget) -> None:
    server.get_project = lambda *_: b"<html>"  # type: ignore[method-assign]
    with pytest.raises(TargetError, match="answers 200 and no JSON: <html>"):
        target.observe("shop")


def test_project_with_automatic_promotion_is_refused(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    wanted = plan(target, bundle(), "blue_green")
    target.check("shop", wanted)
    server.auto_assign = True
    with pytest.raises(UsageError, match="before it is tested"):
        target.check("shop", wanted)


@pytest.mark.parametrize(
    ("stages", "steps", "words"),
    [
        (None, ["5%", "100%"], "canary needs weighted routing, and rolling releases are off"),
        (STAGES, ["5%", "20%", "100%"], "wants 5 %, 20 %; the stages of its rolling releases are 5 %, 50 %, 100 %"),
        (
            [{"targetPercentage": 5, "duration": 10}, {"targetPercentage": 100}],
            ["5%", "100%"],
            "by themselves after 5 %",
        ),
    ],
)
def test_unsupported_canary_is_refused_at_plan_time(
    server: Vercel,
    target: VercelTarget,
    bundle: Callable[..., LaunchSpec],
    stages: list[dict[str, object]] | None,
    steps: list[str],
    words: str,
) -> None:
    server.stages = stages
    with pytest.raises(UsageError, match=words):
        target.check("shop", plan(target, bundle(), {"canary": {"steps": steps}}))
    server.stages = STAGES
    target.check("shop", plan(target, bundle(), {"canary": {"steps": ["5%", "50%", "100%"]}}))


def test_strategies_that_count_instances_or_requests_are_refused(
    target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    with pytest.raises(UsageError, match="rolling needs instances") as caught:
        plan(target, bundle(), "rolling")
    assert caught.value.hint == "choose one of: recreate, blue_green, canary"
    judged = {"canary": {"steps": ["5%", "100%"], "analysis": {"success_rate": ">= 99"}}}
    environment = config.Environment.model_validate({"target": "vercel/prod", "strategy": judged})
    live = up(target, bundle())
    target.route("shop", Traffic.all_to(live))
    with pytest.raises(UsageError, match=r"target vercel/prod counts no requests of users"):
        plan_for(target, environment, bundle().revision("shop", "2" * 40), bundle(), stable=None)
    with pytest.raises(UsageError, match="instances: target vercel/prod sets the number of instances itself"):
        plan(target, bundle(instances=2), "blue_green")


def test_a_rolling_release_goes_up_by_its_stages_and_down_by_another_one(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    server.stages = STAGES
    old, new = up(target, bundle()), up(target, bundle({"new": "1"}), "2" * 40)
    target.route("shop", Traffic.all_to(old))
    for weight in (50, 5, 50):
        target.route("shop", Traffic(weights={new.id: weight, old.id: 100 - weight}))
        assert target.observe("shop").traffic.weights == {new.id: weight, old.id: 100 - weight}
    with pytest.raises(TargetError, match="cannot be retired"):
        target.retire(new)
    target.route("shop", Traffic.all_to(old))
    assert target.observe("shop").live == old.id
    target.route("shop", Traffic(weights={new.id: 5, old.id: 95}))
    target.route("shop", Traffic.all_to(new))
    assert target.observe("shop").live == new.id
    target.route("shop", Traffic.all_to(old))  # at once, though rolling releases are on
    assert target.observe("shop").live == old.id
    assert server.rolling is None


def test_foreign_deployment_is_not_changed_and_no_rollback_target(
    server: Vercel, target: VercelTarget, tmp_path: Path, bundle: Callable[..., LaunchSpec]
) -> None:
    other = made(server, tmp_path / "other")
    spec = bundle()
    theirs = spec.revision("someone-else", SHA)
    other.launch(theirs, spec)
    settled(other, theirs)
    other.route("someone-else", Traffic.all_to(theirs))
    live = server.alias[server.production]
    assert target.observe("shop").traffic == Traffic()
    target.route("shop", Traffic())
    assert server.alias[server.production] == live
    ours = up(target, bundle())
    target.route("shop", Traffic.all_to(ours))
    assert server.alias[server.production] != live
    target.route("shop", Traffic())
    assert server.alias[server.production] == live
    assert target.observe("shop").traffic == Traffic()


def test_busy_and_broken_responses_are_retried(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    server.faults = [(429, {"Retry-After": "0"}), (503, {}), "break", (500, {"Retry-After": "0"})]
    assert target.observe("shop").instances == {}
    server.faults = [(503, {"X-RateLimit-Reset": str(time.time() + 3600)})]  # which every answer has
    assert target.observe("shop").instances == {}
    server.faults = [(429, {"Retry-After": "3600"})]
    with pytest.raises(TargetError, match=r"asked too often.*again in 3600 s"):
        target.observe("shop")
    server.faults = [(502, {})] * _hosted.RETRIES.attempts
    with pytest.raises(TargetError, match="answers 502 to GET /v9/projects/shop"):
        target.observe("shop")


@pytest.mark.parametrize("fault", ["break", (502, {})])
def test_deployment_with_a_lost_response_is_not_created_twice(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec], fault: object
) -> None:
    spec = bundle()
    up(target, spec, "2" * 40)  # its files are there now
    create, before = ("POST", "/v13/deployments"), len(server.made)
    revision = spec.revision("shop", SHA)
    _at_the_next(server, create, fault)
    target.launch(revision, spec)
    assert len(server.made) == before + 1
    settled(target, revision)


def _at_the_next(server: Vercel, call: tuple[str, str], fault: object) -> None:
    """Answer the next call of this kind with this fault."""

    class Calls(list[tuple[str, str]]):
        def append(self, one: tuple[str, str]) -> None:
            super().append(one)
            if one == call and not done:
                done.append(True)
                server.faults.append(fault)  # type: ignore[arg-type]

    done: list[bool] = []
    server.calls = Calls(server.calls)


def test_older_deployment_is_found_on_later_pages(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAGE", 1)
    spec = bundle()
    oldest = up(target, spec)
    target.route("shop", Traffic.all_to(oldest))
    newest = [up(target, spec, f"{number}" * 40) for number in (2, 3)]
    target.route("shop", Traffic.all_to(newest[-1]))
    target.retire(oldest)
    count = len(server.made)
    target.launch(oldest, spec)
    assert len(server.made) == count
    target.route("shop", Traffic.all_to(oldest))
    assert target.observe("shop").live == oldest.id


def test_variables_belong_to_the_environment_and_are_removed_when_dropped(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    server.variables["env_theirs"] = {"id": "env_theirs", "key": "THEIRS", "value": "1", "target": ["production"]}
    up(target, bundle(env={"LEVEL": "info", "KEY": "s3cret"}, secrets=("KEY",)))
    kept = {one["key"]: (one.get("type"), one["target"]) for one in server.variables.values()}
    assert kept["KEY"] == ("sensitive", ["production"])
    assert kept["LEVEL"] == ("encrypted", ["production"])
    assert {"HEADWAY_REVISION", "HEADWAY_VERSION", "HEADWAY_APP", "HEADWAY_ENVIRONMENT"} <= kept.keys()
    up(target, bundle(env={"LEVEL": "info"}), "2" * 40)
    left = {one["key"] for one in server.variables.values()}
    assert "KEY" not in left
    assert {"THEIRS", "LEVEL"} <= left
    spec = bundle(env={"VERCEL_REGION": "x"})
    with pytest.raises(TargetError, match="VERCEL_REGION is reserved"):
        target.launch(spec.revision("shop", SHA), spec)


def test_changed_secret_needs_a_new_build(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    revision = bundle().revision("shop", SHA)
    for value in ("old-and-long", "old-and-long", "rotated-and-long"):
        # The value of a secret is not part of the revision: it is a SecretRef where the revision is made.
        target.launch(revision, bundle(env={"KEY": value}, secrets=("KEY",)))
    assert len(server.made) == 2
    assert "and-long" not in str([one.body["meta"] for one in server.made.values()])


def test_secret_repeated_by_vercel_is_masked(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]
) -> None:
    spec = bundle({"vercel-build.sh": "echo $KEY; exit 1"}, env={"KEY": "hunter2-and-more"}, secrets=("KEY",))
    revision = spec.revision("shop", SHA)
    target.launch(revision, spec)
    settled(target, revision)
    assert "hunter2" not in target.ready(revision).detail
    assert "********" in target.ready(revision).detail


def test_preview_has_its_own_url_and_the_alias(
    server: Vercel, tmp_path: Path, bundle: Callable[..., LaunchSpec]
) -> None:
    target = made(server, tmp_path, environment="preview", domain=server.preview)
    old, new = up(target, bundle()), up(target, bundle({"new": "1"}), "2" * 40)
    for revision in (old, new, old):
        target.route("shop", Traffic.all_to(revision))
        assert target.observe("shop").live == revision.id
    assert all("target" not in one.body for one in server.made.values())
    assert server.production not in server.alias
    with pytest.raises(UsageError, match="off for previews"):
        target.route("shop", Traffic(weights={old.id: 95, new.id: 5}))
    target.route("shop", Traffic())
    assert server.alias == {}


def test_linked_repository_can_provide_the_commit(
    server: Vercel, tmp_path: Path, bundle: Callable[..., LaunchSpec]
) -> None:
    target = made(server, tmp_path, from_git=True)
    spec = bundle()
    with pytest.raises(TargetError, match="linked with no git repository"):
        target.launch(spec.revision("shop", SHA), spec)
    repo = Repo(tmp_path / "repo", "shop")
    server.repository = repo.path
    sha = repo.behave("    return 200, {'from': 'git'}")
    up(target, spec, sha)
    assert server.uploaded == []
    (only,) = server.made.values()
    assert only.body["gitSource"] == {"type": "github", "repoId": 4711, "ref": "main", "sha": sha}


def test_protected_deployment_needs_its_bypass_secret(
    server: Vercel, tmp_path: Path, bundle: Callable[..., LaunchSpec]
) -> None:
    server.protected = True
    target, spec = made(server, tmp_path), bundle()
    revision = spec.revision("shop", SHA)
    target.launch(revision, spec)
    end = time.monotonic() + 60
    while "answers 401" not in (said := target.ready(revision)).detail:
        assert time.monotonic() < end, said
    assert "give the target a `bypass`" in said.detail
    assert made(server, tmp_path, bypass=BYPASS).ready(revision).ready == 1


def test_domain_that_cannot_be_moved_is_an_error(
    server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = up(target, bundle())

    def fail(kind: str, number: str) -> None:
        server.asked = {"toDeploymentId": number, "jobStatus": "failed", "type": kind}

    monkeypatch.setattr(server, "_move", fail)
    with pytest.raises(TargetError, match=r"moving its domains to dpl_.* failed"):
        target.route("shop", Traffic.all_to(revision))


def test_nothing_is_deployed_after_the_lock_is_lost(
    server: Vercel, target: VercelTarget, tmp_path: Path, bundle: Callable[..., LaunchSpec]
) -> None:
    target.claim("shop", 1)
    made(server, tmp_path).claim("shop", 2)
    spec = bundle()
    revision = spec.revision("shop", SHA)
    changes: list[Callable[[], None]] = [
        lambda: target.launch(revision, spec),
        lambda: target.route("shop", Traffic()),
        lambda: target.retire(revision),
    ]
    for change in changes:
        with pytest.raises(LockLost):
            change()
    assert server.made == {}


def test_unneeded_build_is_cancelled(server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]) -> None:
    spec = bundle({"vercel-build.sh": "sleep 1"})
    revision = spec.revision("shop", SHA)
    target.launch(revision, spec)
    target.retire(revision)
    assert [one.state for one in server.made.values()] == ["CANCELED"]
    assert target.observe("shop").instances == {}


def test_new_log_lines_follow(server: Vercel, target: VercelTarget, bundle: Callable[..., LaunchSpec]) -> None:
    revision = up(target, bundle())
    lines = target.logs("shop", follow=True)
    said = [next(lines) for _ in range(3)]
    assert all(line.instance.startswith(f"{revision.id}-dpl_") and line.at for line in said)
    (only,) = server.made.values()
    threading.Timer(0.2, only.say, [f"hello, the token is {TOKEN}"]).start()
    assert next(lines).text == "hello, the token is ********"


def test_a_token_is_never_shown(server: Vercel, tmp_path: Path) -> None:
    assert TOKEN not in repr(made(server, tmp_path, token=f"{TOKEN}\n"))
    for wrong in ("vcp_with a space", " "):
        with pytest.raises(ValidationError, match="printable ASCII") as caught:
            made(server, tmp_path, token=wrong)
        assert "with a space" not in str(caught.value)
