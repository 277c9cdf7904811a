"""Whose word a release waits for, and what it was."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from headway.domain.errors import HeadwayError, NotFound, UsageError
from headway.ledger import schema as t
from headway.ledger.base import new_id, one, record
from headway.ledger.database import writing
from headway.ledger.records import APPROVAL, FORK, OPEN, ApprovalRecord, ReleaseRecord
from headway.ledger.releases import Releases

__all__ = ["Approvals"]


class Approvals(Releases):
    """Asked for, decided, expired: each once."""

    def request_approval(
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
        """Asked once for one revision: a run that comes back finds what was said meanwhile."""
        own = (
            t.approvals.c.release_id == release_id,
            t.approvals.c.environment == environment,
            t.approvals.c.revision == revision,
            t.approvals.c.asks == asks,
        )
        with writing(self._engine) as db:
            known = one(db, sa.select(t.approvals).where(*own))
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
        return self.approval(str(row["id"]))

    def approval(self, approval_id: str) -> ApprovalRecord:
        row = self._read_one(sa.select(t.approvals).where(t.approvals.c.id == approval_id))
        if row is None:
            raise NotFound(f"there is no approval {approval_id}", "see headway status")
        return record(ApprovalRecord, row)

    def waiting_approval(self, release_id: str) -> ApprovalRecord | None:
        row = self._read_one(
            sa.select(t.approvals).where(t.approvals.c.release_id == release_id, t.approvals.c.state == "waiting")
        )
        return record(ApprovalRecord, row) if row else None

    def decide(
        self, approval_id: str, decision: Literal["approved", "rejected"], *, by: str, reason: str, via: str
    ) -> ApprovalRecord:
        """A person's word. Raises HeadwayError when it comes too late, a second time, or from somebody who may not."""
        asked = self.approval(approval_id)
        if not by.strip():
            raise UsageError("an approval needs a name", "say who decides: --by NAME")
        if asked.by and not any(_same_person(by, one) for one in asked.by):
            raise UsageError(f"{by} may not decide on {asked.environment}", f"it is for: {', '.join(asked.by)}")
        if asked.frozen and decision == "approved" and not reason.strip():
            raise UsageError(f"{asked.environment} is frozen", "say why it cannot wait: --reason WHY")
        author = self.release(asked.release_id).author or ""
        if asked.not_author and decision == "approved" and _same_person(by, author):
            raise UsageError(f"{by} is the author of the change", f"{asked.environment} wants somebody else's word")
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
        now = self.approval(approval_id)
        if not done.rowcount:
            what = f"{now.state} by {now.decided_by}" if now.decided_by else _unsaid(now)
            raise HeadwayError(
                f"the approval for {now.environment} is settled: {what}", "release it again to ask again"
            )
        return now

    def expire_approvals(self, now: datetime) -> list[ApprovalRecord]:
        """Close what nobody decided in time; returns those that this call closed."""
        late = (t.approvals.c.state == "waiting", t.approvals.c.expires_at <= now)
        expired = []
        for row in self._read(sa.select(t.approvals.c.id).where(*late)):
            with writing(self._engine) as db:
                closed = db.execute(
                    t.approvals.update().where(t.approvals.c.id == row["id"], *late).values(state="expired")
                )
            if closed.rowcount:
                expired.append(self.approval(row["id"]))
        return expired

    def void_approvals(self) -> list[ApprovalRecord]:
        """Close those of a commit that a newer push has followed; returns those that this call closed."""
        followed = (
            sa.select(t.releases.c.id)
            .join(t.inbox, t.inbox.c.flow_run_id == t.releases.c.flow_run_id)
            .where(t.inbox.c.followed_by.is_not(None))
        )
        waiting = (t.approvals.c.state == "waiting", t.approvals.c.release_id.in_(followed))
        with writing(self._engine) as db:
            ids = list(db.scalars(sa.select(t.approvals.c.id).where(*waiting)))
            db.execute(t.approvals.update().where(t.approvals.c.id.in_(ids), *waiting).values(state="void"))
        return [self.approval(each) for each in ids]

    def let_in(self, app: str, sha: str) -> ApprovalRecord | None:
        """The word of whoever let a commit from a fork run, in this run or an earlier one."""
        asked = (
            sa.select(t.approvals)
            .join(t.releases, t.releases.c.id == t.approvals.c.release_id)
            .where(t.releases.c.app == app, t.releases.c.sha == sha)
            .where(t.approvals.c.asks == FORK, t.approvals.c.state == "approved")
        )
        row = self._read_one(asked.limit(1))
        return record(ApprovalRecord, row) if row else None

    def newer_at_the_freeze(self, release_id: str, environment: str) -> ReleaseRecord | None:
        """The newest release that has come as far as this environment's freeze, when it is newer than this one."""
        this = self.release(release_id)
        came = sa.select(t.approvals.c.release_id).where(
            t.approvals.c.environment == environment, t.approvals.c.asks.not_in((APPROVAL, FORK))
        )
        newer = sa.select(t.releases).where(
            t.releases.c.app == this.app,
            t.releases.c.number > this.number,
            t.releases.c.state.in_((*OPEN, "succeeded")),
            t.releases.c.id.in_(came),
        )
        row = self._read_one(newer.order_by(t.releases.c.number.desc()).limit(1))
        return record(ReleaseRecord, row) if row else None

    def releases_with_closed_approval(self) -> list[ReleaseRecord]:
        """Those that wait still, and for nothing else: their run has to be woken to find out."""
        late, open_ = (
            sa.select(t.approvals.c.release_id).where(t.approvals.c.state.in_(states))
            for states in (("expired", "void"), ("waiting",))
        )
        waits = sa.select(t.releases).where(
            t.releases.c.state == "waiting", t.releases.c.id.in_(late), t.releases.c.id.not_in(open_)
        )
        return [record(ReleaseRecord, row) for row in self._read(waits.order_by(t.releases.c.started_at))]


def _unsaid(asked: ApprovalRecord) -> str:
    if asked.state == "void":
        return "void, a newer commit was pushed"
    return f"expired at {asked.expires_at:%F %H:%M} UTC"


def _same_person(one: str, other: str) -> bool:
    """Whether a name or mail is the same as, or part of, `Name <mail>`."""
    one, other = one.strip().casefold(), other.strip().casefold()
    parts = {other, *other.replace(">", "").split(" <")}
    return one in parts or bool({one, *one.replace(">", "").split(" <")} & parts)
