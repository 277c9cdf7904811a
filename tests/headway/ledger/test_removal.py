"""Removal of an app or an environment: nothing of it is left, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from headway.config.app_policy import AppPolicy
from headway.domain.errors import UsageError
from headway.domain.measurements import Measurements
from headway.domain.plan import OperatorCommand, Plan, Promote
from headway.domain.principal import Role
from headway.domain.revision import Artifact, LaunchSpec
from headway.ledger import Ledger
from headway.ledger.schema import metadata

ARTIFACT = Artifact(digest="sha256:" + "a" * 64, location="/", size=1)
NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def rows(ledger: Ledger) -> dict[str, int]:
    """Number of rows of every table but the locks, which stay."""
    with ledger._engine.connect() as db:
        tables = [table for table in metadata.sorted_tables if table.name != "locks"]
        return {table.name: db.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables}


def release(ledger: Ledger, app: str, environments: tuple[str, ...]) -> str:
    """A release with rows in every table that has some of a release; returns its id."""
    made = ledger.releases.start(app, f"/{app}", "main", flow_run_id=None, requested_by="ann")
    ledger.releases.update(made.id, sha="a" * 40)
    ledger.stages.start(made.id, "build")
    ledger.inputs.fix(made.id, "settings", {})
    for environment in environments:
        spec = LaunchSpec(environment=environment, target=f"process/{environment}", artifact=ARTIFACT)
        revision = spec.revision(app, "a" * 40)
        ledger.revisions.save(revision, spec)
        ledger.queue.enter(made.id, app, environment)
        ledger.approvals.request(
            made.id, environment, revision.id, evidence={}, expires_at=NOW + timedelta(days=1), by=[], not_author=False
        )
        lock = ledger.locks.acquire(app, environment, holder=made.name, revision=revision.id, lease=60)
        assert lock is not None
        plan = Plan(strategy="rolling", new=revision.id, old=None, steps=(Promote(revision=revision.id),))
        rollout = ledger.rollouts.start(made.id, app, environment, plan, kind="release", reason="", token=lock.token)
        ledger.rollouts.start_step(rollout, 0, plan.steps[0], lock.token)
        ledger.readings.add(rollout.id, 0, Measurements(at=NOW, counts={}))
        ledger.commands.give(app, environment, OperatorCommand(kind="skip", by="ann"), via="cli")
        ledger.rollouts.finish(rollout.id, "done")
        ledger.locks.release(lock)
    return made.id


def test_an_app_is_removed_with_all_its_rows(ledger: Ledger) -> None:
    ledger.releases.finish(release(ledger, "other", ("staging", "production")), "succeeded", "")
    others = rows(ledger)
    ledger.apps.register("shop", repo="/shop", host="generic", secret="shop-webhook", by="ann")
    ledger.grants.grant("ann", Role.APPROVER, "shop", by="root")
    ledger.policies.set("shop", AppPolicy(), by="root")
    ledger.releases.finish(release(ledger, "shop", ("staging", "production")), "succeeded", "")
    assert all(rows(ledger)[table] > others[table] for table in ("rollouts", "steps", "releases", "apps", "revisions"))

    ledger.removal.app("shop")

    left = rows(ledger)
    assert left.pop("audit_events") > others.pop("audit_events")  # it says that the app was deleted, and all before
    assert left == others
    assert ledger.releases.apps() == ["other"]


def test_an_environment_is_removed_and_the_others_stay(ledger: Ledger) -> None:
    ledger.releases.finish(release(ledger, "shop", ("staging", "production")), "succeeded", "")
    ledger.removal.environment("shop", "staging")
    assert ledger.rollouts.environments("shop") == ["production"]
    assert len(ledger.releases.recent("shop")) == 1


def test_an_app_with_a_release_in_progress_stays(ledger: Ledger) -> None:
    release(ledger, "shop", ("staging",))
    before = rows(ledger)
    with pytest.raises(UsageError, match="in progress"):
        ledger.removal.app("shop")
    assert rows(ledger) == before
