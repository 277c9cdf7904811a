"""What git hosts sent, and what has become of it. Nothing that was verified is ever lost, or started twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from headway.domain.events import PullRequestEvent, PushEvent
from headway.ledger import schema as t
from headway.ledger.base import Book, record
from headway.ledger.database import one_at_a_time, writing
from headway.ledger.records import Delivery, DeliveryRecord, DeliveryState

__all__ = ["Inbox"]

GOING = ("starting", "started")
ROUND = 1000  # deliveries that are looked at together, at most


class Inbox(Book):
    """Deliveries: `waiting` until somebody has looked what they mean, then settled, each once."""

    def receive(self, deliveries: Sequence[Delivery]) -> None:
        """Keep them. One that is there already, by what its host calls it, stays as it is."""
        now = self._now()
        rows = [
            {
                **delivery.model_dump(mode="json"),
                "ref": delivery.event.about,
                "received_at": now,
                "state": "waiting",
                "detail": "",
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

    def due_deliveries(self, but: Collection[tuple[str, str]] = ()) -> list[DeliveryRecord]:
        """Those that wait and may be looked at now, or were being started, `but` of these apps and kinds of event; the
        oldest first.
        """
        due = sa.or_(
            t.inbox.c.state == "starting",
            sa.and_(t.inbox.c.state == "waiting", t.inbox.c.due_at <= self._now()),
        )
        kind = t.inbox.c.event["kind"].as_string()
        others = [sa.or_(t.inbox.c.app != app, kind != known) for app, known in but]
        asked = sa.select(t.inbox).where(due, *others).order_by(t.inbox.c.id).limit(ROUND)
        return [record(DeliveryRecord, row) for row in self._read(asked)]

    def deliveries(self, app: str, limit: int = 20) -> list[DeliveryRecord]:
        """The newest first."""
        asked = sa.select(t.inbox).where(t.inbox.c.app == app).order_by(t.inbox.c.id.desc()).limit(limit)
        return [record(DeliveryRecord, row) for row in self._read(asked)]

    def heard_of(self, app: str, ref: str, sha: str, after: int = 0) -> bool:
        """Whether a delivery, that came `after` another, said that a ref, or an open pull request, has this commit, or
        it was started; some digits do.
        """
        said = sa.or_(
            t.inbox.c.sha.startswith(sha, autoescape=True),
            t.inbox.c.event["after"].as_string() == sha,
            sa.and_(t.inbox.c.event["head"].as_string() == sha, t.inbox.c.event["open"].as_boolean()),
        )
        here = (t.inbox.c.app == app, t.inbox.c.ref == ref, t.inbox.c.id > after)
        asked = sa.select(t.inbox.c.id).where(*here, said).limit(1)
        return self._read_one(asked) is not None

    def latest_start(self, app: str, ref: str) -> DeliveryRecord | None:
        """The delivery whose commit is the newest that was started of this ref."""
        row = self._read_one(sa.select(t.inbox).where(*_latest(app, ref)))
        return record(DeliveryRecord, row) if row else None

    def settle(self, ids: Sequence[int], state: DeliveryState, detail: str, *, followed_by: int | None = None) -> None:
        """Those of these deliveries that wait still wait no more."""
        with writing(self._engine) as db:
            self._settle(db, ids, state, detail, followed_by)

    def settle_start(
        self,
        ids: Sequence[int],
        chosen: int,
        app: str,
        ref: str,
        sha: str,
        *,
        again: bool = False,
        event: PushEvent | PullRequestEvent | None = None,
    ) -> bool:
        """One of these deliveries is going to start a commit; the others, and the start before, are followed by it.

        `event` is what it says as far as that is believed, where that is not what came.

        False, and nothing is changed, when that commit is the newest start of the ref already and is not wanted
        `again`, or somebody else has settled the delivery.
        """
        with writing(self._engine) as db:
            one_at_a_time(db, f"inbox {app}")
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

    def started(self, delivery_id: int, flow_run_id: str) -> None:
        """The run that a delivery was going to start is there."""
        with writing(self._engine) as db:
            own = (t.inbox.c.id == delivery_id, t.inbox.c.state == "starting")
            db.execute(t.inbox.update().where(*own).values(state="started", flow_run_id=flow_run_id))

    def try_again(self, ids: Sequence[int], detail: str, pause: float) -> None:
        """Whatever they wait for did not answer: they are looked at again after `pause` seconds."""
        with writing(self._engine) as db:
            waiting = (t.inbox.c.id.in_(ids), t.inbox.c.state == "waiting")
            later = {"detail": detail, "tries": t.inbox.c.tries + 1, "due_at": self._now() + timedelta(seconds=pause)}
            db.execute(t.inbox.update().where(*waiting).values(later))

    def postpone(self, ids: Sequence[int], until: datetime) -> None:
        """They are not looked at before then."""
        with writing(self._engine) as db:
            waiting = (t.inbox.c.id.in_(ids), t.inbox.c.state == "waiting")
            db.execute(t.inbox.update().where(*waiting).values(due_at=until))

    def follower(self, flow_run_id: str) -> DeliveryRecord | None:
        """The delivery that started a newer commit of the ref whose push started this run; None while it is the
        newest, or no push started it.
        """
        newer = t.inbox.alias()
        asked = (
            sa.select(newer)
            .join(t.inbox, t.inbox.c.followed_by == newer.c.id)
            .where(t.inbox.c.flow_run_id == flow_run_id)
        )
        row = self._read_one(asked)
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
        t.inbox.c.state.in_(GOING),
        t.inbox.c.followed_by.is_(None),
    )
