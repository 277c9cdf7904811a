"""The durable record of releases, rollouts, approvals and locks. Every write is one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from headway.errors import HeadwayError, LockLost, NotFound, UsageError
from headway.ledger import schema as t
from headway.ledger.database import connect, writing
from headway.ledger.records import (
    OPEN,
    ApprovalRecord,
    KnownCheck,
    Lock,
    LockRecord,
    ReleaseRecord,
    ReleaseState,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    StageRecord,
    StageState,
    StepRecord,
    Users,
)
from headway.model import CheckReport, Counts, Coverage, Frozen, LaunchSpec, Measurements, Order, Plan, Revision, Step

__all__ = ["Ledger"]

Record = TypeVar("Record", bound=Frozen)
Row = sa.RowMapping | Mapping[str, Any]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """One database. `clock` gives the time in UTC: leases are compared with it, so hosts that share a ledger must
    agree on the time to within a fraction of a lease (tens of seconds)."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime] = _utc_now) -> None:
        self._engine = engine
        self._now = clock

    @classmethod
    def open(cls, url: str, clock: Callable[[], datetime] = _utc_now) -> Ledger:
        """`sqlite:///PATH` or `postgresql+psycopg://...`, migrated when it is older. Raises ServiceUnavailable."""
        return cls(connect(url), clock)

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- releases ----------------------------------------------------------------------------------------------

    def start_release(
        self, app: str, repo: str, ref: str, *, flow_run_id: str | None, requested_by: str
    ) -> ReleaseRecord:
        """Enter a release; the run of a flow that comes back gets the one it had."""
        with writing(self._engine) as db:
            if flow_run_id and (
                known := _one(db, sa.select(t.releases).where(t.releases.c.flow_run_id == flow_run_id))
            ):
                return _release(known)
            last = db.scalar(sa.select(sa.func.max(t.releases.c.number)).where(t.releases.c.app == app)) or 0
            row = {
                "id": _new_id(),
                "app": app,
                "number": last + 1,
                "repo": repo,
                "ref": ref,
                "flow_run_id": flow_run_id,
                "requested_by": requested_by,
                "state": "running",
                "reason": "",
                "started_at": self._now(),
            }
            db.execute(t.releases.insert().values(row))
        return self.release(str(row["id"]))

    def update_release(self, release_id: str, **values: object) -> ReleaseRecord:
        """Add what has become known: sha, tree, author, subject, committed_at, digest."""
        with writing(self._engine) as db:
            db.execute(t.releases.update().where(t.releases.c.id == release_id).values(**values))
        return self.release(release_id)

    def release_waits(self, release_id: str, *, waits: bool = True) -> None:
        """The release waits for a person, or goes on. One that has ended stays as it ended."""
        with writing(self._engine) as db:
            db.execute(
                t.releases.update()
                .where(t.releases.c.id == release_id, t.releases.c.state.in_(OPEN))
                .values(state="waiting" if waits else "running")
            )

    def finish_release(self, release_id: str, state: ReleaseState, reason: str) -> ReleaseRecord:
        """Close a release and whatever stage of it was going on. The first ending counts."""
        with writing(self._engine) as db:
            closed = db.execute(
                t.releases.update()
                .where(t.releases.c.id == release_id, t.releases.c.state.in_(OPEN))
                .values(state=state, reason=reason, finished_at=self._now())
            )
            if closed.rowcount:
                db.execute(
                    t.stages.update()
                    .where(t.stages.c.release_id == release_id, t.stages.c.finished_at.is_(None))
                    .values(
                        state="cancelled" if state in ("cancelled", "superseded") else "failed", finished_at=self._now()
                    )
                )
        return self.release(release_id)

    def release(self, release_id: str) -> ReleaseRecord:
        row = self._read_one(sa.select(t.releases).where(t.releases.c.id == release_id))
        if row is None:
            raise NotFound(f"the ledger has no release {release_id}", "see headway history APP")
        return _release(row)

    def find_release(self, text: str) -> ReleaseRecord:
        """By id, name (`shop#14`), flow run id, or the beginning of an id that only one has.

        Raises NotFound, UsageError.
        """
        app, _, number = text.rpartition("#")
        column = t.releases.c
        rows = self._read(
            sa.select(t.releases).where(
                sa.or_(
                    column.id.startswith(text, autoescape=True),
                    column.flow_run_id.startswith(text, autoescape=True),
                    sa.and_(column.app == app, column.number == int(number)) if number.isdecimal() else sa.false(),
                )
            )
        )
        if not rows:
            raise NotFound(f"there is no release {text}", "releases are named like shop#14: see headway history APP")
        if len(rows) > 1:
            raise UsageError(f"{text} could be any of {len(rows)} releases", "give more of its id, or its name")
        return _release(rows[0])

    def release_of_run(self, flow_run_id: str) -> ReleaseRecord | None:
        row = self._read_one(sa.select(t.releases).where(t.releases.c.flow_run_id == flow_run_id))
        return _release(row) if row else None

    def releases(self, app: str | None = None, limit: int = 20) -> list[ReleaseRecord]:
        """The newest first."""
        asked = sa.select(t.releases).order_by(t.releases.c.started_at.desc()).limit(limit)
        return [_release(row) for row in self._read(asked.where(t.releases.c.app == app) if app else asked)]

    def open_releases(self) -> list[ReleaseRecord]:
        return [_release(row) for row in self._read(sa.select(t.releases).where(t.releases.c.state.in_(OPEN)))]

    def apps(self) -> list[str]:
        return [row["app"] for row in self._read(sa.select(t.releases.c.app).distinct().order_by(t.releases.c.app))]

    # --- stages ------------------------------------------------------------------------------------------------

    def stage_started(self, release_id: str, name: str, state: StageState = "running") -> None:
        """A stage that is repeated keeps its place."""
        own = (t.stages.c.release_id == release_id, t.stages.c.name == name)
        begun = {"state": state, "detail": "", "started_at": self._now(), "finished_at": None}
        with writing(self._engine) as db:
            if not db.execute(t.stages.update().where(*own).values(begun)).rowcount:
                last = db.scalar(sa.select(sa.func.max(t.stages.c.position)).where(t.stages.c.release_id == release_id))
                place = {"release_id": release_id, "name": name, "position": (last or 0) + 1}
                db.execute(t.stages.insert().values(place | begun))

    def stage_finished(self, release_id: str, name: str, state: StageState, detail: str) -> None:
        with writing(self._engine) as db:
            db.execute(
                t.stages.update()
                .where(t.stages.c.release_id == release_id, t.stages.c.name == name)
                .values(state=state, detail=detail, finished_at=self._now())
            )

    def stage_waits(self, release_id: str, name: str, asks: str) -> None:
        """The stage asks a person, or with no words goes on."""
        with writing(self._engine) as db:
            db.execute(
                t.stages.update()
                .where(t.stages.c.release_id == release_id, t.stages.c.name == name, t.stages.c.finished_at.is_(None))
                .values(state="waiting" if asks else "running", detail=asks)
            )

    def stages(self, release_id: str) -> list[StageRecord]:
        asked = sa.select(t.stages).where(t.stages.c.release_id == release_id).order_by(t.stages.c.position)
        return [StageRecord(**row) for row in self._read(asked)]

    # --- revisions ---------------------------------------------------------------------------------------------

    def save_revision(self, revision: Revision, spec: LaunchSpec) -> None:
        """What it takes to run it again. A revision saved again keeps its place and gets the newest instance count."""
        key = {"app": revision.app, "environment": spec.environment, "id": revision.id}
        body = {"spec": spec.model_dump(mode="json")}
        with writing(self._engine) as db:
            own = [t.revisions.c[name] == value for name, value in key.items()]
            if not db.execute(t.revisions.update().where(*own).values(body)).rowcount:
                rest = {"sha": revision.sha, "revision": revision.model_dump(mode="json"), "saved_at": self._now()}
                db.execute(t.revisions.insert().values(key | body | rest))

    def revision(self, app: str, text: str, *, environment: str) -> tuple[Revision, LaunchSpec]:
        """By id, or the beginning of an id or commit; the newest where several fit.

        Raises NotFound with the choices.
        """
        column = t.revisions.c
        mine = sa.select(t.revisions).where(column.app == app, column.environment == environment)
        row = self._read_one(
            mine.where(
                sa.or_(column.id.startswith(text, autoescape=True), column.sha.startswith(text, autoescape=True))
            )
            .order_by(column.saved_at.desc())
            .limit(1)
        )
        if row is None:
            known = [one["id"] for one in self._read(mine.order_by(column.saved_at.desc()).limit(5))]
            raise NotFound(
                f"{app} {environment}: no revision {text} was ever released here",
                f"there are: {', '.join(known) or 'none'}",
            )
        return Revision(**row["revision"]), LaunchSpec(**row["spec"])

    # --- rollouts and their journal ----------------------------------------------------------------------------

    def start_rollout(
        self,
        release_id: str | None,
        app: str,
        environment: str,
        plan: Plan,
        *,
        kind: RolloutKind,
        reason: str,
        token: int,
    ) -> RolloutRecord:
        """Raises LockLost when the environment is not ours any more."""
        place = (t.rollouts.c.app == app, t.rollouts.c.environment == environment)
        with writing(self._engine) as db:
            self._still_ours(db, app, environment, token)
            last = db.scalar(sa.select(sa.func.max(t.rollouts.c.sequence)).where(*place)) or 0
            row = {
                "id": _new_id(),
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
        return self._rollouts(t.rollouts.c.id == row["id"])[0]

    def step_started(self, rollout: RolloutRecord, position: int, step: Step, token: int) -> None:
        """The word before the deed. Raises LockLost."""
        begun = {"title": str(step), "outcome": None, "detail": "", "started_at": self._now(), "finished_at": None}
        own = (t.steps.c.rollout_id == rollout.id, t.steps.c.position == position)
        with writing(self._engine) as db:
            self._still_ours(db, rollout.app, rollout.environment, token)
            if not db.execute(t.steps.update().where(*own).values(begun)).rowcount:
                db.execute(t.steps.insert().values({"rollout_id": rollout.id, "position": position} | begun))

    def step_finished(
        self, rollout: RolloutRecord, position: int, outcome: str, detail: str, users: Counts | None, token: int
    ) -> None:
        """The word after the deed, and what users were answered meanwhile. Raises LockLost."""
        seen: dict[str, object] = {}
        if users is not None:
            worst = users.latency[-1].upper if users.latency else None
            seen = {"requests": users.requests, "failed": users.errors, "worst": worst}
        with writing(self._engine) as db:
            self._still_ours(db, rollout.app, rollout.environment, token)
            db.execute(
                t.steps.update()
                .where(t.steps.c.rollout_id == rollout.id, t.steps.c.position == position)
                .values(outcome=outcome, detail=detail, finished_at=self._now(), **seen)
            )

    def finish_rollout(self, rollout_id: str, state: RolloutState) -> None:
        with writing(self._engine) as db:
            db.execute(
                t.rollouts.update()
                .where(t.rollouts.c.id == rollout_id, t.rollouts.c.state.in_(("running", "halted")))
                .values(state=state, finished_at=self._now())
            )

    def steps(self, rollout_id: str) -> list[StepRecord]:
        asked = sa.select(t.steps).where(t.steps.c.rollout_id == rollout_id).order_by(t.steps.c.position)
        return [StepRecord(**row) for row in self._read(asked)]

    def users(self, release_id: str) -> Users | None:
        """What users were answered during all rollouts of a release, the way back included; None: nobody counted."""
        rollouts = sa.select(t.rollouts.c.id).where(t.rollouts.c.release_id == release_id)
        steps = [StepRecord(**row) for row in self._read(sa.select(t.steps).where(t.steps.c.rollout_id.in_(rollouts)))]
        counted = [step for step in steps if step.requests is not None]
        if not counted:
            return None
        return Users(
            requests=sum(step.requests or 0 for step in counted),
            failed=sum(step.failed or 0 for step in counted),
            worst=max((step.worst for step in counted if step.worst is not None), default=None),
        )

    def rollouts_of(self, release_id: str) -> list[RolloutRecord]:
        return self._rollouts(t.rollouts.c.release_id == release_id)

    def unfinished_rollouts(self, app: str | None = None, environment: str | None = None) -> list[RolloutRecord]:
        """The oldest first: it knows what was live before all of them began."""
        wanted = [t.rollouts.c.state == "running"]
        wanted += [t.rollouts.c.app == app] if app else []
        wanted += [t.rollouts.c.environment == environment] if environment else []
        return self._rollouts(*wanted)

    def left_half_way(self, app: str, environment: str) -> list[RolloutRecord]:
        """Rollouts since the last one that arrived: unfinished, or given up on. The oldest first."""
        last = self._done(app, environment, 1)
        here = (t.rollouts.c.app == app, t.rollouts.c.environment == environment)
        since = t.rollouts.c.sequence > (last[0].sequence if last else 0)
        return self._rollouts(*here, since, t.rollouts.c.state.in_(("running", "halted")))

    def rollout_done(self, release_id: str, environment: str) -> bool:
        """Whether this release has been accepted in this environment."""
        here = (t.rollouts.c.release_id == release_id, t.rollouts.c.environment == environment)
        return bool(self._rollouts(*here, t.rollouts.c.state == "done", t.rollouts.c.kind == "release"))

    def live(self, app: str, environment: str) -> str | None:
        """The revision that the last rollout left live, forwards or back."""
        done = self._done(app, environment, 1)
        return (done[0].plan.new or None) if done else None

    def previous(self, app: str, environment: str) -> str | None:
        """The revision a rollback without a name goes to: what was live before the present one came.

        Going back twice goes further back, not forth again to what was left; of the last 100 rollouts.
        """
        way: list[str] = []
        for rollout in reversed(self._done(app, environment, 100)):
            new = rollout.plan.new
            if rollout.kind == "rollback" and new in way:
                while way[-1] != new:
                    way.pop()
            elif not way or way[-1] != new:
                way.append(new)
        return next((revision for revision in reversed(way[:-1]) if revision and revision != way[-1]), None)

    def digests_in_use(self, ways_back: int) -> set[str]:
        """Artifacts of open releases, and of the last so many rollouts of every environment, the live one among
        them.
        """
        digests = {release.digest for release in self.open_releases() if release.digest}
        for app in self.apps():
            for environment in self.environments(app):
                for revision in {rollout.plan.new for rollout in self._done(app, environment, ways_back)} - {""}:
                    digests.add(self.revision(app, revision, environment=environment)[0].digest)
        return digests

    def environments(self, app: str) -> list[str]:
        asked = sa.select(t.rollouts.c.environment, sa.func.min(t.rollouts.c.started_at).label("first"))
        mine = asked.where(t.rollouts.c.app == app).group_by(t.rollouts.c.environment).order_by("first")
        return [row["environment"] for row in self._read(mine)]

    def _done(self, app: str, environment: str, last: int) -> list[RolloutRecord]:
        """The newest first."""
        here = (t.rollouts.c.app == app, t.rollouts.c.environment == environment, t.rollouts.c.state == "done")
        newest = sa.select(t.rollouts).where(*here).order_by(t.rollouts.c.sequence.desc()).limit(last)
        return [_record(RolloutRecord, row) for row in self._read(newest)]

    def _rollouts(self, *wanted: sa.ColumnElement[bool]) -> list[RolloutRecord]:
        asked = sa.select(t.rollouts).where(*wanted).order_by(t.rollouts.c.started_at, t.rollouts.c.sequence)
        return [_record(RolloutRecord, row) for row in self._read(asked)]

    def give_order(self, app: str, environment: str, order: Order, *, via: str) -> RolloutRecord:
        """For the rollout that is under way. Raises NotFound when there is none."""
        going = [one for one in self.unfinished_rollouts(app, environment) if one.kind == "release"]
        if not going:
            raise NotFound(f"{app} {environment}: no rollout is under way", f"see headway status {app}")
        row = {"rollout_id": going[-1].id, "order": order.model_dump(mode="json"), "via": via, "given_at": self._now()}
        with writing(self._engine) as db:
            db.execute(t.orders.insert().values(row))
        return going[-1]

    def take_order(self, rollout_id: str) -> Order | None:
        """The oldest that nobody has taken, once."""
        open_ = (t.orders.c.rollout_id == rollout_id, t.orders.c.taken_at.is_(None))
        row = self._read_one(sa.select(t.orders).where(*open_).order_by(t.orders.c.id).limit(1))
        if row is None:
            return None
        with writing(self._engine) as db:
            db.execute(t.orders.update().where(t.orders.c.id == row["id"]).values(taken_at=self._now()))
        return Order.model_validate(row["order"])

    def record_measurement(self, rollout_id: str, position: int, reading: Measurements) -> None:
        """Raw readings are kept, so that a verdict can be looked at again."""
        row = {"rollout_id": rollout_id, "position": position, "reading": reading.model_dump(mode="json")}
        with writing(self._engine) as db:
            db.execute(t.measurements.insert().values(row))

    def measurements(self, rollout_id: str) -> list[tuple[int, Measurements]]:
        """(position of the step, reading) in the order they were made."""
        asked = sa.select(t.measurements).where(t.measurements.c.rollout_id == rollout_id).order_by(t.measurements.c.id)
        return [(row["position"], Measurements(**row["reading"])) for row in self._read(asked)]

    # --- approvals ---------------------------------------------------------------------------------------------

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
    ) -> ApprovalRecord:
        """Asked once for one revision: a run that comes back finds what was said meanwhile."""
        own = (
            t.approvals.c.release_id == release_id,
            t.approvals.c.environment == environment,
            t.approvals.c.revision == revision,
        )
        with writing(self._engine) as db:
            known = _one(db, sa.select(t.approvals).where(*own))
            if known:
                return _record(ApprovalRecord, known)
            row = {
                "id": _new_id(),
                "release_id": release_id,
                "environment": environment,
                "revision": revision,
                "state": "waiting",
                "evidence": evidence,
                "by": by,
                "not_author": not_author,
                "requested_at": self._now(),
                "expires_at": expires_at,
            }
            db.execute(t.approvals.insert().values(row))
        return self.approval(str(row["id"]))

    def approval(self, approval_id: str) -> ApprovalRecord:
        row = self._read_one(sa.select(t.approvals).where(t.approvals.c.id == approval_id))
        if row is None:
            raise NotFound(f"there is no approval {approval_id}", "see headway status")
        return _record(ApprovalRecord, row)

    def waiting_approval(self, release_id: str) -> ApprovalRecord | None:
        row = self._read_one(
            sa.select(t.approvals).where(t.approvals.c.release_id == release_id, t.approvals.c.state == "waiting")
        )
        return _record(ApprovalRecord, row) if row else None

    def decide(
        self, approval_id: str, decision: Literal["approved", "rejected"], *, by: str, reason: str, via: str
    ) -> ApprovalRecord:
        """A person's word. Raises HeadwayError when it comes too late, a second time, or from somebody who may not."""
        asked = self.approval(approval_id)
        if not by.strip():
            raise UsageError("an approval needs a name", "say who decides: --by NAME")
        if asked.by and not any(_same_person(by, one) for one in asked.by):
            raise UsageError(f"{by} may not decide on {asked.environment}", f"it is for: {', '.join(asked.by)}")
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
            what = f"{now.state} by {now.decided_by}" if now.decided_by else f"expired at {now.expires_at:%F %H:%M} UTC"
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

    def releases_with_expired_approval(self) -> list[ReleaseRecord]:
        """Those that wait still: their run has to be woken to find out."""
        late = sa.select(t.approvals.c.release_id).where(t.approvals.c.state == "expired")
        waits = sa.select(t.releases).where(t.releases.c.state == "waiting", t.releases.c.id.in_(late))
        return [_release(row) for row in self._read(waits.order_by(t.releases.c.started_at))]

    # --- locks and the queue before them -----------------------------------------------------------------------

    def acquire(self, app: str, environment: str, *, holder: str, revision: str, lease: float) -> Lock | None:
        """Become the one writer for `lease` seconds; None while somebody else is whose lease has not run out.

        The token is higher than any given before for this environment, whoever takes over: whatever still acts with an
        older one is refused (M. Kleppmann, How to do distributed locking, 2016).
        """
        now = self._now()
        own = (t.locks.c.app == app, t.locks.c.environment == environment)
        with writing(self._engine) as db:
            if self._engine.dialect.name == "postgresql":
                # Two first acquisitions of an environment have no row yet to fight over.
                db.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": f"{app}/{environment}"})
            row = _one(db, sa.select(t.locks).where(*own))
            if row and row["holder"] and row["expires_at"] > now:
                return None
            token = (row["token"] if row else 0) + 1
            held = {
                "holder": holder,
                "revision": revision,
                "token": token,
                "acquired_at": now,
                "expires_at": now + timedelta(seconds=lease),
            }
            if row:
                db.execute(t.locks.update().where(*own).values(held))
            else:
                db.execute(t.locks.insert().values({"app": app, "environment": environment} | held))
        return Lock(app=app, environment=environment, holder=holder, token=token, lease=lease)

    def renew(self, lock: Lock) -> None:
        """Another lease from now. Raises LockLost."""
        with writing(self._engine) as db:
            self._still_ours(db, lock.app, lock.environment, lock.token)
            own = (t.locks.c.app == lock.app, t.locks.c.environment == lock.environment)
            db.execute(t.locks.update().where(*own).values(expires_at=self._now() + timedelta(seconds=lock.lease)))

    def release_lock(self, lock: Lock) -> None:
        """Let go. A lock that somebody else took over is theirs, and stays."""
        own = (t.locks.c.app == lock.app, t.locks.c.environment == lock.environment, t.locks.c.token == lock.token)
        with writing(self._engine) as db:
            db.execute(t.locks.update().where(*own).values(holder=None, expires_at=None))

    def free_locks(self, holder: str) -> None:
        """Let go of all that a holder has whose run is known to be dead. Its token stays used: it cannot come back."""
        with writing(self._engine) as db:
            db.execute(
                t.locks.update().where(t.locks.c.holder == holder).values(holder=None, token=t.locks.c.token + 1)
            )

    def lock_holder(self, app: str, environment: str) -> LockRecord | None:
        row = self._read_one(
            sa.select(t.locks).where(
                t.locks.c.app == app, t.locks.c.environment == environment, t.locks.c.holder.is_not(None)
            )
        )
        return LockRecord(**row, expired=row["expires_at"] <= self._now()) if row else None

    def enqueue(self, release_id: str, app: str, environment: str) -> None:
        self.dequeue(release_id, app, environment)
        with writing(self._engine) as db:
            db.execute(t.queue.insert().values(release_id=release_id, app=app, environment=environment))

    def dequeue(self, release_id: str, app: str, environment: str) -> None:
        own = (t.queue.c.release_id == release_id, t.queue.c.app == app, t.queue.c.environment == environment)
        with writing(self._engine) as db:
            db.execute(t.queue.delete().where(*own))

    def superseded_by(self, release_id: str, app: str, environment: str) -> ReleaseRecord | None:
        """The newest release that waits for the same environment, when it is newer than this one."""
        row = self._read_one(
            sa.select(t.releases)
            .join(t.queue, t.queue.c.release_id == t.releases.c.id)
            .where(t.queue.c.app == app, t.queue.c.environment == environment, t.releases.c.state.in_(OPEN))
            .where(t.releases.c.number > self.release(release_id).number)
            .order_by(t.releases.c.number.desc())
            .limit(1)
        )
        return _release(row) if row else None

    def _still_ours(self, db: sa.Connection, app: str, environment: str, token: int) -> None:
        asked = sa.select(t.locks).where(t.locks.c.app == app, t.locks.c.environment == environment).with_for_update()
        row = _one(db, asked)
        if row is None or row["token"] != token or row["holder"] is None:
            by = row["holder"] if row and row["holder"] else "nobody"
            raise LockLost(
                f"{app} {environment}: our lock ran out, it is held by {by} now",
                "nothing more was changed by this run; the new holder goes on from what is live",
            )

    # --- what earlier releases know ----------------------------------------------------------------------------

    def check_passed(self, key: str) -> KnownCheck | None:
        row = self._read_one(
            sa.select(t.checks.c.report, t.releases.c.app, t.releases.c.number)
            .join(t.releases, t.releases.c.id == t.checks.c.release_id)
            .where(t.checks.c.key == key)
        )
        return KnownCheck(release=f"{row['app']}#{row['number']}", report=CheckReport(**row["report"])) if row else None

    def remember_check(self, key: str, release_id: str, report: CheckReport) -> None:
        """The first release in which it passed is the one that is named."""
        with writing(self._engine) as db:
            if not _one(db, sa.select(t.checks.c.key).where(t.checks.c.key == key)):
                row = {"key": key, "release_id": release_id, "report": report.model_dump(mode="json")}
                db.execute(t.checks.insert().values(row))

    def remember_coverage(self, release_id: str, check: str, coverage: Coverage) -> None:
        own = (t.coverages.c.release_id == release_id, t.coverages.c.check == check)
        with writing(self._engine) as db:
            db.execute(t.coverages.delete().where(*own))
            row = {"release_id": release_id, "check": check, "coverage": coverage.model_dump(mode="json")}
            db.execute(t.coverages.insert().values(row))

    def last_coverage(self, app: str, check: str) -> Coverage | None:
        """Of the last release that succeeded."""
        row = self._read_one(
            sa.select(t.coverages.c.coverage)
            .join(t.releases, t.releases.c.id == t.coverages.c.release_id)
            .where(t.releases.c.app == app, t.coverages.c.check == check, t.releases.c.state == "succeeded")
            .order_by(t.releases.c.number.desc())
            .limit(1)
        )
        return Coverage(**row["coverage"]) if row else None

    # -----------------------------------------------------------------------------------------------------------

    def _read(self, asked: sa.Select[Any]) -> list[sa.RowMapping]:
        with self._engine.connect() as db:
            return list(db.execute(asked).mappings())

    def _read_one(self, asked: sa.Select[Any]) -> sa.RowMapping | None:
        return next(iter(self._read(asked)), None)


def _one(db: sa.Connection, asked: sa.Select[Any]) -> sa.RowMapping | None:
    return db.execute(asked).mappings().first()


def _record(kind: type[Record], row: Row) -> Record:
    return kind(**{name: row[name] for name in kind.model_fields})


def _release(row: Row) -> ReleaseRecord:
    return _record(ReleaseRecord, row)


def _new_id() -> str:
    return secrets.token_hex(8)


def _same_person(one: str, other: str) -> bool:
    """Whether a name or mail is the same as, or part of, `Name <mail>`."""
    one, other = one.strip().casefold(), other.strip().casefold()
    parts = {other, *other.replace(">", "").split(" <")}
    return one in parts or bool({one, *one.replace(">", "").split(" <")} & parts)
