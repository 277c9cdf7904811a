"""Rollouts and their journal of steps. Every write to the journal checks the lock's fencing token."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.measurements import RequestCounts
from headway.domain.plan import Plan, Route, Step
from headway.domain.traffic import Traffic
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Clock, Repository, new_id, record
from headway.ledger.database import writing
from headway.ledger.locks import Locks
from headway.ledger.records import RolloutKind, RolloutRecord, RolloutState, StepRecord, UserRequests

__all__ = ["Rollouts"]

HISTORY = 100  # rollouts that are searched for the revision before the live one


class Rollouts(Repository):
    """Rollouts, rollbacks included. Each changes one environment, and is numbered per environment."""

    def __init__(self, engine: sa.Engine, clock: Clock, locks: Locks) -> None:
        super().__init__(engine, clock)
        self._locks = locks

    # --- the journal ---------------------------------------------------------------------------------------------

    def start(
        self,
        release_id: str | None,
        app: str,
        environment: str,
        plan: Plan,
        *,
        kind: RolloutKind,
        reason: str,
        token: int,
        by: str = "",
    ) -> RolloutRecord:
        """Record a new rollout. `by` is for the audit trail: who asked for it; Headway itself if empty.

        Raises LockLost.
        """
        own = (t.rollouts.c.app == app, t.rollouts.c.environment == environment)
        with writing(self._engine) as db:
            self._locks.require(db, app, environment, token)
            last = db.scalar(sa.select(sa.func.max(t.rollouts.c.sequence)).where(*own)) or 0
            row = {
                "id": new_id(),
                "sequence": last + 1,
                "release_id": release_id,
                "app": app,
                "environment": environment,
                "kind": kind,
                "state": "running",
                "reason": reason,
                "token": token,
                "plan": plan.model_dump(mode="json"),
                "started_at": self._now(),
            }
            db.execute(t.rollouts.insert().values(row))
            facts = {"to": plan.new, "from": plan.replaced, "release": release_id, "reason": reason}
            entry = audit.Entry(_action(kind, "started"), f"{app} {environment}", by or audit.HEADWAY, facts)
            audit.append(db, self._now(), entry)
        return self._select(t.rollouts.c.id == row["id"])[0]

    def start_step(self, rollout: RolloutRecord, position: int, step: Step, token: int) -> None:
        """Record that a step starts, before it changes anything. Raises LockLost."""
        values = {"title": str(step), "outcome": None, "detail": "", "started_at": self._now(), "finished_at": None}
        own = (t.steps.c.rollout_id == rollout.id, t.steps.c.position == position)
        with writing(self._engine) as db:
            self._locks.require(db, rollout.app, rollout.environment, token)
            if not db.execute(t.steps.update().where(*own).values(values)).rowcount:
                db.execute(t.steps.insert().values({"rollout_id": rollout.id, "position": position} | values))

    def finish_step(
        self, rollout: RolloutRecord, position: int, outcome: str, detail: str, users: RequestCounts | None, token: int
    ) -> None:
        """Record how a step ended, and the requests of `users` since the step before it. Raises LockLost."""
        counted: dict[str, object] = {}
        if users is not None:
            worst = users.latency[-1].upper if users.latency else None
            requests, failed = users.requests + users.unanswered, users.errors + users.unanswered
            counted = {"requests": requests, "failed": failed, "worst": worst}
        with writing(self._engine) as db:
            self._locks.require(db, rollout.app, rollout.environment, token)
            db.execute(
                t.steps.update()
                .where(t.steps.c.rollout_id == rollout.id, t.steps.c.position == position)
                .values(outcome=outcome, detail=detail, finished_at=self._now(), **counted)
            )

    def finish(self, rollout_id: str, state: RolloutState) -> None:
        with writing(self._engine) as db:
            ended = db.execute(
                t.rollouts.update()
                .where(t.rollouts.c.id == rollout_id, t.rollouts.c.state.in_(("running", "halted")))
                .values(state=state, finished_at=self._now())
            )
            if ended.rowcount:
                row = db.execute(sa.select(t.rollouts).where(t.rollouts.c.id == rollout_id)).mappings().one()
                facts = {"to": row["plan"]["new"], "release": row["release_id"], "state": state}
                subject = f"{row['app']} {row['environment']}"
                audit.append(db, self._now(), audit.Entry(_action(row["kind"], "ended"), subject, details=facts))

    def set_url(self, rollout_id: str, url: str | None) -> None:
        """Record where the app answers after this rollout."""
        with writing(self._engine) as db:
            db.execute(t.rollouts.update().where(t.rollouts.c.id == rollout_id).values(url=url))

    def urls(self, release_id: str) -> dict[str, str]:
        """Environment -> URL, of the environments that this release is live in."""
        done = self._select(t.rollouts.c.release_id == release_id, t.rollouts.c.state == "done")
        return {one.environment: one.url for one in done if one.url and one.kind == "release"}

    def steps(self, rollout_id: str) -> list[StepRecord]:
        query = sa.select(t.steps).where(t.steps.c.rollout_id == rollout_id).order_by(t.steps.c.position)
        return [StepRecord(**row) for row in self._read(query)]

    def user_requests(self, release_id: str) -> UserRequests | None:
        """Requests of users during all rollouts of a release, its rollback included; None if they were not counted."""
        own = sa.select(t.rollouts.c.id).where(t.rollouts.c.release_id == release_id)
        steps = [StepRecord(**row) for row in self._read(sa.select(t.steps).where(t.steps.c.rollout_id.in_(own)))]
        counted = [step for step in steps if step.requests is not None]
        if not counted:
            return None
        return UserRequests(
            requests=sum(step.requests or 0 for step in counted),
            failed=sum(step.failed or 0 for step in counted),
            worst=max((step.worst for step in counted if step.worst is not None), default=None),
        )

    # --- queries ---------------------------------------------------------------------------------------------------

    def by_release(self, release_id: str) -> list[RolloutRecord]:
        return self._select(t.rollouts.c.release_id == release_id)

    def manual_rollbacks(self, app: str, limit: int = 20) -> list[RolloutRecord]:
        """Rollouts without a release: rollbacks that a user requested. Newest first."""
        query = sa.select(t.rollouts).where(t.rollouts.c.app == app, t.rollouts.c.release_id.is_(None))
        newest = query.order_by(t.rollouts.c.started_at.desc()).limit(limit)
        return [record(RolloutRecord, row) for row in self._read(newest)]

    def unfinished(self, app: str | None = None, environment: str | None = None) -> list[RolloutRecord]:
        """Running rollouts, the oldest first: its plan names the revision that was live before all of them."""
        wanted = [t.rollouts.c.state == "running"]
        wanted += [t.rollouts.c.app == app] if app else []
        wanted += [t.rollouts.c.environment == environment] if environment else []
        return self._select(*wanted)

    def incomplete(self, app: str, environment: str) -> list[RolloutRecord]:
        """Rollouts since the last one that was done, running or halted. The oldest first."""
        last = self.done(app, environment, 1)
        own = (t.rollouts.c.app == app, t.rollouts.c.environment == environment)
        since = t.rollouts.c.sequence > (last[0].sequence if last else 0)
        return self._select(*own, since, t.rollouts.c.state.in_(("running", "halted")))

    def split(self, app: str, environment: str) -> Traffic | None:
        """Traffic between several revisions, according to the last route of an incomplete rollout; None: all to one."""
        for rollout in reversed(self.incomplete(app, environment)):
            for step in reversed(self.steps(rollout.id)):
                routed = rollout.plan.steps[step.position]
                if isinstance(routed, Route) and step.outcome == "done":
                    weights = [weight for weight in routed.traffic.weights.values() if weight]
                    return routed.traffic if len(weights) > 1 else None
        return None

    def is_accepted(self, release_id: str, environment: str, revision: str) -> bool:
        """Whether this release rolled this revision out to this environment, and it was accepted there."""
        own = (t.rollouts.c.release_id == release_id, t.rollouts.c.environment == environment)
        done = self._select(*own, t.rollouts.c.state == "done", t.rollouts.c.kind == "release")
        return any(rollout.plan.new == revision for rollout in done)

    def last_accepted(self, app: str, environment: str, before: str) -> str | None:
        """Id of the release that was accepted last in an environment, other than `before`."""
        own = (t.rollouts.c.app == app, t.rollouts.c.environment == environment, t.rollouts.c.state == "done")
        others = (t.rollouts.c.kind == "release", t.rollouts.c.release_id != before)
        newest = sa.select(t.rollouts.c.release_id).where(*own, *others).order_by(t.rollouts.c.sequence.desc())
        row = self._read_one(newest.limit(1))
        return row["release_id"] if row else None

    def live(self, app: str, environment: str) -> str | None:
        """Id of the live revision: the one of the last rollout or rollback that was done. None if nothing is live."""
        done = self.done(app, environment, 1)
        return (done[0].plan.new or None) if done else None

    def previous(self, app: str, environment: str) -> str | None:
        """Id of the revision that a rollback without `to` goes to: the one that was live before the live one.

        A second rollback goes further back, not forward to the revision that the first one left. Searches the last
        100 rollouts.
        """
        stack: list[str] = []
        for rollout in reversed(self.done(app, environment, HISTORY)):
            new = rollout.plan.new
            if rollout.kind == "rollback" and new in stack:
                while stack[-1] != new:
                    stack.pop()
            elif not stack or stack[-1] != new:
                stack.append(new)
        return next((revision for revision in reversed(stack[:-1]) if revision and revision != stack[-1]), None)

    def done(self, app: str, environment: str, limit: int) -> list[RolloutRecord]:
        """The last rollouts that were done, the newest first."""
        own = (t.rollouts.c.app == app, t.rollouts.c.environment == environment, t.rollouts.c.state == "done")
        newest = sa.select(t.rollouts).where(*own).order_by(t.rollouts.c.sequence.desc()).limit(limit)
        return [record(RolloutRecord, row) for row in self._read(newest)]

    def last_done(self, count: int) -> sa.Subquery:
        """The last `count` completed rollouts of each environment: app, environment and the revision `new`.

        One query, whose cost depends on the number of environments and on `count`, not on the length of the history.
        A torn down preview has no part in it.
        """
        # Every environment that was rolled out to has a lock: a list that does not grow with each rollout.
        place, done = t.locks, t.rollouts.alias()
        own = (done.c.app == place.c.app, done.c.environment == place.c.environment, done.c.state == "done")
        oldest = sa.select(done.c.sequence).where(*own).order_by(done.c.sequence.desc()).limit(1).offset(count - 1)
        first_of_all = sa.func.coalesce(oldest.correlate(place).scalar_subquery(), 0)
        closed = sa.select(t.previews.c.app).where(t.previews.c.closed_at.is_not(None))
        rollouts = t.rollouts.c
        same = sa.and_(rollouts.app == place.c.app, rollouts.environment == place.c.environment)
        return (
            sa.select(rollouts.app, rollouts.environment, rollouts.plan["new"].as_string().label("new"))
            .select_from(place.join(t.rollouts, same))
            .where(rollouts.state == "done", rollouts.sequence >= first_of_all, place.c.app.not_in(closed))
            .subquery()
        )

    def started_revisions(self, app: str, environment: str) -> set[str]:
        """Ids of the revisions that a rollout was ever started for."""
        own = self._select(t.rollouts.c.app == app, t.rollouts.c.environment == environment)
        return {rollout.plan.new for rollout in own} - {""}

    def environments(self, app: str) -> list[str]:
        """Environments that the app was rolled out to, by their first rollout."""
        rollouts = t.rollouts.c
        same = sa.and_(rollouts.app == t.locks.c.app, rollouts.environment == t.locks.c.environment)
        first = sa.select(rollouts.environment).select_from(t.locks.join(t.rollouts, same))
        first = first.where(t.locks.c.app == app, rollouts.sequence == 1).order_by(rollouts.started_at)
        return [row["environment"] for row in self._read(first)]

    def _select(self, *wanted: sa.ColumnElement[bool]) -> list[RolloutRecord]:
        query = sa.select(t.rollouts).where(*wanted).order_by(t.rollouts.c.started_at, t.rollouts.c.sequence)
        return [record(RolloutRecord, row) for row in self._read(query)]


def _action(kind: RolloutKind, what: str) -> str:
    return f"{'rollback' if kind == 'rollback' else 'rollout'}.{what}"
