"""Receipts: signed from the ledger, and demanded before a launch, rollbacks included."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from blocks import loading
from blocks.registries.oci import Registry
from headway import config
from headway.cli.main import app as program
from headway.config import StoredSettings
from headway.config.app_policy import AppPolicy
from headway.domain.approvals import Decision, Outcome
from headway.domain.errors import HeadwayError, NotFound, ReleaseFailed
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Launch, Plan, Promote, Step, Verify
from headway.domain.principal import Principal
from headway.domain.revision import Artifact, LaunchSpec, Revision
from headway.ledger import Ledger, RolloutState, StageState
from headway.ledger.release_inputs import SETTINGS
from headway.policy.receipts.statement import PAYLOAD_TYPE
from headway.policy.receipts.verification import Expected, verify
from headway.system import signatures
from headway.testing import FakeTarget
from tasks import environment_lock, receipts, rollback_steps, rollout_steps
from tasks.environment_lock import hold
from tasks.receipts import require_receipt, sign_last_receipt, sign_receipt
from tasks.release_record import ReleaseSession
from tasks.rollback_steps import RollbackRequest, plan_rollback
from tests.standins import registries

SETTINGS_TEXT = """
app: shop
run: serve
checks: {unit: pytest, lint: ruff}
environments:
  staging: {target: process/staging}
  production: {target: process/production, require: receipt}
"""
PRODUCTION = "production"


class Receipted(FakeTarget):
    """A target that demands receipts."""

    def required(self) -> Literal["receipt"] | None:
        return "receipt"


class Shop:
    """An app whose releases reach production, as far as the ledger goes."""

    def __init__(self, ledger: Ledger, settings: config.Settings) -> None:
        self.ledger = ledger
        self.settings = settings

    def release(self, number: int = 1, app: str = "shop", unit: StageState = "passed") -> ReleaseSession:
        """A release that was checked."""
        release = self.ledger.releases.start(app, "/repo", "main", flow_run_id=None, requested_by="ann")
        self.ledger.inputs.fix(release.id, SETTINGS, StoredSettings.document(self.settings))
        commit = {"sha": f"{number}" * 40, "tree": "f" * 40, "author": "Ada <ada@example.org>"}
        self.ledger.releases.update(release.id, **commit, digest=digest(number))
        states: dict[str, StageState] = {"unit": unit, "lint": "cached"}
        for name, state in states.items():
            self.ledger.stages.start(release.id, name)
            self.ledger.stages.finish(release.id, name, state, "12 tests passed")
        return ReleaseSession(self.ledger, self.ledger.releases.get(release.id))

    def spec(self, release: ReleaseSession, environment: str = PRODUCTION) -> LaunchSpec:
        artifact = Artifact(digest=release.record.digest or "", location="/bundle", size=1)
        spec = self.settings.launch_spec(environment, artifact, release.record.name)
        self.ledger.inputs.fix(release.record.id, f"launch {environment}", spec.model_dump(mode="json"))
        return spec

    def revision(self, release: ReleaseSession, environment: str = PRODUCTION) -> Revision:
        return self.spec(release, environment).revision(release.record.app, release.record.sha or "")

    def roll_out(self, release: ReleaseSession, environment: str, state: RolloutState = "done") -> None:
        """Record a rollout, with a verdict, a reading and requests of users."""
        app, revision = release.record.app, self.revision(release, environment)
        self.ledger.revisions.save(revision, self.spec(release, environment))
        lock = self.ledger.locks.acquire(app, environment, holder="x", revision="r", lease=30)
        assert lock
        steps: tuple[Step, ...] = (
            Launch(revision=revision.id, instances=1),
            Verify(revision=revision.id, probes=()),
            Promote(revision=revision.id),
        )
        plan = Plan(strategy="rolling", new=revision.id, old=None, steps=steps)
        rollout = self.ledger.rollouts.start(
            release.record.id, app, environment, plan, kind="release", reason="", token=lock.token
        )
        self.ledger.readings.add(rollout.id, 1, Measurements(at=datetime.now(UTC), counts={}))
        for index, step in enumerate(steps):
            self.ledger.rollouts.start_step(rollout, index, step, lock.token)
            users = RequestCounts(requests=7, errors=1)
            self.ledger.rollouts.finish_step(rollout, index, "done", "all well", users, lock.token)
        self.ledger.rollouts.finish(rollout.id, state)
        self.ledger.locks.release(lock)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEADWAY_LEDGER_URL", raising=False)
    for module in (environment_lock, receipts, rollback_steps, rollout_steps):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    return tmp_path / "home"


@pytest.fixture
def shop(home: Path, tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "headway.yaml").write_text(SETTINGS_TEXT)
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        yield Shop(ledger, config.load(tmp_path / "headway.yaml"))


@pytest.fixture
async def released(shop: Shop) -> ReleaseSession:
    """A release that has passed staging and has its receipt for production."""
    release = shop.release()
    shop.roll_out(release, "staging")
    await sign_receipt(release, shop.spec(release))
    return release


def digest(number: int) -> str:
    return f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}"


async def demand(shop: Shop, release: ReleaseSession, target: FakeTarget | None = None, **changed: Any) -> None:
    """Demand the receipt of a release in production."""
    spec = shop.spec(release).model_copy(update=changed)
    async with hold(shop.ledger, "shop", PRODUCTION, holder="test", revision="r") as session:
        session._targets["process/production"] = target or FakeTarget()
        await require_receipt(session, spec.revision("shop", release.record.sha or ""), spec)


async def test_a_receipt_says_what_the_ledger_has(shop: Shop, released: ReleaseSession, home: Path) -> None:
    (receipt,) = shop.ledger.receipts.by_release(released.record.id)
    predicate = verify(receipt.envelope, signatures.trusted_keys(home), Expected(app="shop", digest=digest(1)))
    (staging,) = predicate["environments"]
    readings = shop.ledger.readings.by_rollout(shop.ledger.rollouts.by_release(released.record.id)[0].id)
    plain = [[at, one.model_dump(mode="json")] for at, one in readings]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    assert staging["readings"] == {"count": 1, "sha256": hashlib.sha256(canonical.encode()).hexdigest()}
    assert staging["requests"] == {"total": 21, "failed": 3}
    assert [one["outcome"] for one in staging["verdicts"]] == ["done"]
    assert [(one["name"], one["state"]) for one in predicate["checks"]] == [("unit", "passed"), ("lint", "cached")]
    assert predicate["source"]["commit"] == "1" * 40
    assert (predicate["release"], predicate["environment"]) == ("shop#1", PRODUCTION)
    await demand(shop, released)

    shop.roll_out(released, PRODUCTION)
    await sign_last_receipt(released)
    last = shop.ledger.receipts.by_release(released.record.id)[-1]
    predicate = verify(last.envelope, signatures.trusted_keys(home), Expected(release="shop#1"))
    assert [one["name"] for one in predicate["environments"]] == ["staging", PRODUCTION]


async def test_a_receipt_names_everybody_who_approved(shop: Shop, home: Path) -> None:
    release = shop.release()
    expires = datetime.now(UTC) + timedelta(hours=1)
    request = shop.ledger.approvals.request(
        *(release.record.id, PRODUCTION, shop.revision(release).id),
        evidence={},
        expires_at=expires,
        by=[],
        not_author=False,
        count=2,
    )

    def settle(decisions: Sequence[object]) -> Outcome:
        return Outcome(state="approved" if len(decisions) > 1 else "waiting", decided_by="bob, carl")

    for person in ("bob", "carl"):
        made = Decision(principal=Principal(kind="user", name=person), decision="approved", reason="tested", via="cli")
        shop.ledger.approvals.decide(request.id, person, made, settle)
    await sign_receipt(release, shop.spec(release, "staging"))
    (receipt,) = shop.ledger.receipts.by_release(release.record.id)
    (approval,) = verify(receipt.envelope, signatures.trusted_keys(home), Expected())["approvals"]
    assert (approval["environment"], approval["asks"], approval["by"]) == (PRODUCTION, "approval", "bob, carl")
    assert [(one["by"], one["decision"], one["via"]) for one in approval["decisions"]] == [
        ("bob", "approved", "cli"),
        ("carl", "approved", "cli"),
    ]
    assert "  approval    production (approval) by bob, carl\n" in invoke("verify", "shop#1")


async def test_nothing_is_demanded_where_nobody_requires_it(shop: Shop) -> None:
    await demand(shop, shop.release(), require=None)


async def test_an_environment_a_target_a_policy_or_a_newer_revision_requires_a_receipt(shop: Shop) -> None:
    release = shop.release()
    missing = "has no receipt, and nothing is launched here without one"
    with pytest.raises(ReleaseFailed, match=missing):
        await demand(shop, release)
    with pytest.raises(ReleaseFailed, match=missing):
        await demand(shop, release, Receipted(), require=None)
    for rules in ({"production": {"require": "receipt"}}, {"live": {"targets": ["process/*"], "require": "receipt"}}):
        shop.ledger.policies.set("shop", AppPolicy.model_validate({"environments": rules}), by="root")
        with pytest.raises(ReleaseFailed, match=missing):
            await demand(shop, release, require=None)
    shop.ledger.policies.set("shop", AppPolicy(), by="root")
    await demand(shop, release, require=None)
    shop.roll_out(shop.release(2), PRODUCTION)
    with pytest.raises(ReleaseFailed, match=missing):
        await demand(shop, release, require=None)


def tampered(envelope: dict[str, Any]) -> dict[str, Any]:
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["checks"][0]["state"] = "skipped"
    return envelope | {"payload": base64.b64encode(json.dumps(statement).encode()).decode()}


def unsigned(envelope: dict[str, Any]) -> dict[str, Any]:
    return envelope | {"signatures": []}


def of_another_type(envelope: dict[str, Any]) -> dict[str, Any]:
    return envelope | {"payloadType": "text/plain"}


def damaged(envelope: dict[str, Any]) -> dict[str, Any]:
    return {"payload": envelope["payload"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (tampered, "the signature is not valid"),
        (unsigned, "the signature is not valid: it names the key nobody"),
        (of_another_type, "the envelope has a text/plain"),
        (damaged, "this is no signed envelope"),
    ],
)
async def test_a_changed_receipt_is_refused(
    shop: Shop, released: ReleaseSession, change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    (receipt,) = shop.ledger.receipts.by_release(released.record.id)
    shop.ledger.receipts.save(released.record.id, "shop", PRODUCTION, digest(1), change(receipt.envelope))
    with pytest.raises(ReleaseFailed, match=said):
        await demand(shop, released)


async def test_another_key_is_refused_until_it_is_trusted(shop: Shop, released: ReleaseSession, home: Path) -> None:
    (home / "keys").rename(home / "others")
    with pytest.raises(ReleaseFailed, match="there is no public key to verify with"):
        await demand(shop, released)
    signatures.sign(b"", PAYLOAD_TYPE, home)  # makes a key
    with pytest.raises(ReleaseFailed, match="the signature is not valid"):
        await demand(shop, released)
    (home / "keys" / "trusted").mkdir()
    (home / "others" / "signing.pub.pem").rename(home / "keys" / "trusted" / "other.pem")
    await demand(shop, released)


async def test_the_receipt_of_something_else_is_refused(shop: Shop, released: ReleaseSession) -> None:
    save, ours = shop.ledger.receipts.save, released.record.id
    other = shop.release(2)
    shop.roll_out(other, "staging")
    await sign_receipt(other, shop.spec(other))
    await sign_receipt(released, shop.spec(released, "staging"))
    foreign = shop.release(1, "other")
    shop.roll_out(foreign, "staging")
    await sign_receipt(foreign, shop.spec(foreign))
    by = {(one.release_id, one.environment): one.envelope for one in shop.ledger.receipts.by_digest(digest(1))}
    (of_other,) = shop.ledger.receipts.by_release(other.record.id)
    for envelope, said in (
        (of_other.envelope, "its digest is sha256:"),
        (by[foreign.record.id, PRODUCTION], "its app is other, not shop"),
        (by[ours, "staging"], "its environment is staging, not production"),
    ):
        save(ours, "shop", PRODUCTION, digest(1), envelope)
        with pytest.raises(ReleaseFailed, match=said):
            await demand(shop, released)


async def test_a_receipt_does_not_help_what_has_not_passed(shop: Shop) -> None:
    release = shop.release(unit="failed")
    await sign_receipt(release, shop.spec(release))
    with pytest.raises(ReleaseFailed, match="its check unit is failed; its rollout to staging is missing"):
        await demand(shop, release)
    shop.roll_out(release, "staging", "rolled_back")
    await sign_receipt(release, shop.spec(release))
    with pytest.raises(ReleaseFailed, match="its rollout to staging is rolled_back"):
        await demand(shop, release)


async def test_a_rollback_to_a_revision_without_a_receipt_is_refused(shop: Shop, released: ReleaseSession) -> None:
    before, target = shop.release(2), FakeTarget()
    shop.roll_out(before, PRODUCTION)
    shop.roll_out(released, PRODUCTION)

    async def roll_back(to: str) -> None:
        async with hold(shop.ledger, "shop", PRODUCTION, holder="test", revision="r") as session:
            session._targets["process/production"] = target
            assert await plan_rollback.fn(session, RollbackRequest(to=to)) is not None

    started = len(shop.ledger.rollouts.incomplete("shop", PRODUCTION))
    with pytest.raises(ReleaseFailed, match="has no receipt, and nothing is launched here without one"):
        await roll_back(shop.revision(before).id)
    assert len(shop.ledger.rollouts.incomplete("shop", PRODUCTION)) == started
    await roll_back(shop.revision(released).id)


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(program, arguments)
    if result.exception:
        raise result.exception
    return result.stdout


async def test_receipts_are_shown_and_verified_offline(shop: Shop, released: ReleaseSession, tmp_path: Path) -> None:
    shop.ledger.releases.update(released.record.id, reason="")
    file, key = tmp_path / "receipt.json", tmp_path / "signing.pub.pem"
    file.write_text(invoke("receipt", "shop#1"))
    key.write_text((tmp_path / "home" / "keys" / "signing.pub.pem").read_text())
    checks = "  check       unit passed\n  check       lint cached\n"
    for what in ("shop#1", digest(1)):
        assert "shop#1: the receipt for production is valid" in invoke("verify", what)
        assert checks in invoke("verify", what, "--receipt", str(file), "--key", str(key))
    with pytest.raises(HeadwayError, match="its digest is sha256:"):
        invoke("verify", digest(2), "--receipt", str(file), "--key", str(key))
    with pytest.raises(HeadwayError, match="its release is shop#1, not shop#2"):
        invoke("verify", "shop#2", "--receipt", str(file), "--key", str(key))
    with pytest.raises(NotFound, match="there is no receipt of sha256:"):
        invoke("verify", digest(2))
    with pytest.raises(HeadwayError, match="is no public key"):
        invoke("verify", "shop#1", "--key", str(file))
    signatures.sign(b"", PAYLOAD_TYPE, tmp_path / "elsewhere")
    with pytest.raises(HeadwayError, match="the signature is not valid"):
        invoke("verify", "shop#1", "--key", str(tmp_path / "elsewhere" / "keys" / "signing.pub.pem"))


async def test_a_receipt_is_pushed_beside_its_image(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    async def load(_name: str | None, repository: str) -> Registry:
        return Registry(host=repository.partition("/")[0], plain_http=True)

    monkeypatch.setattr(loading, "load_registry", load)
    release = shop.release()
    with registries.serving(tmp_path / "registry") as host:
        pushed, _ = registries.image(host, "shop", b"its only layer")
        artifact = Artifact(kind="image", digest=pushed, location=f"{host}/shop@{pushed}", size=1)
        await sign_receipt(release, shop.spec(release, "staging").model_copy(update={"artifact": artifact}))
        registry = await load(None, f"{host}/shop")
        (referrer,) = registry.referrers(f"{host}/shop", pushed)
        assert referrer.artifact_type == "application/vnd.dsse.envelope.v1+json"
        envelope = json.loads(registry.attached(f"{host}/shop", referrer.digest))
    verify(envelope, signatures.trusted_keys(home), Expected(digest=pushed, environment="staging"))
