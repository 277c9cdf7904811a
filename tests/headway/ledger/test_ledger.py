"""The ledger: records are stored and read back, and only the lock holder writes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from headway.domain.errors import HeadwayError, LockLost, NotFound, ServiceUnavailable, UsageError
from headway.domain.measurements import Bucket, Measurements, RequestCounts
from headway.domain.plan import Launch, OperatorCommand, Plan, Promote
from headway.domain.revision import Artifact, LaunchSpec, SecretRef
from headway.domain.source import CheckReport, Coverage
from headway.ledger import Delivery, Ledger, ReleaseRecord, RolloutKind, UserRequests
from headway.ledger.database import MIGRATIONS
from headway.ledger.schema import REVISION, metadata
from headway.scm.webhooks import PushEvent
from tests.standins.people import decides

pytestmark = pytest.mark.slow


def test_sqlite_files_are_private(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'new' / 'ledger.db'}") as ledger:
        ledger.releases.start("shop", "/repo", "main", flow_run_id=None, requested_by="ann")
        files = [tmp_path / "new" / f"ledger.db{suffix}" for suffix in ("", "-wal", "-shm")]
        assert [file.stat().st_mode & 0o077 for file in files] == [0, 0, 0]


SHA = "3f2a9c1" + "0" * 33
ARTIFACT = Artifact(digest="sha256:" + "a" * 64, location="/bundle", size=1)
SPEC = LaunchSpec(
    environment="staging",
    target="process/staging",
    artifact=ARTIFACT,
    run="serve",
    env={"TOKEN": SecretRef(secret="a/b")},
)


def start(ledger: Ledger, app: str = "shop", run: str | None = None) -> ReleaseRecord:
    return ledger.releases.start(app, "/repo", "main", flow_run_id=run, requested_by="ann")


def plan(new: str, old: str | None = None) -> Plan:
    return Plan(strategy="rolling", new=new, old=old, steps=(Launch(revision=new, instances=1), Promote(revision=new)))


def rolled_out(
    ledger: Ledger,
    new: str,
    old: str | None = None,
    *,
    release: ReleaseRecord | None = None,
    kind: RolloutKind = "release",
) -> None:
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision=new, lease=30)
    assert lock is not None
    done = ledger.rollouts.start(
        release.id if release else None, "shop", "staging", plan(new, old), kind=kind, reason="", token=lock.token
    )
    ledger.rollouts.finish(done.id, "done")
    ledger.locks.release(lock)


def test_releases_are_numbered_by_app(ledger: Ledger) -> None:
    names = [start(ledger).name, start(ledger).name, start(ledger, "other").name]
    assert names == ["shop#1", "shop#2", "other#1"]
    assert ledger.releases.apps() == ["other", "shop"]
    assert [one.name for one in ledger.releases.recent("shop")] == ["shop#2", "shop#1"]


def test_resumed_run_gets_its_release(ledger: Ledger) -> None:
    assert start(ledger, run="run-1") == start(ledger, run="run-1")
    assert start(ledger, run="run-2").number == 2


def test_release_is_found_by_name_flow_run_and_prefix(ledger: Ledger) -> None:
    release = start(ledger, run="0f3c-1")
    for text in ("shop#1", release.id, release.id[:6], "0f3c-1", "0f3c"):
        assert ledger.releases.find(text) == release
    with pytest.raises(NotFound, match="no release shop#2"):
        ledger.releases.find("shop#2")
    start(ledger, run="0f3c-2")
    with pytest.raises(UsageError, match="2 releases"):
        ledger.releases.find("0f3c")


def test_the_first_ending_of_a_release_counts(ledger: Ledger) -> None:
    release = start(ledger)
    ledger.stages.start(release.id, "build")
    assert ledger.releases.finish(release.id, "failed", "no").finished_at is not None
    assert ledger.releases.finish(release.id, "succeeded", "").state == "failed"
    assert ledger.stages.by_release(release.id)[0].state == "failed"
    ledger.releases.set_waiting(release.id)
    assert ledger.releases.unfinished() == []


def test_stages_keep_their_start_order(ledger: Ledger) -> None:
    release = start(ledger)
    for name in ("lint", "unit", "build"):
        ledger.stages.start(release.id, name)
    ledger.stages.finish(release.id, "unit", "failed", "1 of 2 tests failed")
    ledger.stages.start(release.id, "lint")
    ledger.stages.finish(release.id, "lint", "passed", "")
    told = [(stage.name, stage.state) for stage in ledger.stages.by_release(release.id)]
    assert told == [("lint", "passed"), ("unit", "failed"), ("build", "running")]


def test_times_are_in_utc(ledger: Ledger) -> None:
    before = datetime.now(UTC)
    started = start(ledger).started_at
    assert started.utcoffset() == timedelta(0)
    assert before <= started <= datetime.now(UTC)


def test_revision_is_found_by_prefix_and_commit(ledger: Ledger) -> None:
    revision = SPEC.revision("shop", SHA)
    ledger.revisions.save(revision, SPEC)
    ledger.revisions.save(revision, SPEC.model_copy(update={"instances": 3}))
    for text in (revision.id, "3f2a9c1", SHA):
        found, spec = ledger.revisions.find("shop", text, environment="staging")
        assert found == revision
        assert spec.instances == 3
        assert spec.env == {"TOKEN": SecretRef(secret="a/b")}
    with pytest.raises(NotFound, match=r"no revision abc .*\n.*" + revision.id):
        ledger.revisions.find("shop", "abc", environment="staging")
    with pytest.raises(NotFound):
        ledger.revisions.find("shop", SHA, environment="production")


def test_live_and_previous_follow_the_rollouts(ledger: Ledger) -> None:
    assert ledger.rollouts.live("shop", "staging") is None
    for new, old in (("r1", None), ("r2", "r1"), ("r2", "r2")):
        rolled_out(ledger, new, old)
    assert (ledger.rollouts.live("shop", "staging"), ledger.rollouts.previous("shop", "staging")) == ("r2", "r1")
    rolled_out(ledger, "r1", "r2")
    assert (ledger.rollouts.live("shop", "staging"), ledger.rollouts.previous("shop", "staging")) == ("r1", "r2")
    rolled_out(ledger, "")
    assert ledger.rollouts.live("shop", "staging") is None
    assert ledger.rollouts.environments("shop") == ["staging"]


def test_second_rollback_goes_one_revision_further_back(ledger: Ledger) -> None:
    for new, old in (("r1", None), ("r2", "r1"), ("r3", "r2")):
        rolled_out(ledger, new, old)
    rolled_out(ledger, "r2", "r3", kind="rollback")
    assert ledger.rollouts.previous("shop", "staging") == "r1"
    rolled_out(ledger, "r1", "r2", kind="rollback")
    assert ledger.rollouts.previous("shop", "staging") is None
    rolled_out(ledger, "r4", "r1")
    assert ledger.rollouts.previous("shop", "staging") == "r1"
    rolled_out(ledger, "r9", "r4", kind="rollback")  # to one that is not on the way
    assert ledger.rollouts.previous("shop", "staging") == "r4"


def test_digests_in_use_are_those_of_the_last_rollouts_and_of_open_releases(ledger: Ledger) -> None:
    ended = ledger.releases.start("shop", "/repo", "main", flow_run_id="before", requested_by="ann")
    ledger.releases.finish(ended.id, "succeeded", "")
    revisions = []
    for number in range(3):
        artifact = SPEC.artifact.model_copy(update={"digest": "sha256:" + str(number) * 64})
        revisions.append(SPEC.model_copy(update={"artifact": artifact}).revision("shop", SHA))
    for revision in revisions:
        ledger.revisions.save(revision, SPEC)
        rolled_out(ledger, revision.id, None)
    assert ledger.revisions.digests_in_use(1) == {revisions[-1].digest}
    going = ledger.releases.start("shop", "/repo", "main", flow_run_id="run", requested_by="ann")
    ledger.releases.update(going.id, digest="sha256:" + "b" * 64)
    assert ledger.revisions.digests_in_use(0) == {"sha256:" + "b" * 64}
    assert ledger.revisions.digests_in_use(3) == {"sha256:" + "b" * 64} | {revision.digest for revision in revisions}


def test_only_the_lock_holder_writes_the_journal(ledger: Ledger) -> None:
    lock = ledger.locks.acquire("shop", "staging", holder="shop#1", revision="r1", lease=30)
    assert lock is not None
    rollout = ledger.rollouts.start(None, "shop", "staging", plan("r1"), kind="release", reason="", token=lock.token)
    step = rollout.plan.steps[0]
    ledger.rollouts.start_step(rollout, 0, step, lock.token)
    ledger.locks.revoke("shop#1")
    for act in (
        lambda: ledger.rollouts.start_step(rollout, 1, step, lock.token),
        lambda: ledger.rollouts.finish_step(rollout, 0, "done", "", None, lock.token),
        lambda: ledger.rollouts.start(None, "shop", "staging", plan("r1"), kind="release", reason="", token=lock.token),
        lambda: ledger.locks.renew(lock),
    ):
        with pytest.raises(LockLost):
            act()
    (known,) = ledger.rollouts.steps(rollout.id)
    assert (known.title, known.outcome) == ("launch 1 of r1", None)
    assert ledger.rollouts.unfinished("shop", "staging") == [rollout]


def test_measurements_are_kept_in_order(ledger: Ledger) -> None:
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision="r1", lease=30)
    assert lock is not None
    rollout = ledger.rollouts.start(None, "shop", "staging", plan("r1"), kind="release", reason="", token=lock.token)
    readings = [
        Measurements(at=datetime.now(UTC), counts={"r1": RequestCounts(requests=n, latency=(Bucket(0.2, 0.25, n),))})
        for n in range(3)
    ]
    for reading in readings:
        ledger.readings.add(rollout.id, 0, reading)
    assert ledger.readings.by_rollout(rollout.id) == [(0, reading) for reading in readings]
    assert ledger.readings.last(rollout.id) == readings[-1]
    assert ledger.readings.last("none") is None


def test_operator_command_is_for_the_current_rollout_and_delivered_once(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="shop staging: no rollout is under way"):
        ledger.commands.give("shop", "staging", OperatorCommand(kind="skip", by="ann"), via="cli")
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision="r1", lease=30)
    assert lock is not None
    rollout = ledger.rollouts.start(None, "shop", "staging", plan("r1"), kind="release", reason="", token=lock.token)
    assert ledger.commands.take(rollout.id) is None
    ledger.rollouts.start_step(rollout, 0, rollout.plan.steps[0], lock.token)
    orders = [
        OperatorCommand(kind="skip", by="ann", position=0),
        OperatorCommand(kind="abort", by="bob", reason="no", position=0),
    ]
    assert [ledger.commands.give("shop", "staging", order, via="cli").id for order in orders] == [rollout.id] * 2
    assert [ledger.commands.take(rollout.id) for _ in range(3)] == [*orders, None]
    back = ledger.rollouts.start(None, "shop", "staging", plan("r0"), kind="rollback", reason="", token=lock.token)
    ledger.rollouts.finish(rollout.id, "rolled_back")
    with pytest.raises(NotFound):  # a rollback accepts no commands
        ledger.commands.give("shop", "staging", orders[0], via="ui")
    assert ledger.commands.take(back.id) is None


def test_user_response_counts_add_up(ledger: Ledger) -> None:
    release = start(ledger)
    assert ledger.rollouts.user_requests(release.id) is None
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision="r1", lease=30)
    assert lock is not None
    steps = plan("r1").steps
    kinds: list[tuple[RolloutKind, int]] = [("release", 3), ("rollback", 1)]
    for kind, failed in kinds:
        rollout = ledger.rollouts.start(
            release.id,
            "shop",
            "staging",
            plan("r1"),
            kind=kind,
            reason="",
            token=lock.token,
        )
        seen = RequestCounts(requests=10, errors=failed, latency=(Bucket(0.1, 0.2, 9), Bucket(failed, failed + 1, 1)))
        for position, users in enumerate((None, seen)):
            ledger.rollouts.start_step(rollout, position, steps[position], lock.token)
            ledger.rollouts.finish_step(rollout, position, "done", "", users, lock.token)
    assert ledger.rollouts.user_requests(release.id) == UserRequests(requests=20, failed=4, worst=4.0)
    assert (
        str(ledger.rollouts.user_requests(release.id))
        == "20 requests of users meanwhile, 4 failed, the longest took 4000 ms"
    )


def test_waiting_stage_has_its_question(ledger: Ledger) -> None:
    release = start(ledger)
    ledger.stages.start(release.id, "production")
    ledger.stages.set_waiting(release.id, "production", "go on?")
    assert [(one.state, one.detail) for one in ledger.stages.by_release(release.id)] == [("waiting", "go on?")]
    ledger.stages.set_waiting(release.id, "production", "")
    assert [(one.state, one.detail) for one in ledger.stages.by_release(release.id)] == [("running", "")]
    ledger.stages.finish(release.id, "production", "passed", "r1")
    ledger.stages.set_waiting(release.id, "production", "too late")
    assert [(one.state, one.detail) for one in ledger.stages.by_release(release.id)] == [("passed", "r1")]


# --- locks ---------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_lock_has_one_holder_until_its_lease_expires(database: str) -> None:
    clock = Clock()
    with Ledger.open(database, clock) as ledger:
        first = ledger.locks.acquire("shop", "staging", holder="a", revision="r", lease=30)
        assert first is not None
        assert ledger.locks.acquire("shop", "staging", holder="b", revision="r", lease=30) is None
        assert ledger.locks.acquire("shop", "production", holder="b", revision="r", lease=30) is not None
        clock.now += timedelta(seconds=29)
        ledger.locks.renew(first)
        clock.now += timedelta(seconds=29)
        assert ledger.locks.acquire("shop", "staging", holder="b", revision="r", lease=30) is None
        clock.now += timedelta(seconds=2)
        second = ledger.locks.acquire("shop", "staging", holder="b", revision="r", lease=30)
        assert second is not None
        assert second.token > first.token
        with pytest.raises(LockLost, match="held by b"):
            ledger.locks.renew(first)
        ledger.locks.release(first)
        holder = ledger.locks.holder("shop", "staging")
        assert holder is not None
        assert holder.holder == "b"
        ledger.locks.release(second)
        assert ledger.locks.holder("shop", "staging") is None
        third = ledger.locks.acquire("shop", "staging", holder="c", revision="r", lease=30)
        assert third is not None
        assert third.token > second.token


def test_concurrent_threads_get_one_lock(ledger: Ledger) -> None:
    inside: list[int] = []
    tokens: list[int] = []
    faults: list[str] = []

    def work() -> None:
        for _ in range(10):
            lock = ledger.locks.acquire(
                "shop", "staging", holder=threading.current_thread().name, revision="r", lease=30
            )
            if lock is None:
                time.sleep(0.002)
                continue
            if inside:
                faults.append("two at once")
            inside.append(1)
            tokens.append(lock.token)
            inside.pop()
            ledger.locks.release(lock)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert tokens
    assert tokens == sorted(set(tokens))


def _acquire_once(url: str, start: float) -> int:
    time.sleep(max(0.0, start - time.time()))
    with Ledger.open(url) as ledger:
        lock = ledger.locks.acquire("shop", "staging", holder=str(os.getpid()), revision="r", lease=60)
        return lock.token if lock else 0


def _open_once(url: str, start: float) -> list[str]:
    while time.time() < start:
        pass
    with Ledger.open(url) as ledger:
        return ledger.releases.apps()


def test_concurrent_first_opens_create_one_ledger(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        pool.starmap(_open_once, [(f"sqlite:///{tmp_path}/imports", 0.0)] * 8)
        for number in range(10):
            asked = [(f"sqlite:///{tmp_path}/{number}", time.time() + 0.05)] * 8
            assert pool.starmap(_open_once, asked) == [[]] * 8


def test_migration_waits_for_a_writer(tmp_path: Path) -> None:
    """SQLite does not wait when a transaction that began to read wants to write."""
    file = tmp_path / "ledger.db"
    Ledger.open(f"sqlite:///{file}").close()
    with ThreadPoolExecutor() as pool, closing(sqlite3.connect(file, isolation_level=None)) as writer:
        for table in writer.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            writer.execute(f"DROP TABLE {table[0]}")
        writer.execute("BEGIN IMMEDIATE")
        opened = pool.submit(_open_once, f"sqlite:///{file}", 0.0)
        wait([opened], 2)
        writer.execute("COMMIT")
        assert opened.result(60) == []


def test_second_open_in_a_process_keeps_the_locks_of_the_first(tmp_path: Path) -> None:
    """Without them, a process that ends deletes the log that the others write to: what they write is lost."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with multiprocessing.get_context("spawn").Pool(1) as pool, Ledger.open(url) as first:
        first.releases.apps()
        with Ledger.open(url):
            assert pool.apply(_open_once, (url, 0.0)) == []
            start(first)
            assert pool.apply(_open_once, (url, 0.0)) == ["shop"]


def test_processes_opening_a_new_ledger_get_one_lock(database: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        tokens = pool.starmap(_acquire_once, [(database, time.time() + 3)] * 4)
    assert sorted(tokens) == [0, 0, 0, 1]


def test_newer_waiting_release_supersedes_an_older_one(ledger: Ledger) -> None:
    first, second, third = (start(ledger) for _ in range(3))
    for release in (first, second):
        ledger.queue.enter(release.id, "shop", "staging")
    assert ledger.queue.newer_release(second.id, "shop", "staging") is None
    newer = ledger.queue.newer_release(first.id, "shop", "staging")
    assert newer is not None
    assert newer.name == "shop#2"
    assert ledger.queue.newer_release(first.id, "shop", "production") is None
    ledger.queue.enter(third.id, "shop", "staging")
    ledger.queue.leave(third.id, "shop", "staging")
    assert ledger.queue.newer_release(second.id, "shop", "staging") is None
    ledger.releases.finish(second.id, "cancelled", "")
    assert ledger.queue.newer_release(first.id, "shop", "staging") is None


# --- approvals -----------------------------------------------------------------------------------------------------


def ask(ledger: Ledger, *, by: list[str] | None = None, not_author: bool = False, expires: float = 60) -> str:
    release = start(ledger)
    ledger.releases.update(release.id, author="Ann Developer <ann@example.com>")
    end = datetime.now(UTC) + timedelta(seconds=expires)
    asked = ledger.approvals.request(
        release.id, "production", "r1", evidence={"digest": "d"}, expires_at=end, by=by or [], not_author=not_author
    )
    again = ledger.approvals.request(
        release.id, "production", "r1", evidence={}, expires_at=end, by=[], not_author=False
    )
    assert again == asked
    assert ledger.approvals.waiting(release.id) == asked
    return asked.id


def test_first_decision_on_an_approval_is_final(ledger: Ledger) -> None:
    asked = ask(ledger)
    done = decides(ledger, asked, "rejected", "bob", "no")
    assert (done.state, done.decided_by, done.reason, done.via) == ("rejected", "bob", "no", "cli")
    with pytest.raises(HeadwayError, match="already decided: rejected by bob"):
        decides(ledger, asked, "approved", "eve")


def test_an_approval_expires_once(ledger: Ledger) -> None:
    asked = ask(ledger, expires=-1)
    with pytest.raises(HeadwayError, match="expired at"):
        decides(ledger, asked, "approved", "bob")
    assert [one.id for one in ledger.approvals.expire(datetime.now(UTC))] == [asked]
    assert ledger.approvals.expire(datetime.now(UTC)) == []


def freeze(ledger: Ledger, until: datetime) -> tuple[ReleaseRecord, str]:
    """A release that waits for the end of a freeze."""
    release = start(ledger)
    asked = ledger.approvals.request(
        release.id,
        "production",
        "r1",
        evidence={},
        expires_at=until,
        by=[],
        not_author=False,
        asks=f"freeze until {until:%F %R}",
    )
    ledger.releases.set_waiting(release.id)
    return release, asked.id


def test_freeze_override_and_approval_are_separate(ledger: Ledger) -> None:
    release, asked = freeze(ledger, datetime.now(UTC) + timedelta(days=2))
    approval = ledger.approvals.request(
        release.id,
        "production",
        "r1",
        evidence={},
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        by=[],
        not_author=False,
    )
    assert (approval.frozen, ledger.approvals.get(asked).frozen) == (False, True)
    assert approval.id != asked


def test_freeze_override_needs_a_reason(ledger: Ledger) -> None:
    _, asked = freeze(ledger, datetime.now(UTC) + timedelta(days=2))
    with pytest.raises(UsageError, match="production is frozen"):
        decides(ledger, asked, "approved", "bob", " ")
    done = decides(ledger, asked, "approved", "bob", "customers cannot pay")
    assert (done.state, done.decided_by, done.reason) == ("approved", "bob", "customers cannot pay")


def test_after_a_freeze_only_the_newest_release_continues(ledger: Ledger) -> None:
    until = datetime.now(UTC) - timedelta(seconds=1)
    (first, _), (second, _), (third, _) = (freeze(ledger, until) for _ in range(3))
    assert ledger.approvals.newer_release_at_freeze(first.id, "staging") is None
    assert ledger.approvals.newer_release_at_freeze(third.id, "production") is None
    assert getattr(ledger.approvals.newer_release_at_freeze(first.id, "production"), "name", None) == third.name
    ledger.releases.finish(third.id, "rejected", "")
    assert getattr(ledger.approvals.newer_release_at_freeze(first.id, "production"), "name", None) == second.name
    ledger.releases.finish(second.id, "succeeded", "")
    assert getattr(ledger.approvals.newer_release_at_freeze(first.id, "production"), "name", None) == second.name


def test_end_of_a_freeze_does_not_resume_a_release_waiting_for_approval(ledger: Ledger) -> None:
    release, _ = freeze(ledger, datetime.now(UTC) - timedelta(seconds=1))
    ledger.approvals.expire(datetime.now(UTC))
    assert [one.id for one in ledger.approvals.releases_to_resume()] == [release.id]
    later = datetime.now(UTC) + timedelta(hours=1)
    ledger.approvals.request(release.id, "production", "r2", evidence={}, expires_at=later, by=[], not_author=False)
    assert ledger.approvals.releases_to_resume() == []


# --- databases -----------------------------------------------------------------------------------------------------


def saved(ledger: Ledger, letter: str) -> str:
    """A revision that came to production."""
    revision = SPEC.revision("shop", letter * 40)
    ledger.revisions.save(revision, SPEC)
    return revision.id


def test_contract_migration_waits_for_its_rollout_and_its_due_time(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    release = start(ledger)
    change = ledger.schema_changes.plan(
        release.id, "shop", "staging", saved(ledger, "a"), kind="contract", files=["v/3.py"]
    )
    assert (change.state, change.files, change.due_at) == ("waiting", ("v/3.py",), None)
    assert ledger.schema_changes.due_contracts(now + timedelta(days=999)) == []
    assert ledger.schema_changes.scheduled_contracts("shop", "staging") == []
    ledger.schema_changes.schedule_contract(release.id, "staging", now + timedelta(hours=1))
    assert [one.id for one in ledger.schema_changes.scheduled_contracts("shop", "staging")] == [change.id]
    assert ledger.schema_changes.due_contracts(now) == []
    assert [one.id for one in ledger.schema_changes.due_contracts(now + timedelta(hours=1))] == [change.id]
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision="r", lease=30)
    assert lock is not None
    ledger.schema_changes.start(change, lock.token)
    assert [one.state for one in ledger.schema_changes.due_contracts(now + timedelta(hours=1))] == [
        "running"
    ]  # its run may die
    ledger.schema_changes.finish(change.id, "done", "", "x" * 100_000)
    done = ledger.schema_changes.get(change.id)
    assert (done.state, len(done.output), done.begun) == ("done", 65_536, True)
    assert ledger.schema_changes.due_contracts(now + timedelta(hours=1)) == []


def test_only_the_lock_holder_records_schema_changes(ledger: Ledger) -> None:
    change = ledger.schema_changes.plan(start(ledger).id, "shop", "staging", "r", kind="expand", files=[])
    with pytest.raises(LockLost):
        ledger.schema_changes.start(change, 1)
    assert ledger.schema_changes.get(change.id).state == "waiting"


def test_contract_migration_blocks_rollbacks_to_earlier_releases(ledger: Ledger) -> None:
    old, middle, new = (saved(ledger, letter) for letter in "abc")
    changes = [
        ledger.schema_changes.plan(start(ledger).id, "shop", "staging", revision, kind="contract", files=[])
        for revision in (middle, new)
    ]
    assert [one.id for one in ledger.schema_changes.contracts_after("shop", "staging", old)] == [
        changes[1].id,
        changes[0].id,
    ]
    assert [one.id for one in ledger.schema_changes.contracts_after("shop", "staging", middle)] == [changes[1].id]
    assert ledger.schema_changes.contracts_after("shop", "staging", new) == []
    assert len(ledger.schema_changes.contracts_after("shop", "staging", None)) == 2
    assert ledger.schema_changes.contracts_after("shop", "production", None) == []


def test_next_run_closes_records_of_dead_runs(ledger: Ledger) -> None:
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision="r", lease=30)
    assert lock is not None
    died = ledger.schema_changes.plan(start(ledger).id, "shop", "staging", "r", kind="expand", files=[])
    ledger.schema_changes.start(died, lock.token)
    never = ledger.schema_changes.plan(start(ledger).id, "shop", "staging", "r", kind="contract", files=[])
    ledger.schema_changes.plan(start(ledger).id, "shop", "staging", "r", kind="expand", files=[])
    assert (ledger.schema_changes.get(died.id).state, ledger.schema_changes.get(died.id).detail) == (
        "failed",
        "its run died",
    )
    assert ledger.schema_changes.get(never.id).state == "cancelled"


# --- what earlier releases know ------------------------------------------------------------------------------------


def test_passed_check_is_recorded_with_its_first_release(ledger: Ledger) -> None:
    report = CheckReport(name="unit", passed=True, seconds=1.5, tests=3)
    assert ledger.checks.passed("key") is None
    for _ in range(2):
        ledger.checks.save("key", start(ledger).id, report)
    known = ledger.checks.passed("key")
    assert known is not None
    assert (known.release, known.report) == ("shop#1", report)


def test_coverage_is_that_of_the_last_release_that_succeeded(ledger: Ledger) -> None:
    for covered, state in ((10, "succeeded"), (20, "succeeded"), (99, "failed")):
        release = start(ledger)
        ledger.checks.save_coverage(release.id, "unit", Coverage(covered=1, lines=100))
        ledger.checks.save_coverage(release.id, "unit", Coverage(covered=covered, lines=100))
        ledger.releases.finish(release.id, state, "")  # type: ignore[arg-type]
    assert ledger.checks.last_coverage("shop", "unit") == Coverage(covered=20, lines=100)
    assert ledger.checks.last_coverage("shop", "lint") is None


# --- the database --------------------------------------------------------------------------------------------------


def test_ledger_migrations_create_and_drop_the_tables(database: str) -> None:
    Ledger.open(database).close()
    engine = sa.create_engine(database)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == REVISION
        assert compare_metadata(context, metadata) == []
        connection.rollback()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()
    with Ledger.open(database) as ledger:
        assert ledger.releases.apps() == []


def test_decisions_of_the_version_before_stay(database: str) -> None:
    """By the name that it recorded: their rollouts may not have begun."""
    with Ledger.open(database) as ledger:
        asked = ask(ledger)
        decides(ledger, asked, "approved", "bob", "fine")
    engine = sa.create_engine(database)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0023")
        connection.execute(sa.text("UPDATE approvals SET decided_by = 'Bob: <bob@example.com>  '"))
        connection.commit()
    engine.dispose()
    with Ledger.open(database) as ledger:
        (kept,) = ledger.approvals.decisions(asked)
        assert (kept.principal.name, kept.decision, kept.reason) == ("Bob <bob@example.com>", "approved", "fine")
        again = ledger.approvals.get(asked)
        assert (again.state, again.count, again.round, again.form) == ("approved", 1, 0, 0)


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite:////proc/nowhere/ledger.db", "postgresql+psycopg://nobody@127.0.0.1:1/none"]
)
def test_ledger_that_cannot_be_opened_is_an_error(url: str) -> None:
    with pytest.raises(ServiceUnavailable, match="cannot be opened"):
        Ledger.open(url)


def test_full_disk_is_an_error_and_loses_no_records(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        kept = start(ledger)
        engine = ledger._engine

        @sa.event.listens_for(engine, "connect")
        def full(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA max_page_count = 1")

        engine.dispose()
        with pytest.raises(HeadwayError, match="cannot be written: database or disk is full"):
            _write_a_lot(ledger)
        assert ledger.releases.get(kept.id) == kept


def _write_a_lot(ledger: Ledger) -> None:
    for _ in range(1000):
        ledger.releases.start("shop", "/repo" * 1000, "main", flow_run_id=None, requested_by="ann")


def test_ledger_is_readable_after_a_writer_was_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.open(url).close()
    code = (
        "from headway.ledger import Ledger\n"
        f"ledger = Ledger.open({url!r})\n"
        "while True:\n"
        "    print(ledger.releases.start('shop', 'r', 'main', flow_run_id=None, requested_by='x').number, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    told += [int(line) for line in writer.stdout.read().splitlines()]
    writer.stdout.close()
    writer.wait(60)
    with Ledger.open(url) as ledger:
        numbers = sorted(one.number for one in ledger.releases.recent("shop", 10_000))
    assert numbers[: len(told)] == told
    assert len(numbers) - len(told) in (0, 1)


# --- the inbox -------------------------------------------------------------------------------------------------


def pushed(ledger: Ledger, number: int, run: str) -> str:
    """Record a processed push with a started run; return the run's id."""
    event = PushEvent(places=(), ref="refs/heads/main", before=None, after=f"{number:040x}", by="ann")
    ledger.deliveries.receive([Delivery(app="shop", delivery=f"guid-{number}", event=event)])
    (newest,) = ledger.deliveries.recent("shop", 1)
    assert ledger.deliveries.claim_start([newest.id], newest.id, "shop", "refs/heads/main", f"{number:040x}")
    ledger.deliveries.mark_started(newest.id, run)
    return run


def test_delivery_is_stored_once(ledger: Ledger) -> None:
    event = PushEvent(places=(), ref="refs/heads/main", before=None, after="1" * 40, by="ann")
    one = Delivery(app="shop", delivery="guid", event=event)
    ledger.deliveries.receive([one, one])
    ledger.deliveries.receive([one, one.model_copy(update={"position": 1}), one.model_copy(update={"app": "other"})])
    ledger.deliveries.receive([])
    assert len(ledger.deliveries.recent("shop")) == 2
    assert len(ledger.deliveries.recent("other")) == 1
    assert [each.event for each in ledger.deliveries.due()] == [event] * 3


def test_newer_commit_voids_approvals_of_an_older_one(ledger: Ledger) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    asked = []
    for run in ("run-1", None):
        release = start(ledger, run=pushed(ledger, 1, run) if run else None)
        ledger.releases.set_waiting(release.id)
        asked.append(
            ledger.approvals.request(
                release.id, "production", "r2", evidence={}, expires_at=later, by=[], not_author=False
            )
        )
    assert ledger.approvals.void_superseded() == []
    pushed(ledger, 2, "run-2")

    assert [one.id for one in ledger.approvals.void_superseded()] == [asked[0].id]

    assert ledger.approvals.void_superseded() == []
    assert [one.id for one in ledger.approvals.releases_to_resume()] == [asked[0].release_id]
    with pytest.raises(HeadwayError, match="void, a newer commit was pushed"):
        decides(ledger, asked[0].id, "approved", "bob")
    assert decides(ledger, asked[1].id, "approved", "bob").state == "approved"


def test_concurrent_dispatchers_start_a_commit_once(ledger: Ledger, database: str) -> None:
    events = [PushEvent(places=(), ref="refs/heads/main", before=None, after="1" * 40, by="ann") for _ in range(8)]
    ledger.deliveries.receive(
        [Delivery(app="shop", delivery=f"guid-{n}", event=event) for n, event in enumerate(events)]
    )
    ids = [one.id for one in ledger.deliveries.due()]
    won: list[bool] = []

    def settle(chosen: int) -> None:
        with Ledger.open(database) as mine:
            won.append(mine.deliveries.claim_start([chosen], chosen, "shop", "refs/heads/main", "1" * 40))

    threads = [threading.Thread(target=settle, args=(chosen,)) for chosen in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    assert len([one for one in ledger.deliveries.due() if one.state == "starting"]) == 1


def test_repository_belongs_to_one_app(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="there are: none"):
        ledger.apps.get("shop")
    ledger.apps.register("shop", repo="https://github.com/acme/shop", host="github", secret="s", by="ann")
    with pytest.raises(UsageError, match="is the repository of shop already"):
        ledger.apps.register("other", repo="git@github.com:acme/shop.git", host="github", secret="s", by="ann")
    moved = ledger.apps.register("shop", repo="https://gitlab.com/acme/shop", host="gitlab", secret="t", by="bob")
    assert (moved.host, moved.secret, moved.added_by) == ("gitlab", "t", "ann")
    assert ledger.apps.unregister("shop") == moved
    assert ledger.apps.all() == []
