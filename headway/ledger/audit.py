"""The audit trail: who did what, when. Each event contains the hash of the one before it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import Field

from headway.domain.base import Frozen
from headway.ledger import schema as t
from headway.ledger.base import Repository, first, record
from headway.ledger.database import serialize, writing

__all__ = ["FIRST", "HEADWAY", "Audit", "AuditEvent", "Entry", "Head", "append", "faults"]

FIRST = "0" * 64  # `previous` of the first event
HEADWAY = "headway"  # the principal of what Headway does by itself
PAGE = 1000  # events that are read at once


class Entry(NamedTuple):
    """What happened: `action` such as `release.requested`, to `subject` such as `shop#14`, by a principal."""

    action: str
    subject: str
    by: str = HEADWAY
    details: Mapping[str, Any] = {}


class Head(Frozen):
    """The newest event of the trail at some time. Kept elsewhere, it shows later that events were removed."""

    number: int
    hash: str
    at: datetime


class AuditEvent(Frozen):
    """An event of the trail, and the two hashes that chain it."""

    number: int = Field(description="from 1, without gaps")
    at: datetime
    principal: str = Field(description="who did it, and `headway` for what it does by itself")
    action: str
    subject: str
    details: dict[str, Any]
    previous: str = Field(description="hash of the event before; 64 zeros in the first one")
    hash: str = Field(description="SHA-256 of all other fields, see `computed_hash`")

    def as_head(self) -> Head:
        return Head(number=self.number, hash=self.hash, at=self.at)

    def computed_hash(self) -> str:
        """SHA-256 of the canonical form of the other fields.

        That is JSON without spaces, keys sorted, characters beyond ASCII escaped; the time in UTC with microseconds.
        """
        fields = self.model_dump(mode="python", exclude={"hash"})
        fields["at"] = self.at.astimezone(UTC).isoformat(timespec="microseconds")
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def append(db: sa.Connection, at: datetime, entry: Entry) -> None:
    """Add an event to the trail, in the transaction that does what it records.

    Call it last: until the transaction ends, other writers of the trail wait. `details` must be plain JSON.
    """
    serialize(db, "audit")
    last = first(db, sa.select(t.audit_events).order_by(t.audit_events.c.number.desc()).limit(1))
    event = AuditEvent(
        number=last["number"] + 1 if last else 1,
        at=at,
        principal=entry.by,
        action=entry.action,
        subject=entry.subject,
        details=json.loads(json.dumps(dict(entry.details), default=str)),
        previous=last["hash"] if last else FIRST,
        hash="",
    )
    values = event.model_dump() | {"hash": event.computed_hash()}
    db.execute(t.audit_events.insert().values(values))


class Audit(Repository):
    """The events, oldest first. They are added with `append`; nothing changes or removes them."""

    def add(self, entry: Entry) -> None:
        """Add an event in a transaction of its own, for what the ledger does not record otherwise."""
        with writing(self._engine) as db:
            append(db, self._now(), entry)

    def events(self, *, after: int = 0) -> Iterator[AuditEvent]:
        """All events with a higher number than `after`."""
        column = t.audit_events.c.number
        while True:
            query = sa.select(t.audit_events).where(column > after).order_by(column).limit(PAGE)
            page = [record(AuditEvent, row) for row in self._read(query)]
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].number

    def last(self, count: int, *, subject: str | None = None, action: str | None = None) -> list[AuditEvent]:
        """The newest `count` events, oldest of them first; of subjects and actions that begin with these."""
        column = t.audit_events.c
        wanted = [
            each.startswith(text, autoescape=True)
            for each, text in ((column.subject, subject), (column.action, action))
            if text
        ]
        query = sa.select(t.audit_events).where(*wanted).order_by(column.number.desc()).limit(count)
        return [record(AuditEvent, row) for row in reversed(self._read(query))]

    def head(self) -> Head | None:
        """The newest event; None when there is none."""
        newest = self.last(1)
        return newest[0].as_head() if newest else None


def faults(events: Iterable[AuditEvent], known: Iterable[Head] = (), *, since: Head | None = None) -> Iterator[str]:
    """What was changed, removed, added or reordered in a trail; nothing for one that is whole.

    `known` are heads that it had before. Without one, events missing at the end are not noticed, and neither is a trail
    that was written anew from some event on. `events` begin with the first one, or after `since`.
    """
    signed = defaultdict[int, set[str]](set)
    for head in known:
        signed[head.number].add(head.hash)
    number, previous = (since.number, since.hash) if since else (0, FIRST)
    for event in events:
        if event.number != number + 1:
            yield f"event {number + 1} is missing" if event.number > number else f"event {event.number} is out of order"
        elif event.previous != previous:
            yield f"event {event.number} does not follow event {number}: one of them was replaced"
        if event.hash != event.computed_hash():
            yield f"event {event.number} was changed after it was written"
        if signed.pop(event.number, {event.hash}) != {event.hash}:
            yield f"event {event.number} is not the one that was signed or exported: the trail was written anew"
        number, previous = event.number, event.hash
    if signed:
        yield f"the trail ends with event {number}, and there was an event {max(signed)}: events were removed"
