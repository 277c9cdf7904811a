"""Revisions, rollouts and their journal: steps, readings, orders. Every word of the journal checks the lock."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.errors import NotFound
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import OperatorCommand, Plan, Step
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import schema as t
from headway.ledger.base import new_id, record
from headway.ledger.database import writing
from headway.ledger.locks import Locks
from headway.ledger.records import RolloutKind, RolloutRecord, RolloutState, StepRecord, Users

__all__ = ["Rollouts"]


class Rollouts(Locks):
    """One change of one environment each, forwards or back."""

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

    def targets_of(self, app: str, environment: str) -> list[str]:
        """Every target that a rollout was ever begun on there. What was only meant to go somewhere is not counted: it
        may be nowhere.
        """
        here = (t.rollouts.c.app == app, t.rollouts.c.environment == environment)
        begun = {rollout.plan.new for rollout in self._rollouts(*here)} - {""}
        return sorted({self.revision(app, one, environment=environment)[1].target for one in begun})

    def longest_drain(self, app: str, environment: str) -> float:
        """Of all that was ever brought there, in seconds."""
        return max((spec.drain for spec in self._specs(app, environment)), default=0.0)

    def _specs(self, app: str, environment: str) -> list[LaunchSpec]:
        column = t.revisions.c
        asked = sa.select(column.spec).where(column.app == app, column.environment == environment)
        return [LaunchSpec(**row["spec"]) for row in self._read(asked)]

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
        self, rollout: RolloutRecord, position: int, outcome: str, detail: str, users: RequestCounts | None, token: int
    ) -> None:
        """The word after the deed, and what users were answered meanwhile. Raises LockLost."""
        seen: dict[str, object] = {}
        if users is not None:
            worst = users.latency[-1].upper if users.latency else None
            gone = users.unanswered
            seen = {"requests": users.requests + gone, "failed": users.errors + gone, "worst": worst}
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

    def ways_back(self, app: str, limit: int = 20) -> list[RolloutRecord]:
        """Those that belong to no release: somebody asked for them. The newest first."""
        asked = sa.select(t.rollouts).where(t.rollouts.c.app == app, t.rollouts.c.release_id.is_(None))
        newest = asked.order_by(t.rollouts.c.started_at.desc()).limit(limit)
        return [record(RolloutRecord, row) for row in self._read(newest)]

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
        """Artifacts of open releases, of contracts that are still to come, and of the last so many rollouts of every
        environment, the live one among them. Nobody goes back to what a preview was that is gone.
        """
        digests = {release.digest for release in self.open_releases() if release.digest}
        waits = sa.select(t.schema_changes).where(t.schema_changes.c.state == "waiting")
        for row in self._read(waits):
            digests.add(self.revision(row["app"], row["revision"], environment=row["environment"])[0].digest)
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
        return [record(RolloutRecord, row) for row in self._read(newest)]

    def _rollouts(self, *wanted: sa.ColumnElement[bool]) -> list[RolloutRecord]:
        asked = sa.select(t.rollouts).where(*wanted).order_by(t.rollouts.c.started_at, t.rollouts.c.sequence)
        return [record(RolloutRecord, row) for row in self._read(asked)]

    def give_order(self, app: str, environment: str, order: OperatorCommand, *, via: str) -> RolloutRecord:
        """For the rollout that is under way. Raises NotFound when there is none."""
        going = [one for one in self.unfinished_rollouts(app, environment) if one.kind == "release"]
        if not going:
            raise NotFound(f"{app} {environment}: no rollout is under way", f"see headway status {app}")
        steps = self.steps(going[-1].id)
        order = order.model_copy(update={"position": steps[-1].position if steps else None})
        row = {"rollout_id": going[-1].id, "order": order.model_dump(mode="json"), "via": via, "given_at": self._now()}
        with writing(self._engine) as db:
            db.execute(t.orders.insert().values(row))
        return going[-1]

    def take_order(self, rollout_id: str) -> OperatorCommand | None:
        """The oldest that nobody has taken, once."""
        open_ = (t.orders.c.rollout_id == rollout_id, t.orders.c.taken_at.is_(None))
        row = self._read_one(sa.select(t.orders).where(*open_).order_by(t.orders.c.id).limit(1))
        if row is None:
            return None
        with writing(self._engine) as db:
            db.execute(t.orders.update().where(t.orders.c.id == row["id"]).values(taken_at=self._now()))
        return OperatorCommand.model_validate(row["order"])

    def record_measurement(self, rollout_id: str, position: int, reading: Measurements) -> None:
        """Raw readings are kept, so that a verdict can be looked at again."""
        row = {"rollout_id": rollout_id, "position": position, "reading": reading.model_dump(mode="json")}
        with writing(self._engine) as db:
            db.execute(t.measurements.insert().values(row))

    def last_measurement(self, rollout_id: str) -> Measurements | None:
        """The newest reading alone: on the way back nobody waits for thousands of others."""
        asked = sa.select(t.measurements).where(t.measurements.c.rollout_id == rollout_id)
        row = self._read_one(asked.order_by(t.measurements.c.id.desc()).limit(1))
        return Measurements.model_validate(row["reading"]) if row else None

    def measurements(self, rollout_id: str) -> list[tuple[int, Measurements]]:
        """(position of the step, reading) in the order they were made."""
        asked = sa.select(t.measurements).where(t.measurements.c.rollout_id == rollout_id).order_by(t.measurements.c.id)
        return [(row["position"], Measurements(**row["reading"])) for row in self._read(asked)]
