"""What a commit, a repository or a token tries in order to get around the rules of an app, on real git and ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.config import Approval, Settings, StoredSettings
from headway.config.app_policy import AppPolicy, EnvironmentPolicy
from headway.domain.access import Action, Scope
from headway.domain.errors import SourceError, UsageError
from headway.domain.plan import Plan
from headway.domain.principal import Principal, Role
from headway.domain.revision import Artifact
from headway.domain.source import Source
from headway.ledger import Ledger
from headway.ledger.release_inputs import SETTINGS
from headway.system.os_user import os_user
from tasks import app_policy, checkout, release_record
from tasks.release_record import ReleaseSession
from tests.e2e.conftest import Repo

ARTIFACT = Artifact(digest=f"sha256:{'1' * 64}", location="/bundle", size=1)
SHOP = """
app: {app}
run: exec python3 app.py
environments:
  staging: {{target: process/staging}}
  production: {{target: process/production, approval: {{by: [ann], not_author: true}}}}
"""
BY_ANN = Approval(by=("ann",), not_author=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "shop", "shop", SHOP)


class Releases:
    """Runs of the flow `release`, up to its first check."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger = ledger
        self.runs = 0
        self._monkeypatch = monkeypatch
        self.release: ReleaseSession | None = None

    async def start(self, repo: Path, ref: str = "main", *, by: str = "ann", to: str | None = None) -> Settings:
        """The settings that the release goes on with."""
        self.runs += 1
        self._monkeypatch.setenv("PREFECT__FLOW_RUN_ID", f"0f3c2a9c-0000-4000-8000-{self.runs:012}")
        return await self.resume(repo, ref, by=by, to=to)

    async def resume(self, repo: Path, ref: str = "main", *, by: str = "ann", to: str | None = None) -> Settings:
        """As `start`, of the run that was started last."""
        source: Source = await checkout.checkout.fn(str(repo), ref, self.ledger)
        settings: Settings = await checkout.read_settings.fn(source, self.ledger)
        await app_policy.require_allowed_source.fn(self.ledger, str(repo), source, settings.app)
        record = await release_record.open_release.fn(self.ledger, source, settings, by)
        self.release = ReleaseSession(self.ledger, record)
        return await app_policy.apply_policy.fn(self.release, settings, settings.release_path(to))

    def accept(self, settings: Settings, environment: str) -> None:
        """The release is live in this environment."""
        assert self.release is not None
        record = self.release.record
        spec = settings.launch_spec(environment, ARTIFACT, record.name)
        revision = spec.revision(record.app, record.sha or "")
        self.ledger.revisions.save(revision, spec)
        lock = self.ledger.locks.acquire(record.app, environment, holder="test", revision=revision.id, lease=30)
        assert lock
        plan = Plan(strategy="rolling", old=None, new=revision.id, steps=())
        started = self.ledger.rollouts.start(
            record.id, record.app, environment, plan, kind="release", reason="", token=lock.token
        )
        self.ledger.rollouts.finish(started.id, "done")
        self.ledger.locks.release(lock)

    def stages(self) -> dict[str, str]:
        assert self.release is not None
        return {one.name: one.detail for one in self.ledger.stages.by_release(self.release.record.id)}


@pytest.fixture
def releases(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    for module in (checkout, app_policy):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("of the run"))

    async def no_run(_release: object) -> None:
        """There is no Prefect server, and so no run to rename."""

    monkeypatch.setattr(release_record, "rename_run", no_run)
    return Releases(ledger, monkeypatch)


def register(ledger: Ledger, app: str, repo: Path) -> None:
    ledger.apps.register(app, repo=str(repo), host="generic", secret=f"{app}-webhook", by="ann")


def policy(ledger: Ledger, **rules: object) -> None:
    ledger.policies.set("shop", AppPolicy.model_validate(rules), by="root")


async def test_another_repository_cannot_take_an_app_over(
    ledger: Ledger, repo: Repo, releases: Releases, tmp_path: Path
) -> None:
    register(ledger, "shop", repo.path)
    await releases.start(repo.path)
    eve = Repo(tmp_path / "eve", "shop", SHOP)
    with pytest.raises(UsageError, match=f"{eve.path}: its headway.yaml is of the app shop, which is released from"):
        await releases.start(eve.path)
    register(ledger, "blog", eve.path)  # nor the registered repository of another app
    with pytest.raises(UsageError, match="which is released from"):
        await releases.start(eve.path)
    assert len(ledger.releases.recent("shop")) == 1


async def test_an_app_that_is_not_registered_stays_with_the_repository_that_is_live(
    repo: Repo, releases: Releases, tmp_path: Path
) -> None:
    releases.accept(await releases.start(repo.path), "production")
    eve = Repo(tmp_path / "eve", "shop", SHOP)
    with pytest.raises(UsageError, match="which is released from"):
        await releases.start(eve.path)
    register(releases.ledger, "shop", eve.path)  # an admin moves it
    await releases.start(eve.path)


async def test_the_repository_of_the_policy_is_the_only_one(
    ledger: Ledger, repo: Repo, releases: Releases, tmp_path: Path
) -> None:
    policy(ledger, repository=str(repo.path))
    eve = Repo(tmp_path / "eve", "shop", SHOP)
    register(ledger, "shop", eve.path)
    with pytest.raises(UsageError, match="which is released from"):
        await releases.start(eve.path)


async def test_a_commit_of_a_pull_request_is_not_released_by_its_sha(repo: Repo, releases: Releases) -> None:
    repo.git("checkout", "-q", "--detach")
    unmerged = repo.commit("unmerged", {"app.py": "evil"})
    repo.git("update-ref", "refs/pull/7/head", unmerged)
    repo.git("checkout", "-q", "main")
    with pytest.raises(UsageError, match=f"{unmerged[:7]} is not in the history of a branch or a tag"):
        await releases.start(repo.path, unmerged)
    with pytest.raises(UsageError, match="is not in the history of a branch or a tag"):
        await releases.start(repo.path, "refs/pull/7/head")
    assert releases.ledger.releases.recent("shop") == []
    repo.git("merge", "-q", "--ff-only", unmerged)
    await releases.start(repo.path, unmerged)


async def test_a_branch_that_names_itself_is_not_released(ledger: Ledger, repo: Repo, releases: Releases) -> None:
    """Neither by its name, nor by its sha, nor while it is checked out."""
    policy(ledger, branches=["main"], tags=["v*"])
    repo.git("checkout", "-q", "-b", "mine")
    mine = repo.commit("mine", {"headway.yaml": f"branch: mine\non: {{tags: ['*']}}\n{SHOP.format(app='shop')}"})
    for ref in ("mine", mine, "HEAD"):
        with pytest.raises(UsageError, match=rf"{mine[:7]} is not in the history of main, v\*"):
            await releases.start(repo.path, ref)
    repo.git("tag", "latest")
    with pytest.raises(UsageError):
        await releases.start(repo.path, "latest")
    repo.git("tag", "v2")
    await releases.start(repo.path, mine)


async def test_a_run_that_is_resumed_goes_on_when_its_branch_is_gone(repo: Repo, releases: Releases) -> None:
    repo.git("checkout", "-q", "-b", "topic")
    topic = repo.commit("topic", {"app.py": "topic"})
    repo.git("checkout", "-q", "main")
    await releases.start(repo.path, topic)
    repo.git("branch", "-q", "-D", "topic")
    await releases.resume(repo.path, topic)
    with pytest.raises(UsageError):
        await releases.start(repo.path, topic)


async def test_a_commit_cannot_name_the_secrets_of_another_app(
    ledger: Ledger, repo: Repo, releases: Releases, tmp_path: Path
) -> None:
    register(ledger, "shop", repo.path)
    eve = Repo(tmp_path / "eve", "blog", SHOP)
    eve.commit(
        "the secrets of the shop",
        {
            "headway.yaml": "app: blog\nrun: a\nenvironments:\n"
            "  production: {target: process/production, env: {URL: !secret shop-prod/database-url}}\n"
        },
    )
    with pytest.raises(UsageError, match="!secret shop-prod/database-url: it is a secret of the app shop, by its name"):
        await releases.start(eve.path)
    (ended,) = ledger.releases.recent("blog")
    assert "configuration" not in releases.stages()  # the value was not looked up
    assert ended.sha


async def test_a_commit_cannot_use_the_target_of_others(ledger: Ledger, repo: Repo, releases: Releases) -> None:
    policy(ledger, targets=["process/staging"])
    with pytest.raises(UsageError, match="environments/production/target: the policy of shop does not allow process/p"):
        await releases.start(repo.path)
    await releases.start(repo.path, to="staging")


async def test_a_commit_that_deletes_its_approval_needs_that_approval(
    repo: Repo, releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    releases.accept(await releases.start(repo.path), "production")
    repo.commit("no approval", {"headway.yaml": SHOP.format(app="shop").replace("approval", "env: {}, #")})
    repo.commit("no approval", {"headway.yaml": SHOP.format(app="shop").partition(", approval")[0] + "}\n"})
    settings = await releases.start(repo.path)
    assert settings.environment("production").approval == BY_ANN
    said = (
        "production/approval: headway.yaml asks for less than headway.yaml of shop#1, the last release, which is used"
    )
    assert said in caplog.text
    assert said in releases.stages()["policy"]
    assert (await releases.resume(repo.path)).environment("production").approval == BY_ANN
    # Once a person has approved it, the commit's own rule holds.
    releases.accept(settings, "production")
    assert (await releases.start(repo.path)).environment("production").approval is None


async def test_a_commit_that_deletes_its_freeze_or_its_receipt_has_them_still(repo: Repo, releases: Releases) -> None:
    window = "2026-12-19 12:00 - 2027-01-04 08:00 Europe/Berlin"
    strict = {"freeze": [window], "readiness": ["runbook"], "require": "receipt"}
    document = "app: shop\nrun: a\nenvironments: {production: {target: process/production%s}}\n"
    repo.commit("strict", {"headway.yaml": document % "".join(f", {key}: {value}" for key, value in strict.items())})
    releases.accept(await releases.start(repo.path), "production")
    repo.commit("loose", {"headway.yaml": document % ""})
    rules = (await releases.start(repo.path)).environment("production")
    assert (rules.freeze, rules.readiness, rules.require) == ((window,), ("runbook",), "receipt")


async def test_another_name_for_production_needs_its_approval(repo: Repo, releases: Releases) -> None:
    releases.accept(await releases.start(repo.path), "production")
    repo.commit(
        "renamed",
        {"headway.yaml": "app: shop\nrun: a\nenvironments: {live: {target: process/production}}\n"},
    )
    assert (await releases.start(repo.path)).environment("live").approval == BY_ANN


async def test_the_policy_holds_whatever_was_approved_before(ledger: Ledger, repo: Repo, releases: Releases) -> None:
    owners = Approval(by=("group:owners",), count=2)
    policy(ledger, environments={"production": {"approval": {"by": ["group:owners"], "count": 2}}})
    loose = SHOP.format(app="shop").partition(", approval")[0] + "}\n"
    repo.commit("no approval", {"headway.yaml": loose})
    for _ in range(2):
        settings = await releases.start(repo.path)
        assert settings.environment("production").approval == owners
        assert settings.environment("staging").approval is None
        releases.accept(settings, "production")
    policy(ledger)  # an admin loosens it: the next release has the rules of its own commit
    assert (await releases.start(repo.path)).environment("production").approval is None


async def test_a_policy_that_is_tightened_holds_for_a_release_that_waits(
    ledger: Ledger, repo: Repo, releases: Releases
) -> None:
    await releases.start(repo.path)
    policy(ledger, environments={"production": EnvironmentPolicy(approval=Approval(count=3)).model_dump()})
    approval = (await releases.resume(repo.path)).environment("production").approval
    assert approval is not None
    assert (approval.by, approval.count, approval.not_author) == ((), 3, True)


async def test_rules_that_another_version_stored_are_not_compared(
    ledger: Ledger, repo: Repo, releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    settings = await releases.start(repo.path)
    releases.accept(settings, "production")
    assert releases.release is not None
    document = StoredSettings.document(settings)
    document["settings"]["gone"] = 1
    ledger.removal.environment("shop", "production")
    record = ledger.releases.start("shop", str(repo.path), "main", flow_run_id="other", requested_by="ann")
    ledger.inputs.fix(record.id, SETTINGS, document)
    releases.release = ReleaseSession(ledger, ledger.releases.update(record.id, sha="1" * 40))
    releases.accept(settings, "production")
    await releases.start(repo.path)
    assert "production: its rules are not compared: shop#2: its settings were stored by another version" in caplog.text


async def test_a_token_for_staging_does_not_release_to_what_the_commit_puts_before_it(
    ledger: Ledger, repo: Repo, releases: Releases
) -> None:
    scope = Scope(actions=(Action.RELEASE,), environments=("staging",))
    ledger.tokens.create("ci", owner=os_user(), scope=scope, expires_at=None)
    await releases.start(repo.path, by="token:ci", to="staging")
    swapped = SHOP.format(app="shop").splitlines()
    swapped[-2:] = swapped[:-3:-1]
    repo.commit("production first", {"headway.yaml": "\n".join(swapped)})
    with pytest.raises(UsageError, match="token:ci may not release shop in production: its scope is to release"):
        await releases.start(repo.path, by="token:ci", to="staging")


async def test_a_token_of_a_removed_user_releases_nothing(ledger: Ledger, repo: Repo, releases: Releases) -> None:
    ledger.grants.grant("ann", Role.DEVELOPER, "shop", by="root")
    owner = Principal(kind="user", name="ann")
    ledger.tokens.create("ci", owner=owner, scope=Scope(actions=(Action.RELEASE,)), expires_at=None)
    await releases.start(repo.path, by="token:ci")
    ledger.grants.remove_user("ann", by="root")
    with pytest.raises(UsageError, match="token:ci may not release shop in staging: it was revoked by root"):
        await releases.start(repo.path, by="token:ci")


async def test_a_person_needs_a_role_once_somebody_has_one(
    ledger: Ledger, repo: Repo, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve = Principal(kind="user", name="eve")
    monkeypatch.setattr(app_policy, "requester", lambda _ledger: eve)
    await releases.start(repo.path, by="eve")
    ledger.grants.grant("ann", Role.DEVELOPER, "shop", by="root")
    with pytest.raises(UsageError, match="eve may not release shop in staging: that needs the role developer"):
        await releases.start(repo.path, by="eve")
    ledger.grants.grant("eve", Role.DEVELOPER, "shop", by="root")
    await releases.start(repo.path, by="eve")
    ledger.grants.revoke("eve", "shop", by="root")
    with pytest.raises(UsageError):
        await releases.start(repo.path, by="eve")


async def test_a_repository_that_is_away_is_not_taken_for_one_without_the_commit(
    repo: Repo, releases: Releases, tmp_path: Path
) -> None:
    sha = repo.git("rev-parse", "HEAD")
    source = await checkout.checkout.fn(str(repo.path), sha, releases.ledger)
    with pytest.raises(SourceError):
        await app_policy.require_allowed_source.fn(releases.ledger, f"file://{tmp_path}/away", source, "shop")
