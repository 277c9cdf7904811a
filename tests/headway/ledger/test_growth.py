"""Queries of what runs all the time do not grow with history, and find their rows by an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from headway.cli.main import app
from headway.domain.plan import Plan
from headway.ledger import Ledger
from headway.ledger import schema as t
from tests.headway.ledger.test_ledger import SHA, SPEC

APPS, RELEASES, ENVIRONMENTS = 20, 100, ("staging", "production")
NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger with 2,000 releases, each of which was rolled out to two environments."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('large') / 'ledger.db'}") as ledger:
        rows = [row for app in range(APPS) for row in history(f"app-{app}", RELEASES)]
        with ledger._engine.begin() as db:
            for table in (t.releases, t.revisions, t.rollouts, t.locks):
                db.execute(table.insert(), [values for own, values in rows if own is table])
        yield ledger


def history(app: str, releases: int) -> Iterator[tuple[sa.Table, dict[str, Any]]]:
    for environment in ENVIRONMENTS:
        yield t.locks, {"app": app, "environment": environment, "token": releases}
    for number in range(1, releases + 1):
        release = f"{app}-{number}"
        ended = {"state": "succeeded", "reason": "", "started_at": NOW, "finished_at": NOW}
        asked = {"repo": "/repo", "ref": "main", "requested_by": "ann", "sha": SHA, "digest": digest(app, number)}
        yield t.releases, {"id": release, "app": app, "number": number, "flow_run_id": release} | asked | ended
        for environment in ENVIRONMENTS:
            artifact = SPEC.artifact.model_copy(update={"digest": digest(app, number)})
            spec = SPEC.model_copy(update={"artifact": artifact, "environment": environment})
            revision = spec.revision(app, SHA)
            body = {"revision": revision.model_dump(mode="json"), "spec": spec.model_dump(mode="json")}
            place = {"app": app, "environment": environment}
            yield t.revisions, place | body | {"id": revision.id, "sha": SHA, "saved_at": NOW}
            plan = Plan(strategy="rolling", new=revision.id, old=None, steps=()).model_dump(mode="json")
            rollout = {"id": f"{release}-{environment[0]}", "sequence": number, "release_id": release, "plan": plan}
            yield t.rollouts, place | rollout | ended | {"state": "done", "kind": "release", "token": number}


def digest(app: str, number: int) -> str:
    return "sha256:" + f"{app.removeprefix('app-')}{number:04}".rjust(64, "0")


@contextmanager
def statements(ledger: Ledger) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is executed, but for the begin of a transaction, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append((statement, parameters))

    sa.event.listen(ledger._engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(ledger._engine, "before_cursor_execute", note)


def test_digests_in_use_are_those_of_the_last_rollouts_of_every_environment(large: Ledger) -> None:
    last = {digest(f"app-{app}", RELEASES - back) for app in range(APPS) for back in range(10)}
    assert large.revisions.digests_in_use(10) == last


def test_every_live_revision_is_found(large: Ledger) -> None:
    live = [(app, environment, spec.artifact.digest) for app, environment, spec in large.revisions.live()]
    apps = sorted(f"app-{number}" for number in range(APPS))
    assert live == [(app, one, digest(app, RELEASES)) for app in apps for one in sorted(ENVIRONMENTS)]


ALL_THE_TIME: list[tuple[str, Callable[[Ledger], object], int]] = [
    ("digests in use", lambda ledger: ledger.revisions.digests_in_use(10), 3),
    ("live revisions", lambda ledger: ledger.revisions.live(), 1),
    ("unfinished releases", lambda ledger: ledger.releases.unfinished(), 1),
    ("unfinished rollouts", lambda ledger: ledger.rollouts.unfinished(), 1),
    ("last releases of an app", lambda ledger: ledger.releases.recent("app-1", 1), 1),
    ("live revision of an environment", lambda ledger: ledger.rollouts.live("app-1", "staging"), 1),
    ("environments of an app", lambda ledger: ledger.rollouts.environments("app-1"), 1),
    ("a release by its name", lambda ledger: ledger.releases.find("app-1#1"), 1),
    ("a revision", lambda ledger: ledger.revisions.find("app-1", SHA, environment="staging"), 1),
    ("due contract migrations", lambda ledger: ledger.schema_changes.due_contracts(NOW), 1),
    ("approvals that expire", lambda ledger: ledger.approvals.expire(NOW), 2),
    ("void approvals", lambda ledger: ledger.approvals.void_superseded(), 2),
    ("due deliveries", lambda ledger: ledger.deliveries.due(), 1),
]


@pytest.mark.parametrize(("ask", "most"), [pytest.param(ask, most, id=name) for name, ask, most in ALL_THE_TIME])
def test_what_runs_all_the_time_takes_few_queries_by_index(
    large: Ledger, ask: Callable[[Ledger], object], most: int
) -> None:
    with statements(large) as seen:
        ask(large)
    assert len(seen) <= most, "\n".join(statement for statement, _ in seen)
    with large._engine.connect() as db:
        for statement, parameters in seen:
            if statement.startswith("SELECT"):
                plan = db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                scanned = [step[-1] for step in plan if step[-1].startswith("SCAN ") and grows(step[-1])]
                assert not scanned, f"{scanned}\n{statement}"


def grows(step: str) -> bool:
    """Whether the step of a query plan reads a whole table that has a row for each release."""
    growing = (t.releases, t.revisions, t.rollouts, t.steps, t.approvals, t.schema_changes, t.inbox)
    return step.split()[1] in {table.name for table in growing}


def test_a_longer_history_takes_no_more_queries(tmp_path: Path) -> None:
    counts = []
    for releases in (1, 60):
        with Ledger.open(f"sqlite:///{tmp_path / f'{releases}.db'}") as ledger:
            with ledger._engine.begin() as db:
                for table, values in history("app-1", releases):
                    db.execute(table.insert().values(values))
            with statements(ledger) as seen:
                for _, ask, _ in ALL_THE_TIME:
                    ask(ledger)
            counts.append(len(seen))
    assert counts[0] == counts[1]


def test_status_of_an_app_takes_as_many_queries_after_a_long_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for releases in (1, 60):
        home = tmp_path / str(releases)
        home.mkdir()
        monkeypatch.setenv("HEADWAY_HOME", str(home))
        monkeypatch.delenv("HEADWAY_LEDGER_URL", raising=False)
        with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
            with ledger._engine.begin() as db:
                for table, values in history("app-1", releases):
                    db.execute(table.insert().values(values))
            with statements(ledger) as seen:
                monkeypatch.setattr("headway.cli.status.Ledger", Opened(ledger))
                result = CliRunner().invoke(app, ["status", "--json"])
            assert "app-1" in result.stdout
            counts.append(len(seen))
    assert counts[0] == counts[1]


class Opened:
    """Gives out a ledger that is open."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @contextmanager
    def open(self, _url: str) -> Iterator[Ledger]:
        yield self._ledger
