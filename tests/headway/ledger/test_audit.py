"""The audit trail: one chain, whoever writes, and no change of it goes unnoticed."""

from __future__ import annotations

import copy
import hashlib
import json
import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.domain.access import Action, Scope
from headway.domain.errors import HeadwayError
from headway.domain.plan import Launch, OperatorCommand, Plan, Promote
from headway.domain.principal import Principal, Role
from headway.ledger import Ledger, audit
from headway.ledger.audit import AuditEvent, Entry, faults
from headway.ledger.audit_head import HEAD_FILE, read_head, sign_head

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def chain(details: list[dict[str, Any]]) -> list[AuditEvent]:
    """A trail of events with these details."""
    events: list[AuditEvent] = []
    for number, each in enumerate(details, 1):
        event = AuditEvent(
            number=number,
            at=START + timedelta(seconds=number),
            principal="ann",
            action="app.added",
            subject=f"shop{number}",
            details=each,
            previous=events[-1].hash if events else audit.FIRST,
            hash="",
        )
        events.append(event.model_copy(update={"hash": event.computed_hash()}))
    return events


def test_the_canonical_form_of_an_event_stays() -> None:
    """Trails that exist are verified with it."""
    (event,) = chain([{"b": "é\n", "a": [1, None, 1.5, True]}])
    canonical = (
        '{"action":"app.added","at":"2026-01-02T03:04:06.000678+00:00","details":{"a":[1,null,1.5,true],"b":"\\u00e9\\n"},'
        f'"number":1,"previous":"{"0" * 64}","principal":"ann","subject":"shop1"}}'
    )
    assert event.computed_hash() == hashlib.sha256(canonical.encode()).hexdigest()


def test_every_recorded_act_is_one_event(ledger: Ledger) -> None:
    release = ledger.releases.start("shop", "/repo", "main", flow_run_id=None, requested_by="ann")
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision="r1", lease=30)
    assert lock is not None
    steps = (Launch(revision="r1", instances=1), Promote(revision="r1"))
    rollout = ledger.rollouts.start(
        *(release.id, "shop", "staging", Plan(strategy="rolling", new="r1", old=None, steps=steps)),
        kind="release",
        reason="",
        token=lock.token,
        by="ann",
    )
    ledger.commands.give("shop", "staging", OperatorCommand(kind="abort", by="bob", reason="slow"), via="cli")
    for _ in range(2):
        ledger.rollouts.finish(rollout.id, "rolled_back")
        ledger.releases.finish(release.id, "rolled_back", "aborted")
    ledger.apps.register("shop", repo="/repo", host="generic", secret="s", by="ann")
    ledger.apps.register("shop", repo="/repo2", host="generic", secret="s", by="bob")
    ledger.grants.grant("ann", Role.ADMIN, None, by="root")
    ledger.grants.grant("bob", Role.ADMIN, None, by="root")
    ledger.grants.add_member("owners", "bob", by="ann")
    ledger.grants.remove_member("owners", "bob", by="ann")
    ledger.grants.revoke("bob", None, by="ann")
    expires = START + timedelta(days=9999)
    ledger.tokens.create(
        "ci", owner=Principal(kind="user", name="bob"), scope=Scope(actions=(Action.READ,)), expires_at=expires
    )
    for _ in range(2):
        ledger.tokens.revoke("ci", by="ann")
    ledger.grants.grant("carl", Role.VIEWER, None, by="ann")
    ledger.grants.remove_user("carl", by="ann")
    ledger.grants.record_claims("dora", ["staff", "owners"])
    ledger.removal.environment("shop", "staging", by="ann")
    ledger.removal.app("shop", by="ann")

    events = list(ledger.audit.events())
    assert [(one.principal, one.action, one.subject) for one in events] == [
        ("ann", "release.requested", "shop#1"),
        ("ann", "rollout.started", "shop staging"),
        ("bob", "rollout.abort", "shop staging"),
        ("headway", "rollout.ended", "shop staging"),
        ("headway", "release.ended", "shop#1"),
        ("ann", "app.added", "shop"),
        ("bob", "app.changed", "shop"),
        ("root", "role.granted", "ann"),
        ("root", "role.granted", "bob"),
        ("ann", "group.joined", "owners"),
        ("ann", "group.left", "owners"),
        ("ann", "role.revoked", "bob"),
        ("bob", "token.created", "ci"),
        ("ann", "token.revoked", "ci"),
        ("ann", "role.granted", "carl"),
        ("ann", "user.removed", "carl"),
        ("dora", "user.signed_in", "dora"),
        ("ann", "environment.deleted", "shop staging"),
        ("ann", "app.deleted", "shop"),
    ]
    assert list(faults(events)) == []
    assert [one.number for one in ledger.audit.last(9, subject="shop", action="app")] == [6, 7, 19]
    assert events[2].details == {"revision": "r1", "reason": "slow", "via": "cli"}


def test_a_write_that_fails_leaves_no_event(ledger: Ledger) -> None:
    with pytest.raises(HeadwayError):
        ledger.grants.revoke("nobody", None, by="ann")
    assert list(ledger.audit.events()) == []


def write(url: str, name: str, count: int, started: Any) -> None:
    with Ledger.open(url) as ledger:
        started.wait(30)
        for number in range(count):
            if number % 2:
                ledger.audit.add(Entry("app.added", f"{name}{number}", name))
            else:
                ledger.releases.start(name, "/repo", "main", flow_run_id=None, requested_by=name)


def test_several_writers_at_once_keep_one_chain(database: str, ledger: Ledger) -> None:
    context = multiprocessing.get_context("spawn")
    writers, each = 4, 20
    started = context.Barrier(writers)
    running = [context.Process(target=write, args=(database, f"app{one}", each, started)) for one in range(writers)]
    for one in running:
        one.start()
    for one in running:
        one.join(60)
    assert [one.exitcode for one in running] == [0] * writers
    events = list(ledger.audit.events())
    assert len(events) == writers * each
    assert list(faults(events)) == []


def changed(events: list[AuditEvent], draw: Callable[..., Any]) -> list[AuditEvent]:
    """The trail after one change that leaves the hashes of all other events as they are."""
    events = copy.copy(events)
    at = draw(st.integers(0, len(events) - 1))
    kind = draw(st.sampled_from(["field", "remove", "swap", "repeat", "insert"]))
    if kind == "remove":
        del events[at]
    elif kind == "repeat":
        events.insert(at, events[at])
    elif kind == "insert":
        fake = events[at].model_copy(update={"principal": "eve"})
        events.insert(at, fake.model_copy(update={"hash": fake.computed_hash()}))
    elif kind == "swap":
        other = draw(st.integers(0, len(events) - 1).filter(lambda one: one != at))
        events[at], events[other] = events[other], events[at]
    else:
        name = draw(st.sampled_from(sorted(AuditEvent.model_fields)))
        old = events[at]
        value = {
            "number": st.integers(),
            "at": st.datetimes(timezones=st.just(UTC)),
            "details": st.dictionaries(st.text(), JSON, max_size=3),
        }.get(name, st.text())
        fresh = value.filter(lambda one: one != getattr(old, name))
        update = {name: draw(fresh)}
        events[at] = old.model_copy(update=update)
        if name != "hash" and draw(st.booleans()):  # with a hash that fits
            events[at] = events[at].model_copy(update={"hash": events[at].computed_hash()})
    return events


@settings(max_examples=300, deadline=None)
@given(data=st.data(), details=st.lists(st.dictionaries(st.text(), JSON, max_size=2), min_size=2, max_size=6))
def test_any_single_change_is_found(data: st.DataObject, details: list[dict[str, Any]]) -> None:
    events = chain(details)
    head = events[-1].as_head()
    assert list(faults(events, [head])) == []
    assert list(faults(changed(events, data.draw), [head])) != []


@settings(max_examples=50, deadline=None)
@given(details=st.lists(st.dictionaries(st.text(), JSON, max_size=2), min_size=1, max_size=6), data=st.data())
def test_a_trail_that_was_written_anew_does_not_fit_its_signed_head(
    data: st.DataObject, details: list[dict[str, Any]]
) -> None:
    events = chain(details)
    head = events[-1].as_head()
    at = data.draw(st.integers(0, len(details) - 1))
    rewritten = chain([*details[:at], {"eve": 1, **details[at]}, *details[at + 1 :]])
    if rewritten == events:
        return
    assert list(faults(rewritten)) == []
    assert [one for one in faults(rewritten, [head]) if "written anew" in one]
    assert [one for one in faults(events[:at], [head]) if "were removed" in one]


def test_tampering_with_the_table_is_found(database: str, ledger: Ledger, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        ledger.audit.add(Entry("app.added", name, "ann", {"host": "generic"}))
    signed = sign_head(ledger.audit, tmp_path)
    assert signed == read_head(tmp_path) == ledger.audit.head()
    assert sign_head(ledger.audit, tmp_path) is None
    engine = sa.create_engine(database)

    def found_after(statement: str) -> list[str]:
        with engine.connect() as db, db.begin():
            db.execute(sa.text(statement))
        return list(faults(ledger.audit.events(), [signed] if signed else []))

    assert found_after("UPDATE audit_events SET principal = 'eve' WHERE number = 2") == [
        "event 2 was changed after it was written"
    ]
    assert found_after("DELETE FROM audit_events WHERE number = 2") == ["event 2 is missing"]
    assert found_after("DELETE FROM audit_events WHERE number = 3") == [
        "the trail ends with event 1, and there was an event 3: events were removed"
    ]
    engine.dispose()
    # The service does not sign what does not continue from what it has signed.
    for name in ("four", "five", "six"):
        with pytest.raises(HeadwayError, match="the audit trail was changed: "):
            sign_head(ledger.audit, tmp_path)
        ledger.audit.add(Entry("app.added", name, "eve"))
    assert read_head(tmp_path) == signed


def test_the_head_follows_the_trail(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(1, 4):
        ledger.audit.add(Entry("app.added", f"shop{number}", "ann"))
        sign_head(ledger.audit, tmp_path)
        head = read_head(tmp_path)
        assert head
        assert (head, head.number) == (ledger.audit.head(), number)


def test_a_head_that_was_changed_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    assert sign_head(ledger.audit, tmp_path) is None
    assert read_head(tmp_path) is None
    ledger.audit.add(Entry("app.added", "shop", "ann"))
    sign_head(ledger.audit, tmp_path)
    assert (tmp_path / "keys" / "signing.pem").stat().st_mode & 0o777 == 0o600
    envelope = json.loads((tmp_path / HEAD_FILE).read_text())
    (tmp_path / HEAD_FILE).write_text(json.dumps(envelope | {"payload": "eyJudW1iZXIiOjB9"}))
    with pytest.raises(HeadwayError, match="the signature is not valid"):
        read_head(tmp_path)
    (tmp_path / HEAD_FILE).write_text("{")
    with pytest.raises(HeadwayError, match="is damaged"):
        read_head(tmp_path)
