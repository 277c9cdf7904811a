"""Inbox of verified webhook deliveries. Each is kept, and starts at most one run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from headway.domain.events import PushEvent, TriggerEvent
from headway.ledger import schema as t
from headway.ledger.base import Repository, record
from headway.ledger.database import serialize, writing
from headway.ledger.records import AppRecord, Delivery, DeliveryRecord, DeliveryState

__all__ = ["Deliveries"]

STARTS = ("starting", "started")
BATCH = 1000  # deliveries that are returned at most at once


class Deliveries(Repository):
    """Deliveries. Each is `waiting` until the dispatcher has settled it."""

    def receive(self, deliveries: Sequence[Delivery]) -> None:
        """Save deliveries. One whose delivery id is known already is ignored."""
        self._insert(deliveries, "waiting", "")

    def _insert(self, deliveries: Sequence[Delivery], state: DeliveryState, detail: str) -> None:
        now = self._now()
        rows = [
            {
                **delivery.model_dump(mode="json"),
                "ref": delivery.event.subject,
                "received_at": now,
                "state": state,
                "detail": detail,
                "tries": 0,
                "due_at": now,
            }
            for delivery in deliveries
        ]
        if not rows:
            return
        with writing(self._engine) as db:
            insert = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
            db.execute(insert(t.inbox).on_conflict_do_nothing(), rows)

    def due(self, excluding: Collection[tuple[str, str]] = ()) -> list[DeliveryRecord]:
        """Deliveries that are due, and those whose start was interrupted. The oldest first.

        Leaves out those of the pairs of app and kind of event in `excluding`.
        """
        due = sa.or_(
            t.inbox.c.state == "starting",
            sa.and_(t.inbox.c.state == "waiting", t.inbox.c.due_at <= self._now()),
        )
        kind = t.inbox.c.event["kind"].as_string()
        others = [sa.or_(t.inbox.c.app != app, kind != known) for app, known in excluding]
        query = sa.select(t.inbox).where(due, *others).order_by(t.inbox.c.id).limit(BATCH)
        return [record(DeliveryRecord, row) for row in self._read(query)]

    def recent(self, app: str, limit: int = 20) -> list[DeliveryRecord]:
        """The newest first."""
        query = sa.select(t.inbox).where(t.inbox.c.app == app).order_by(t.inbox.c.id.desc()).limit(limit)
        return [record(DeliveryRecord, row) for row in self._read(query)]

    def mentions(self, app: str, ref: str, sha: str, after: int = 0) -> bool:
        """Whether a delivery named this commit as the head of the ref or open pull request, or started it.

        `sha` may be a prefix of the commit that was started. Only deliveries with an id above `after` count.
        """
        named = sa.or_(
            t.inbox.c.sha.startswith(sha, autoescape=True),
            t.inbox.c.event["after"].as_string() == sha,
            sa.and_(t.inbox.c.event["head"].as_string() == sha, t.inbox.c.event["open"].as_boolean()),
        )
        own = (t.inbox.c.app == app, t.inbox.c.ref == ref, t.inbox.c.id > after)
        query = sa.select(t.inbox.c.id).where(*own, named).limit(1)
        return self._read_one(query) is not None

    def pushers(self, app: str, sha: str) -> list[str]:
        """Users of the git host who pushed this commit, as far as its events name them."""
        event = t.inbox.c.event
        named = sa.or_(t.inbox.c.sha == sha, event["after"].as_string() == sha, event["head"].as_string() == sha)
        query = sa.select(event["by"].as_string().label("by")).where(t.inbox.c.app == app, named).distinct()
        return sorted({row["by"] for row in self._read(query)} - {"", None})

    def knows(self, app: str, ref: str) -> bool:
        """Whether any delivery was about this ref or pull request."""
        own = (t.inbox.c.app == app, t.inbox.c.ref == ref)
        return self._read_one(sa.select(t.inbox.c.id).where(*own).limit(1)) is not None

    def record_baseline(self, app: AppRecord, ref: str, sha: str) -> None:
        """Record a commit as one that starts nothing, because it was there before Headway looked."""
        event = PushEvent(places=(app.place,), ref=ref, before=None, after=sha, by="")
        delivery = Delivery(app=app.name, delivery=f"baseline-{sha}", event=event)
        self._insert([delivery], "ignored", "it was there before Headway looked at the branch")

    def latest_start(self, app: str, ref: str) -> DeliveryRecord | None:
        """The delivery that started the newest commit of this ref, or None."""
        row = self._read_one(sa.select(t.inbox).where(*_latest(app, ref)))
        return record(DeliveryRecord, row) if row else None

    def settle(self, ids: Sequence[int], state: DeliveryState, detail: str, *, followed_by: int | None = None) -> None:
        """Settle those of these deliveries that are still waiting."""
        with writing(self._engine) as db:
            self._settle(db, ids, state, detail, followed_by)

    def claim_start(
        self,
        ids: Sequence[int],
        chosen: int,
        app: str,
        ref: str,
        sha: str,
        *,
        again: bool = False,
        event: TriggerEvent | None = None,
    ) -> bool:
        """Choose one delivery to start a commit; the others, and the start before it, are superseded by it.

        `event` replaces the event that was received, when only a part of that is trusted. Returns False and changes
        nothing when that commit is the newest start of the ref and not wanted `again`, or when the delivery is
        settled already.
        """
        with writing(self._engine) as db:
            serialize(db, f"inbox {app}")
            before = db.execute(sa.select(t.inbox.c.id, t.inbox.c.sha).where(*_latest(app, ref))).first()
            if before and before.sha == sha and not again:
                return False
            starts = {"state": "starting", "sha": sha, "due_at": self._now()}
            starts |= {"event": event.model_dump(mode="json")} if event else {}
            mine = (t.inbox.c.id == chosen, t.inbox.c.state == "waiting")
            if not db.execute(t.inbox.update().where(*mine).values(starts)).rowcount:
                return False
            if before:
                db.execute(t.inbox.update().where(t.inbox.c.id == before.id).values(followed_by=chosen))
            self._settle(db, ids, "superseded", f"{sha[:7]} came with it or after it", chosen)
        return True

    def mark_started(self, delivery_id: int, flow_run_id: str) -> None:
        """Record the flow run that a delivery has started."""
        with writing(self._engine) as db:
            own = (t.inbox.c.id == delivery_id, t.inbox.c.state == "starting")
            db.execute(t.inbox.update().where(*own).values(state="started", flow_run_id=flow_run_id))

    def retry_later(self, ids: Sequence[int], detail: str, pause: float) -> None:
        """Count a failed attempt, and make the deliveries due again after `pause` seconds."""
        with writing(self._engine) as db:
            waiting = (t.inbox.c.id.in_(ids), t.inbox.c.state == "waiting")
            later = {"detail": detail, "tries": t.inbox.c.tries + 1, "due_at": self._now() + timedelta(seconds=pause)}
            db.execute(t.inbox.update().where(*waiting).values(later))

    def postpone(self, ids: Sequence[int], until: datetime) -> None:
        """Make the deliveries due at this time."""
        with writing(self._engine) as db:
            waiting = (t.inbox.c.id.in_(ids), t.inbox.c.state == "waiting")
            db.execute(t.inbox.update().where(*waiting).values(due_at=until))

    def successor(self, flow_run_id: str) -> DeliveryRecord | None:
        """The delivery that superseded the one that started this run.

        None while the run's commit is the newest of its ref, or when no delivery started the run.
        """
        newer = t.inbox.alias()
        query = (
            sa.select(newer)
            .join(t.inbox, t.inbox.c.followed_by == newer.c.id)
            .where(t.inbox.c.flow_run_id == flow_run_id)
        )
        row = self._read_one(query)
        return record(DeliveryRecord, row) if row else None

    def _settle(
        self, db: sa.Connection, ids: Sequence[int], state: DeliveryState, detail: str, followed_by: int | None
    ) -> None:
        waiting = (t.inbox.c.id.in_(ids), t.inbox.c.state == "waiting")
        settled = {"state": state, "detail": detail, "followed_by": followed_by}
        db.execute(t.inbox.update().where(*waiting).values(settled))


def _latest(app: str, ref: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        t.inbox.c.app == app,
        t.inbox.c.ref == ref,
        t.inbox.c.state.in_(STARTS),
        t.inbox.c.followed_by.is_(None),
    )
