"""Input of every strategy."""

from __future__ import annotations

from pydantic import Field, model_validator

from headway.domain.base import Frozen
from headway.domain.plan import Analyze, AwaitReady, Drain, Launch, Promote, Retire, Route, Step
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Observation, Traffic

__all__ = ["Situation", "enough"]


def enough(spec: LaunchSpec, observation: Observation) -> int:
    """Number of instances that a revision starts with: with an autoscaler, as many as the serving revision has now."""
    if spec.autoscale is None:
        return spec.instances
    serving = [revision for revision, weight in observation.traffic.weights.items() if weight]
    now = max((len(observation.instances.get(revision, ())) for revision in serving), default=0)
    return max(spec.instances, min(now, spec.autoscale.max))


class Situation(Frozen):
    """Present state of an environment, and the revision that it is to run."""

    new: str
    old: str | None
    instances: int
    new_instances: int = Field(default=0, description="instances of the new revision that run already")
    old_instances: int = 0
    leftovers: tuple[str, ...] = ()
    live_already: bool = Field(
        default=False, description="the new revision is the one that serves: there is no old one"
    )
    startup: float
    drain: float

    @model_validator(mode="after")
    def _only_an_old_revision_has_old_instances(self) -> Situation:
        if self.old is None and self.old_instances:
            raise ValueError(f"{self.old_instances} instances of no old revision")
        return self

    @classmethod
    def of(
        cls,
        observation: Observation,
        new: Revision,
        *,
        stable: str | None,
        instances: int,
        startup: float,
        drain: float,
    ) -> Situation:
        """The situation for a rollout of `new`.

        The old revision is the one that serves, unless that is the new one. Every other running revision is a leftover
        and is retired at the end.
        """
        serving = _serving(observation, new.id, stable)
        old = None if serving == new.id else serving
        running = {revision: len(instances) for revision, instances in observation.instances.items() if instances}
        return cls(
            new=new.id,
            old=old,
            instances=instances,
            new_instances=running.get(new.id, 0),
            old_instances=running.get(old, 0) if old else 0,
            leftovers=tuple(sorted(running.keys() - {new.id, old})),
            live_already=serving == new.id,
            startup=startup,
            drain=drain,
        )

    @property
    def before(self) -> Traffic:
        """Traffic until the first Route."""
        return Traffic.all_to(self.old) if self.old else Traffic()

    def up(self, instances: int) -> tuple[Step, ...]:
        """Start that many instances of the new revision and wait until they are ready."""
        return (
            Launch(revision=self.new, instances=instances),
            AwaitReady(revision=self.new, instances=instances, deadline=self.startup),
        )

    def switch(self, analyze: Analyze | None = None, *then: Step) -> tuple[Step, ...]:
        """Route all traffic to the new revision, analyze it, then promote it: nothing is rolled back after that."""
        alone = analyze and analyze.model_copy(update={"against": None})  # no traffic to compare with
        judged = self.judged(alone)
        return (Route(traffic=Traffic.all_to(self.new)), *judged, *then, Promote(revision=self.new))

    def judged(self, analyze: Analyze | None) -> tuple[Step, ...]:
        """The analysis, if it has limits; a first release has no users to measure."""
        has_users = self.old is not None or self.live_already
        return (analyze,) if analyze is not None and analyze.limits and has_users else ()

    def down(self, *revisions: str | None) -> tuple[Step, ...]:
        """Drain and stop these revisions, and the leftovers of earlier rollouts."""
        steps: list[Step] = []
        for revision in (*revisions, *self.leftovers):
            if revision is not None:
                steps += [Drain(revision=revision, deadline=self.drain), Retire(revision=revision, drained=True)]
        return tuple(steps)


def _serving(observation: Observation, new: str, stable: str | None) -> str | None:
    """The revision with all traffic. Split traffic is left over from an interrupted rollout: then it is the ledger's
    `stable` revision, or else the one with the most traffic, but not the new one, which that rollout may have been for.
    """
    weights = {revision: weight for revision, weight in observation.traffic.weights.items() if weight}
    if observation.live is not None:
        return observation.live
    if stable in weights:
        return stable
    return max(weights.keys() - {new}, key=weights.__getitem__, default=None)
