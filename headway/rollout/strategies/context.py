"""What every strategy looks at before it makes its plan."""

from __future__ import annotations

from headway.domain.base import Frozen
from headway.domain.plan import Analyze, AwaitReady, Drain, Launch, Promote, Retire, Route, Step
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Observation, Traffic

__all__ = ["Situation", "enough"]


def enough(spec: LaunchSpec, observation: Observation) -> int:
    """How many instances a revision begins with: where an autoscaler decides, as many as one that serves has now."""
    if spec.autoscale is None:
        return spec.instances
    serving = [revision for revision, weight in observation.traffic.weights.items() if weight]
    now = max((len(observation.instances.get(revision, ())) for revision in serving), default=0)
    return max(spec.instances, min(now, spec.autoscale.max))


class Situation(Frozen):
    """Where an environment stands and where it is to go; the same for all strategies."""

    new: str
    old: str | None
    instances: int
    old_instances: int = 0
    leftovers: tuple[str, ...] = ()
    startup: float
    drain: float

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
        """What `observation` means for a rollout of `new`.

        The revision that all traffic goes to is the old one; when traffic is split, a rollout was left half-way, and
        the ledger's `stable` revision is. Whatever else is running is left over and retired at the end.
        """
        weights = observation.traffic.weights
        old = observation.live or (stable if stable in weights else max(weights, key=weights.__getitem__, default=None))
        running = {revision: len(instances) for revision, instances in observation.instances.items() if instances}
        return cls(
            new=new.id,
            old=None if old == new.id else old,
            instances=instances,
            old_instances=running.get(old, 0) if old else 0,
            leftovers=tuple(sorted(running.keys() - {new.id, old})),
            startup=startup,
            drain=drain,
        )

    @property
    def before(self) -> Traffic:
        """What is in force until something is switched."""
        return Traffic.all_to(self.old) if self.old else Traffic()

    def up(self, instances: int) -> tuple[Step, ...]:
        """Have that many instances of the new revision ready."""
        return (
            Launch(revision=self.new, instances=instances),
            AwaitReady(revision=self.new, instances=instances, deadline=self.startup),
        )

    def switch(self, analyze: Analyze | None = None, *then: Step) -> tuple[Step, ...]:
        """All traffic to the new revision, watched: the point of no return lies behind it."""
        alone = analyze and analyze.model_copy(update={"against": None})  # the old one has no traffic to compare with
        judged = self.judged(alone)
        return (Route(traffic=Traffic.all_to(self.new)), *judged, *then, Promote(revision=self.new))

    def judged(self, analyze: Analyze | None) -> tuple[Step, ...]:
        """Nothing was live before the first release, so nobody is there to be watched."""
        return (analyze,) if analyze is not None and analyze.limits and self.old is not None else ()

    def down(self, *revisions: str | None) -> tuple[Step, ...]:
        """Drain and stop these revisions, and whatever earlier rollouts left behind."""
        steps: list[Step] = []
        for revision in (*revisions, *self.leftovers):
            if revision is not None:
                steps += [Drain(revision=revision, deadline=self.drain), Retire(revision=revision, drained=True)]
        return tuple(steps)
