"""Approvals: decisions by people that releases wait for."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from headway.domain.errors import HeadwayError, NotFound, UsageError
from headway.ledger import schema as t
from headway.ledger.base import Clock, Repository, first, new_id, record
from headway.ledger.database import writing
from headway.ledger.records import APPROVAL, FORK, OPEN, ApprovalRecord, ReleaseRecord
from headway.ledger.releases import Releases

__all__ = ["Approvals"]


class Approvals(Repository):
    """Requests for approval. Each is decided, expires or becomes void once."""

    def __init__(self, engine: sa.Engine, clock: Clock, releases: Releases) -> None:
        super().__init__(engine, clock)
        self._releases = releases

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
        asks: str = APPROVAL,
    ) -> ApprovalRecord:
        """Request an approval; a run that is resumed gets the request that it made before, with its decision."""
        own = (
            t.approvals.c.release_id == release_id,
            t.approvals.c.environment == environment,
            t.approvals.c.revision == revision,
            t.approvals.c.asks == asks,
        )
        with writing(self._engine) as db:
            known = first(db, sa.select(t.approvals).where(*own))
            if known:
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
            }
            db.execute(t.approvals.insert().values(row))
        return self.get(str(row["id"]))

    def get(self, approval_id: str) -> ApprovalRecord:
        """Raises NotFound."""
        row = self._read_one(sa.select(t.approvals).where(t.approvals.c.id == approval_id))
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

    def decide(
        self, approval_id: str, decision: Literal["approved", "rejected"], *, by: str, reason: str, via: str
    ) -> ApprovalRecord:
        """Record a person's decision.

        Raises UsageError when `by` may not decide, HeadwayError when the request is closed already.
        """
        request = self.get(approval_id)
        if not by.strip():
            raise UsageError("an approval needs a name", "name the person who decides: --by NAME")
        if request.by and not any(_same_person(by, each) for each in request.by):
            raise UsageError(f"{by} may not decide on {request.environment}", f"these may: {', '.join(request.by)}")
        if request.frozen and decision == "approved" and not reason.strip():
            raise UsageError(f"{request.environment} is frozen", "give the reason why it cannot wait: --reason WHY")
        author = self._releases.get(request.release_id).author or ""
        if request.not_author and decision == "approved" and _same_person(by, author):
            raise UsageError(
                f"{by} is the author of the change", f"another person has to decide on {request.environment}"
            )
        with writing(self._engine) as db:
            done = db.execute(
                t.approvals.update()
                .where(
                    t.approvals.c.id == approval_id,
                    t.approvals.c.state == "waiting",
                    t.approvals.c.expires_at > self._now(),
                )
                .values(state=decision, decided_at=self._now(), decided_by=by, reason=reason, via=via)
            )
        now = self.get(approval_id)
        if not done.rowcount:
            what = f"{now.state} by {now.decided_by}" if now.decided_by else _closed_without_decision(now)
            raise HeadwayError(
                f"the approval for {now.environment} is already decided: {what}", "release it again for a new approval"
            )
        return now

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


def _closed_without_decision(request: ApprovalRecord) -> str:
    if request.state == "void":
        return "void, a newer commit was pushed"
    return f"expired at {request.expires_at:%F %H:%M} UTC"


def _same_person(one: str, other: str) -> bool:
    """Whether a name or mail is the same as, or part of, `Name <mail>`."""
    one, other = one.strip().casefold(), other.strip().casefold()
    parts = {other, *other.replace(">", "").split(" <")}
    return one in parts or bool({one, *one.replace(">", "").split(" <")} & parts)
