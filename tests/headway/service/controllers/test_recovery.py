"""The recovery sweep with a real ledger. Only the Prefect API is a fake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Literal

import pytest

from headway.domain.errors import HeadwayError, LockLost, NotFound, ServiceUnavailable
from headway.domain.plan import Launch, Plan, Promote
from headway.domain.ports import Target
from headway.domain.refusal import Refusal
from headway.domain.revision import Artifact, LaunchSpec
from headway.ledger import (
    Ledger,
    ReleaseRecord,
    ReleaseState,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    SchemaChange,
)
from headway.ledger.records import APPROVAL, FORK
from headway.rollout.strategies import TEARDOWN
from headway.service.controllers import recovery, run_retries
from headway.service.controllers.recovery import sweep
from headway.service.controllers.reviver import Reviver
from headway.service.controllers.run_retries import MAX_ATTEMPTS
from headway.service.prefect.client import Control, FlowRun
from headway.testing import FakeTarget
from tests.standins.people import decides

LEASE = 30.0


class Clock:
    """The clock of ledger and sweep. It starts at a full minute and only advances when the test does it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def now(self, _zone: tzinfo) -> datetime:
        return self.time

    def passes(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Outside(Control):
    """A Prefect API in memory, as far as a sweep asks for it."""

    def __init__(self) -> None:
        self.runs: dict[str, FlowRun] = {}
        self.woken: list[str] = []
        self.started: dict[str, tuple[str, dict[str, Any]]] = {}  # the key -> what it started, once
        self.down = False

    def has(self, flow_run_id: str, type_: str, message: str = "", ended: datetime | None = None) -> None:
        self.runs[flow_run_id] = FlowRun(
            id=flow_run_id, name="fox", state=type_.capitalize(), type=type_, message=message, ended=ended
        )

    def fail(self, ended: datetime) -> None:
        """Let the newest rollback fail."""
        self.has(list(self.runs)[-1], "FAILED", ended=ended)

    def start(
        self,
        deployment: str,
        parameters: dict[str, Any],
        *,
        idempotency_key: str | None = None,
        creator: Mapping[str, str] | None = None,
    ) -> str:
        self._answers()
        assert idempotency_key is not None
        run = f"run of {idempotency_key}"
        if idempotency_key not in self.started:
            self.started[idempotency_key] = (deployment, parameters)
            self.has(run, "SCHEDULED")
        return run

    def flow_run(self, flow_run_id: str) -> FlowRun:
        self._answers()
        if flow_run_id not in self.runs:
            raise NotFound(f"no flow run {flow_run_id}")
        return self.runs[flow_run_id]

    def wake(self, flow_run_id: str) -> None:
        self._answers()
        if self.runs[flow_run_id].type == "PAUSED":
            self.has(flow_run_id, "SCHEDULED")
            self.woken.append(flow_run_id)

    def _answers(self) -> None:
        if self.down:
            raise ServiceUnavailable("the Prefect server does not answer")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (recovery, run_retries):
        monkeypatch.setattr(module, "datetime", clock)
    return clock


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock) as opened:
        yield opened


@pytest.fixture
def outside() -> Outside:
    return Outside()


def start(ledger: Ledger, run: str | None = None) -> ReleaseRecord:
    return ledger.releases.start("shop", "/repo", "main", flow_run_id=run, requested_by="ann")


def waiting(ledger: Ledger, clock: Clock, run: str | None, *, expires: float = -1) -> tuple[ReleaseRecord, str]:
    """A release that waits for a person, and the approval it waits for."""
    release = start(ledger, run)
    end = clock.time + timedelta(seconds=expires)
    asked = ledger.approvals.request(
        release.id, "production", "r2", evidence={}, expires_at=end, by=[], not_author=False
    )
    ledger.releases.set_waiting(release.id)
    return release, asked.id


def begin(
    ledger: Ledger,
    environment: str = "staging",
    *,
    kind: RolloutKind = "release",
    release: ReleaseRecord | None = None,
) -> RolloutRecord:
    """A rollout that has just begun, its environment locked."""
    holder = release.name if release else "rollback by headway"
    lock = ledger.locks.acquire("shop", environment, holder=holder, revision="r2", lease=LEASE)
    assert lock is not None
    plan = Plan(
        strategy="rolling", new="r2", old="r1", steps=(Launch(revision="r2", instances=1), Promote(revision="r2"))
    )
    release_id = release.id if release else None
    return ledger.rollouts.start(release_id, "shop", environment, plan, kind=kind, reason="", token=lock.token)


def die(ledger: Ledger, clock: Clock, environment: str = "staging", **more: Any) -> RolloutRecord:
    """A rollout whose process was killed, its lease run out."""
    rollout = begin(ledger, environment, **more)
    clock.passes(LEASE + 1)
    return rollout


def state(ledger: Ledger, release: ReleaseRecord) -> tuple[ReleaseState, str]:
    now = ledger.releases.get(release.id)
    return now.state, now.reason


def rollout_state(ledger: Ledger, rollout: RolloutRecord) -> RolloutState:
    assert rollout.release_id is not None
    return next(one.state for one in ledger.rollouts.by_release(rollout.release_id) if one.id == rollout.id)


def test_sweep_without_releases_does_nothing(ledger: Ledger, outside: Outside) -> None:
    assert sweep(ledger, outside) == []


# --- approvals -----------------------------------------------------------------------------------------------------


def test_expired_approval_resumes_its_run_once(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    release, asked = waiting(ledger, clock, "run-1")
    outside.has("run-1", "PAUSED")
    assert sweep(ledger, outside) == [f"{release.name}: approval for production expired"]
    assert ledger.approvals.get(asked).state == "expired"
    assert outside.woken == ["run-1"]
    # The run closes its release itself: it has only just been woken.
    assert ledger.releases.get(release.id).open
    assert sweep(ledger, outside) == []
    assert len(outside.woken) == 1


def test_unexpired_approval_is_not_changed(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    release, asked = waiting(ledger, clock, "run-1", expires=60)
    outside.has("run-1", "PAUSED")
    assert sweep(ledger, outside) == []
    assert (ledger.approvals.get(asked).state, ledger.releases.get(release.id).state) == ("waiting", "waiting")
    clock.passes(60)
    assert len(sweep(ledger, outside)) == 1
    assert len(outside.woken) == 1


def test_decided_approval_does_not_expire(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    _, asked = waiting(ledger, clock, "run-1", expires=60)
    outside.has("run-1", "RUNNING")
    decides(ledger, asked, "approved", "bob")
    clock.passes(61)
    assert sweep(ledger, outside) == []
    assert outside.woken == []


def test_end_of_a_freeze_resumes_the_waiting_run(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    release = start(ledger, "run-1")
    ledger.approvals.request(
        release.id,
        "production",
        "r2",
        evidence={},
        expires_at=clock.time + timedelta(seconds=60),
        by=[],
        not_author=False,
        asks="freeze until then",
    )
    ledger.releases.set_waiting(release.id)
    outside.has("run-1", "PAUSED")
    assert sweep(ledger, outside) == []
    clock.passes(60)
    assert sweep(ledger, outside) == [f"{release.name}: the freeze of production is over"]
    assert outside.woken == ["run-1"]


def test_an_approval_of_a_release_without_a_run_expires(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    _, asked = waiting(ledger, clock, None)
    assert sweep(ledger, outside) == ["shop#1: approval for production expired"]
    assert ledger.approvals.get(asked).state == "expired"


def test_run_that_is_not_paused_is_skipped_and_the_sweep_continues(
    ledger: Ledger, outside: Outside, clock: Clock
) -> None:
    cancelled, _ = waiting(ledger, clock, "run-1")
    outside.has("run-1", "CANCELLED", "by ann")
    waiting(ledger, clock, "run-2")
    outside.has("run-2", "PAUSED")
    died = die(ledger, clock)
    assert sorted(sweep(ledger, outside)) == [
        "shop staging: rolling back: the run of rollout " + died.id + " died",
        "shop#1: approval for production expired",
        "shop#1: cancelled: by ann",
        "shop#2: approval for production expired",
    ]
    assert outside.woken == ["run-2"]
    assert state(ledger, cancelled) == ("cancelled", "by ann")
    assert len(outside.started) == 1


@pytest.mark.parametrize("asks", [APPROVAL, "freeze until then", FORK])
@pytest.mark.parametrize("decision", ["approved", "rejected"])
def test_a_run_is_woken_until_it_goes_on_whoever_decided_what_while_the_server_was_away(
    ledger: Ledger, outside: Outside, clock: Clock, decision: Literal["approved", "rejected"], asks: str
) -> None:
    release = start(ledger, "run-1")
    asked = ledger.approvals.request(
        release.id,
        "production",
        "r2",
        evidence={},
        expires_at=clock.time + timedelta(hours=1),
        by=[],
        not_author=False,
        asks=asks,
    )
    ledger.releases.set_waiting(release.id)
    decides(ledger, asked.id, decision, "bob", "fine")
    for times in (1, 2):  # the first one is lost: the run is suspended again, as after a crash of its worker
        outside.has("run-1", "PAUSED")
        assert sweep(ledger, outside) == []
        assert outside.woken == ["run-1"] * times
    ledger.releases.set_waiting(release.id, waiting=False)  # by the run
    outside.has("run-1", "PAUSED")
    sweep(ledger, outside)
    assert len(outside.woken) == 2


def test_a_run_that_asks_the_next_question_is_not_woken(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    """Although its last question was answered; not even when it asks between two reads of a sweep."""
    release, asked = waiting(ledger, clock, "run-1", expires=60)
    decides(ledger, asked, "approved", "bob")

    later = clock.time + timedelta(hours=1)

    def ask(flow_run_id: str) -> FlowRun:
        assert flow_run_id == "run-1"
        ledger.approvals.request(release.id, "last", "r2", evidence={}, expires_at=later, by=[], not_author=False)
        return FlowRun(id="run-1", name="fox", state="Suspended", type="PAUSED", message="")

    outside.flow_run = ask  # type: ignore[method-assign]
    for _ in range(2):
        assert sweep(ledger, outside) == []
    assert outside.woken == []


def test_run_is_resumed_once_the_server_is_back(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    waiting(ledger, clock, "run-1")
    outside.has("run-1", "PAUSED")
    outside.down = True
    with suppress(HeadwayError):
        sweep(ledger, outside)
    outside.down = False
    sweep(ledger, outside)
    assert outside.woken == ["run-1"]


# --- releases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "message", "ending", "reason"),
    [
        ("FAILED", "it broke", "failed", "it broke"),
        (
            "FAILED",
            "Flow run encountered an exception: SettingsError: headway.yaml: app: missing\n  hint: name it",
            "failed",
            "headway.yaml: app: missing",
        ),
        ("FAILED", "", "failed", "its run ended as Failed"),
        ("CRASHED", "", "failed", "its run ended as Crashed"),
        ("CANCELLED", "by ann", "cancelled", "by ann"),
        ("COMPLETED", "", "failed", "its run ended as Completed"),
    ],
)
def test_release_of_a_finished_run_is_closed_and_its_locks_released(
    ledger: Ledger, outside: Outside, type_: str, message: str, ending: str, reason: str
) -> None:
    release = start(ledger, "run-1")
    ledger.stages.start(release.id, "build")
    lock = ledger.locks.acquire("shop", "staging", holder=release.name, revision="r2", lease=LEASE)
    assert lock is not None
    outside.has("run-1", type_, message)
    assert sweep(ledger, outside) == [f"{release.name}: {ending}: {reason}"]
    assert state(ledger, release) == (ending, reason)
    assert ledger.stages.by_release(release.id)[0].state == ending
    assert ledger.locks.holder("shop", "staging") is None
    with pytest.raises(LockLost):
        ledger.locks.renew(lock)
    assert sweep(ledger, outside) == []


def test_release_without_its_run_on_the_server_has_failed(ledger: Ledger, outside: Outside) -> None:
    release = start(ledger, "run-1")
    assert sweep(ledger, outside) == ["shop#1: failed: no flow run run-1"]
    assert state(ledger, release) == ("failed", "no flow run run-1")


def test_waiting_release_of_a_cancelled_run_is_closed(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    release, _ = waiting(ledger, clock, "run-1", expires=60)
    outside.has("run-1", "CANCELLED")
    sweep(ledger, outside)
    assert state(ledger, release) == ("cancelled", "its run ended as Cancelled")


@pytest.mark.parametrize("type_", ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"])
def test_release_with_a_live_run_is_not_changed(ledger: Ledger, outside: Outside, type_: str) -> None:
    release = start(ledger, "run-1")
    ledger.locks.acquire("shop", "staging", holder=release.name, revision="r2", lease=LEASE)
    outside.has("run-1", type_)
    assert sweep(ledger, outside) == []
    assert ledger.releases.get(release.id) == release
    assert ledger.locks.holder("shop", "staging") is not None


def test_release_without_a_run_is_not_changed(ledger: Ledger, outside: Outside) -> None:
    release = start(ledger)
    assert sweep(ledger, outside) == []
    assert ledger.releases.get(release.id).open


def test_only_locks_of_dead_runs_are_released(ledger: Ledger, outside: Outside) -> None:
    dead, alive = start(ledger, "run-1"), start(ledger, "run-2")
    ledger.locks.acquire("shop", "staging", holder=dead.name, revision="r2", lease=LEASE)
    ledger.locks.acquire("shop", "production", holder=alive.name, revision="r2", lease=LEASE)
    outside.has("run-1", "CRASHED")
    outside.has("run-2", "RUNNING")
    sweep(ledger, outside)
    assert ledger.locks.holder("shop", "staging") is None
    kept = ledger.locks.holder("shop", "production")
    assert kept is not None
    assert kept.holder == alive.name


def test_unreachable_server_closes_no_release(ledger: Ledger, outside: Outside) -> None:
    release = start(ledger, "run-1")
    outside.down = True
    with pytest.raises(ServiceUnavailable):
        sweep(ledger, outside)
    assert ledger.releases.get(release.id).open


# --- rollouts ------------------------------------------------------------------------------------------------------


def test_rollout_with_an_expired_lease_is_rolled_back(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    rollout = die(ledger, clock)
    reason = f"the run of rollout {rollout.id} died"
    assert sweep(ledger, outside) == [f"shop staging: rolling back: {reason}"]
    ((key, (deployment, parameters)),) = outside.started.items()
    assert deployment == "rollback/roll-back-environment"
    place = {"app": "shop", "environment": "staging"}
    assert parameters == place | {"by": "headway", "reason": reason, "only_unfinished": True}
    assert rollout.id in key


def test_one_sweep_closes_a_dead_release_and_starts_its_rollback(ledger: Ledger, outside: Outside) -> None:
    release = start(ledger, "run-1")
    rollout = begin(ledger, release=release)
    outside.has("run-1", "CRASHED")
    assert sweep(ledger, outside) == [
        "shop#1: failed: its run ended as Crashed",
        f"shop staging: rolling back: the run of rollout {rollout.id} died",
    ]
    assert len(outside.started) == 1


def test_only_one_rollback_runs_at_a_time(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    die(ledger, clock)
    for _ in range(5):
        assert "rolling back" in sweep(ledger, outside)[0]
        clock.passes(run_retries.RETRY_PAUSE)
    assert len(outside.started) == 1


def test_failed_rollback_is_retried_after_a_pause(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    die(ledger, clock)
    sweep(ledger, outside)
    outside.fail(clock.time)
    sweep(ledger, outside)
    assert len(outside.started) == 1
    clock.passes(run_retries.RETRY_PAUSE)
    sweep(ledger, outside)
    assert len(outside.started) == 2


def test_refused_rollback_does_not_delay_others(
    ledger: Ledger, outside: Outside, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(ledger, clock)
    die(ledger, clock, "production")

    def start(deployment: str, parameters: dict[str, Any], *, idempotency_key: str | None = None) -> str:
        if parameters["environment"] == "staging":
            raise HeadwayError("409: parameters refused")
        return Outside.start(outside, deployment, parameters, idempotency_key=idempotency_key)

    monkeypatch.setattr(outside, "start", start)
    said = sweep(ledger, outside)
    assert said[0] == "shop staging: 409: parameters refused"
    assert "shop production: rolling back" in said[1]


def test_rollout_with_a_live_holder_is_not_changed(ledger: Ledger, outside: Outside) -> None:
    begin(ledger)
    assert sweep(ledger, outside) == []
    assert outside.started == {}


def test_running_rollback_is_not_changed(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    die(ledger, clock)
    begin(ledger, kind="rollback")
    assert sweep(ledger, outside) == []


def test_finished_rollout_is_not_changed(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    ledger.rollouts.finish(die(ledger, clock).id, "done")
    assert sweep(ledger, outside) == []


def test_environment_being_torn_down_is_not_rolled_back(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    """The teardown itself is retried."""
    die(ledger, clock)
    lock = ledger.locks.acquire("shop", "staging", holder="teardown", revision="nothing", lease=LEASE)
    assert lock
    plan = Plan(strategy=TEARDOWN, new="", old="r2", steps=())
    ledger.rollouts.start(None, "shop", "staging", plan, kind="rollback", reason="", token=lock.token)
    clock.passes(LEASE + 1)
    assert sweep(ledger, outside) == []
    assert outside.started == {}


def test_every_environment_is_rolled_back_once(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    first = die(ledger, clock)
    die(ledger, clock, kind="rollback")
    other = die(ledger, clock, "production")
    begin(ledger, "preview")
    assert sweep(ledger, outside) == [
        f"shop staging: rolling back: the run of rollout {first.id} died",
        f"shop production: rolling back: the run of rollout {other.id} died",
    ]
    places = [parameters["environment"] for _, parameters in outside.started.values()]
    assert places == ["staging", "production"]


def test_rollback_attempts_have_a_limit_and_then_need_an_operator(
    ledger: Ledger, outside: Outside, clock: Clock
) -> None:
    release = start(ledger)
    rollouts = [die(ledger, clock, release=release)]
    for _ in range(MAX_ATTEMPTS):
        assert "rolling back" in sweep(ledger, outside)[0]
        rollouts.append(die(ledger, clock, kind="rollback", release=release))
        outside.fail(clock.time)
        clock.passes(run_retries.RETRY_PAUSE)
    (said,) = sweep(ledger, outside)
    assert said.startswith(f"shop staging: rollback failed {MAX_ATTEMPTS} times")
    assert said.endswith("run `headway rollback shop staging`")
    assert len(outside.started) == MAX_ATTEMPTS
    assert {rollout_state(ledger, one) for one in rollouts} == {"halted"}
    assert sweep(ledger, outside) == []
    # The person's rollback goes where the tries should have gone, and not one revision further.
    assert [one.id for one in ledger.rollouts.incomplete("shop", "staging")] == [one.id for one in rollouts]


def test_rollback_run_that_dies_early_counts_as_an_attempt(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    die(ledger, clock)
    for _ in range(MAX_ATTEMPTS):
        sweep(ledger, outside)
        outside.fail(clock.time)
        clock.passes(run_retries.RETRY_PAUSE)
    assert "rollback failed" in sweep(ledger, outside)[0]


# --- what should run -----------------------------------------------------------------------------------------------


class Lamed(FakeTarget):
    """Has not come back after its machine restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.revived: list[str] = []

    def revive(self, app: str) -> bool:
        self.revived.append(app)
        return len(self.revived) == 1


async def test_live_revision_is_restarted(ledger: Ledger) -> None:
    spec = LaunchSpec(
        environment="staging",
        target="fake/one",
        artifact=Artifact(digest="sha256:" + "a" * 64, location="/", size=1),
        run="true",
    )
    revision = spec.revision("shop", "1" * 40)
    ledger.revisions.save(revision, spec)
    start(ledger)
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision=revision.id, lease=LEASE)
    assert lock is not None
    plan = Plan(strategy="rolling", new=revision.id, old=None, steps=())
    done = ledger.rollouts.start(None, "shop", "staging", plan, kind="release", reason="", token=lock.token)
    target = Lamed()

    async def load(slug: str) -> Target:
        assert slug == "fake/one"
        return target

    reviver = Reviver(ledger, load)
    assert await reviver.reconcile() == []
    ledger.rollouts.finish(done.id, "done")
    assert await reviver.reconcile() == ["shop staging: was not running on fake/one: started again"]
    assert await reviver.reconcile() == []
    assert target.revived == ["shop", "shop"]


async def test_an_environment_that_a_release_changes_is_not_asked(ledger: Ledger, clock: Clock) -> None:
    """The request to its public address would be counted as one of a user, on the record of the release."""
    release = start(ledger)
    spec = LaunchSpec(
        environment="staging", target="fake/one", artifact=Artifact(digest="sha256:" + "a" * 64, location="/", size=1)
    )
    revision = spec.revision("shop", "a" * 40)
    ledger.revisions.save(revision, spec)
    lock = ledger.locks.acquire("shop", "staging", holder="shop#1", revision=revision.id, lease=LEASE)
    assert lock is not None
    plan = Plan(strategy="rolling", new=revision.id, old=None, steps=())
    done = ledger.rollouts.start(release.id, "shop", "staging", plan, kind="release", reason="", token=lock.token)
    ledger.rollouts.finish(done.id, "done")
    asked: list[str] = []

    class Watched(FakeTarget):
        def unreachable(self, app: str) -> Refusal | None:
            asked.append(app)
            return None

    async def load(_slug: str) -> Target:
        return Watched()

    reviver = Reviver(ledger, load)
    await reviver.reconcile()
    assert asked == []
    clock.passes(LEASE + 1)
    await reviver.reconcile()
    assert asked == ["shop"]


# --- contracts -----------------------------------------------------------------------------------------------------


def due(ledger: Ledger, clock: Clock) -> SchemaChange:
    """A contract migration that is due."""
    release = start(ledger)
    change = ledger.schema_changes.plan(release.id, "shop", "staging", "r2", kind="contract", files=[])
    ledger.schema_changes.schedule_contract(release.id, "staging", clock.time)
    return change


def test_due_contract_migration_is_started_once(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    due(ledger, clock)
    assert sweep(ledger, outside) == ["shop staging: running the contract migration of r2"]
    assert sweep(ledger, outside) == ["shop staging: running the contract migration of r2"]
    assert [deployment for deployment, _ in outside.started.values()] == ["contract/contract-schema"]


def test_contract_migration_waits_for_the_environment_lock(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    due(ledger, clock)
    begin(ledger)
    assert sweep(ledger, outside) == []
    assert outside.started == {}


def test_contract_migration_has_a_limit_of_attempts(ledger: Ledger, outside: Outside, clock: Clock) -> None:
    change = due(ledger, clock)
    for _ in range(MAX_ATTEMPTS):
        sweep(ledger, outside)
        outside.fail(ended=clock.time - timedelta(days=1))
    assert sweep(ledger, outside) == ["shop staging: the contract migration of r2 failed 3 times"]
    assert ledger.schema_changes.get(change.id).state == "failed"
    assert sweep(ledger, outside) == []
