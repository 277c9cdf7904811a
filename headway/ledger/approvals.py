"""Approvals: decisions by people that releases wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headway.domain.approvals import Decision, Outcome
from headway.domain.errors import HeadwayError, NotFound
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Clock, Repository, first, new_id, record
from headway.ledger.database import serialize, writing
from headway.ledger.records import APPROVAL, FORK, OPEN, ApprovalRecord, DecisionRecord, ReleaseRecord
from headway.ledger.releases import Releases
from headway.ledger.rollouts import Rollouts

__all__ = ["Approvals"]

HISTORY = 100  # rollouts that are searched for the release whose revision is live
_LAST_PREFECT_REQUEST = sa.select(sa.func.coalesce(sa.func.max(t.prefect_requests.c.id), 0))


class Approvals(Repository):
    """Requests for approval. Each is decided, expires or becomes void once. policy.approvals says who may decide."""

    def __init__(self, engine: sa.Engine, clock: Clock, releases: Releases, rollouts: Rollouts) -> None:
        super().__init__(engine, clock)
        self._releases = releases
        self._rollouts = rollouts

    def request(
        self,
        release_id: str,
        environment: str,
        revision: str,
        *,
        evidence: dict[str, Any],
        expires_at: datetime,
        by: list[str],
        not_author: bool,
        count: int = 1,
        asks: str = APPROVAL,
    ) -> ApprovalRecord:
        """Request an approval; a run that is resumed gets the request that it made before, with its decision.

        A request that is void because what it shows has changed is made again, as another round.
        """
        own = (
            t.approvals.c.release_id == release_id,
            t.approvals.c.environment == environment,
            t.approvals.c.revision == revision,
            t.approvals.c.asks == asks,
        )
        with writing(self._engine) as db:
            known = first(db, sa.select(t.approvals).where(*own).order_by(t.approvals.c.round.desc()).limit(1))
            if known and (known["state"] != "void" or asks == FORK):
                return record(ApprovalRecord, known)
            row = {
                "id": new_id(),
                "release_id": release_id,
                "environment": environment,
                "revision": revision,
                "state": "waiting",
                "evidence": evidence,
                "by": by,
                "not_author": not_author,
                "requested_at": self._now(),
                "expires_at": expires_at,
                "asks": asks,
                "count": count,
                "round": known["round"] + 1 if known else 0,
                "form": 0,
                "form_after": db.scalar(_LAST_PREFECT_REQUEST),
            }
            db.execute(t.approvals.insert().values(row))
            self._audit(db, str(row["id"]), "requested", count=count, by=by, not_author=not_author)
        return self.get(str(row["id"]))

    def latest(self, release_id: str, environment: str, revision: str, asks: str = APPROVAL) -> ApprovalRecord | None:
        """The request that a release made last for this revision."""
        own = (
            t.approvals.c.release_id == release_id,
            t.approvals.c.environment == environment,
            t.approvals.c.revision == revision,
            t.approvals.c.asks == asks,
        )
        row = self._read_one(sa.select(t.approvals).where(*own).order_by(t.approvals.c.round.desc()).limit(1))
        return record(ApprovalRecord, row) if row else None

    def approved(self, release_id: str, environment: str, revision: str) -> list[ApprovalRecord]:
        """Requests for this revision that are approved: to release it, and to release it in spite of a freeze."""
        own = (
            t.approvals.c.release_id == release_id,
            t.approvals.c.environment == environment,
            t.approvals.c.revision == revision,
            t.approvals.c.asks != FORK,
            t.approvals.c.state == "approved",
        )
        return [record(ApprovalRecord, row) for row in self._read(sa.select(t.approvals).where(*own))]

    def by_release(self, release_id: str) -> list[ApprovalRecord]:
        """The requests of a release, the oldest first."""
        query = sa.select(t.approvals).where(t.approvals.c.release_id == release_id)
        return [record(ApprovalRecord, row) for row in self._read(query.order_by(t.approvals.c.requested_at))]

    def get(self, approval_id: str) -> ApprovalRecord:
        """Raises NotFound."""
        row = self._read_one(_one(approval_id))
        if row is None:
            raise NotFound(f"there is no approval {approval_id}", "see headway status")
        return record(ApprovalRecord, row)

    def last_decided(self, release_id: str) -> ApprovalRecord | None:
        """The newest decision of a person on this release."""
        decided = (t.approvals.c.release_id == release_id, t.approvals.c.decided_at.is_not(None))
        row = self._read_one(sa.select(t.approvals).where(*decided).order_by(t.approvals.c.decided_at.desc()).limit(1))
        return record(ApprovalRecord, row) if row else None

    def waiting(self, release_id: str) -> ApprovalRecord | None:
        row = self._read_one(
            sa.select(t.approvals).where(t.approvals.c.release_id == release_id, t.approvals.c.state == "waiting")
        )
        return record(ApprovalRecord, row) if row else None

    def decisions(self, approval_id: str) -> list[DecisionRecord]:
        """The decisions on a request, the oldest first; one for each person."""
        with self._engine.connect() as db:
            return _decisions(db, approval_id)

    def decide(
        self, approval_id: str, person: str, decision: Decision, settle: Callable[[Sequence[DecisionRecord]], Outcome]
    ) -> ApprovalRecord:
        """Record a decision instead of an earlier one of this person, and close the request if `settle` says so.

        policy.approvals.decide checks who may decide. Raises HeadwayError when the request is closed.
        """
        open_ = (t.approvals.c.id == approval_id, t.approvals.c.state == "waiting")
        key = {"approval_id": approval_id, "person": person}
        with writing(self._engine) as db:
            serialize(db, f"approval {approval_id}")
            if first(db, sa.select(t.approvals.c.id).where(*open_, t.approvals.c.expires_at > self._now())):
                db.execute(t.approval_decisions.delete().filter_by(**key))
                row = decision.model_dump(mode="json") | {"decided_at": self._now()}
                db.execute(t.approval_decisions.insert().values(key | row))
                outcome = settle(_decisions(db, approval_id))
                if outcome.state != "waiting":
                    closed = outcome.model_dump() | {"decided_at": self._now(), "via": decision.via}
                    db.execute(t.approvals.update().where(*open_).values(closed))
                facts = decision.model_dump(include={"reason", "via"}) | {"state": outcome.state}
                self._audit(db, approval_id, decision.decision, str(decision.principal), **facts)
                return record(ApprovalRecord, first(db, _one(approval_id)) or {})
        now = self.get(approval_id)
        what = f"{now.state} by {now.decided_by}" if now.decided_by else _closed_without_decision(now)
        raise HeadwayError(
            f"the approval for {now.environment} is already decided: {what}", "release it again for a new approval"
        )

    def close_form(self, request: ApprovalRecord) -> None:
        """Record that the form which is open in the Prefect UI was answered: the next one has another number."""
        own = (t.approvals.c.id == request.id, t.approvals.c.form == request.form)
        with writing(self._engine) as db:
            shown = {"form": request.form + 1, "form_after": db.scalar(_LAST_PREFECT_REQUEST)}
            db.execute(t.approvals.update().where(*own).values(shown))

    def void(self, approval_id: str, reason: str) -> None:
        """End a request, approved or not, whose rollout has not begun."""
        own = (t.approvals.c.id == approval_id, t.approvals.c.state.in_(("waiting", "approved")))
        with writing(self._engine) as db:
            if db.execute(t.approvals.update().where(*own).values(state="void", reason=reason)).rowcount:
                self._audit(db, approval_id, "void", reason=reason)

    def void_changed(self) -> list[ApprovalRecord]:
        """Void requests in environments where something else is live since they were made; returns those."""
        waiting = (
            sa.select(t.approvals, t.releases.c.app)
            .join(t.releases)
            .where(t.approvals.c.state == "waiting", t.releases.c.state.in_(OPEN))
        )
        void = []
        for row in self._read(waiting.where(t.approvals.c.asks != FORK)):
            request = record(ApprovalRecord, row)
            if reason := self.live_changed(request, row["app"]):
                self.void(request.id, reason)
                void.append(self.get(request.id))
        return void

    def live_changed(self, request: ApprovalRecord, app: str) -> str:
        """What is live now instead of the revision that the request shows; "" when it is still live."""
        if "live" not in request.evidence:
            return ""
        before, now = request.evidence["live"], self._rollouts.live(app, request.environment)
        if before == now:
            return ""
        return f"{request.environment}: {now or 'nothing'} is live now, not {before or 'nothing'}"

    def newer_live(self, release_id: str, environment: str) -> ReleaseRecord | None:
        """The release that made the live revision of an environment live, if it is newer than the given one."""
        release = self._releases.get(release_id)
        live = self._rollouts.live(release.app, environment)
        done = self._rollouts.done(release.app, environment, HISTORY)
        made = [one.release_id for one in done if one.kind == "release" and one.plan.new == live]
        newer = sa.select(t.releases).where(t.releases.c.id.in_(made), t.releases.c.number > release.number)
        row = self._read_one(newer.order_by(t.releases.c.number.desc()).limit(1))
        return record(ReleaseRecord, row) if row else None

    def expire(self, now: datetime) -> list[ApprovalRecord]:
        """Expire requests that are past their deadline; returns those that this call expired."""
        late = (t.approvals.c.state == "waiting", t.approvals.c.expires_at <= now)
        expired = []
        for row in self._read(sa.select(t.approvals.c.id).where(*late)):
            with writing(self._engine) as db:
                closed = db.execute(
                    t.approvals.update().where(t.approvals.c.id == row["id"], *late).values(state="expired")
                )
                if closed.rowcount:
                    self._audit(db, row["id"], "expired")
            if closed.rowcount:
                expired.append(self.get(row["id"]))
        return expired

    def void_superseded(self) -> list[ApprovalRecord]:
        """Void requests for commits that a newer push superseded; returns those that this call closed."""
        superseded = (  # correlated: the few that wait are looked up, not every push that was ever superseded
            sa.select(t.inbox.c.id)
            .join(t.releases, t.inbox.c.flow_run_id == t.releases.c.flow_run_id)
            .where(t.releases.c.id == t.approvals.c.release_id, t.inbox.c.followed_by.is_not(None))
            .correlate(t.approvals)
        )
        waiting = (t.approvals.c.state == "waiting", superseded.exists())
        with writing(self._engine) as db:
            ids = list(db.scalars(sa.select(t.approvals.c.id).where(*waiting)))
            db.execute(t.approvals.update().where(t.approvals.c.id.in_(ids), *waiting).values(state="void"))
            for each in ids:
                self._audit(db, each, "void", reason="a newer commit was pushed")
        return [self.get(each) for each in ids]

    def fork_approval(self, app: str, sha: str) -> ApprovalRecord | None:
        """The approval to run this commit of a fork, given for this release or an earlier one; None without one."""
        query = (
            sa.select(t.approvals)
            .join(t.releases, t.releases.c.id == t.approvals.c.release_id)
            .where(t.releases.c.app == app, t.releases.c.sha == sha)
            .where(t.approvals.c.asks == FORK, t.approvals.c.state == "approved")
        )
        row = self._read_one(query.limit(1))
        return record(ApprovalRecord, row) if row else None

    def newer_release_at_freeze(self, release_id: str, environment: str) -> ReleaseRecord | None:
        """The newest release that reached this environment's freeze, if it is newer than the given one."""
        release = self._releases.get(release_id)
        reached = sa.select(t.approvals.c.release_id).where(
            t.approvals.c.environment == environment, t.approvals.c.asks.not_in((APPROVAL, FORK))
        )
        newer = sa.select(t.releases).where(
            t.releases.c.app == release.app,
            t.releases.c.number > release.number,
            t.releases.c.state.in_((*OPEN, "succeeded")),
            t.releases.c.id.in_(reached),
        )
        row = self._read_one(newer.order_by(t.releases.c.number.desc()).limit(1))
        return record(ReleaseRecord, row) if row else None

    def releases_to_resume(self) -> list[ReleaseRecord]:
        """Releases that wait although their requests are decided, expired or void: their runs must be resumed."""
        requests = sa.select(t.approvals.c.release_id)
        suspended = sa.select(t.releases).where(
            t.releases.c.state == "waiting",
            t.releases.c.id.in_(requests),
            t.releases.c.id.not_in(requests.where(t.approvals.c.state == "waiting")),
        )
        return [record(ReleaseRecord, row) for row in self._read(suspended.order_by(t.releases.c.started_at))]

    def _audit(
        self, db: sa.Connection, approval_id: str, what: str, principal: str = audit.HEADWAY, **facts: Any
    ) -> None:
        """Add an event such as `approval.requested` of `shop#14` to the audit trail."""
        columns = (t.releases.c.app, t.releases.c.number, t.approvals.c.environment, t.approvals.c.asks)
        of = db.execute(_one(approval_id).join(t.releases).with_only_columns(*columns)).one()
        facts |= {"environment": of.environment, "asks": of.asks}
        entry = audit.Entry(f"approval.{what}", f"{of.app}#{of.number}", principal, facts)
        audit.append(db, self._now(), entry)


def _one(approval_id: str) -> sa.Select[Any]:
    return sa.select(t.approvals).where(t.approvals.c.id == approval_id)


def _decisions(db: sa.Connection, approval_id: str) -> list[DecisionRecord]:
    query = sa.select(t.approval_decisions).where(t.approval_decisions.c.approval_id == approval_id)
    ordered = query.order_by(t.approval_decisions.c.decided_at, t.approval_decisions.c.person)
    return [record(DecisionRecord, row) for row in db.execute(ordered).mappings()]


def _closed_without_decision(request: ApprovalRecord) -> str:
    if request.state == "void":
        return f"void, {request.reason or 'a newer commit was pushed'}"
    return f"expired at {request.expires_at:%F %H:%M} UTC"
