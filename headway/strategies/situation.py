"""What every strategy looks at before it makes its plan."""

from __future__ import annotations

from headway.model import (
    Analyze,
    AwaitReady,
    Comparison,
    Condition,
    Drain,
    Frozen,
    Launch,
    Observation,
    Promote,
    Retire,
    Revision,
    Route,
    Step,
    Traffic,
)

__all__ = ["Situation", "Watch"]


class Watch(Frozen):
    """How a revision is judged while it takes traffic. `window` in seconds."""

    window: float
    conditions: tuple[Condition, ...]
    min_requests: int
    budget: float | None = None
    ignore_below: float = 0.0


class Situation(Frozen):
    """Where an environment stands and where it is to go; the same for all strategies."""

    new: str
    old: str | None
    instances: int
    old_instances: int = 0
    leftovers: tuple[str, ...] = ()
    startup: float
    drain: float
    watch: Watch | None = None

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
        watch: Watch | None = None,
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
            watch=watch,
        )

    def up(self, instances: int) -> tuple[Step, ...]:
        """Have that many instances of the new revision ready."""
        return (
            Launch(revision=self.new, instances=instances),
            AwaitReady(revision=self.new, instances=instances, deadline=self.startup),
        )

    def switch(self) -> tuple[Step, ...]:
        """All traffic to the new revision, watched: the point of no return lies behind it."""
        return (Route(traffic=Traffic.all_to(self.new)), *self.analysis(), Promote(revision=self.new))

    def analysis(self, *, shared: bool = False) -> tuple[Step, ...]:
        """Nothing was live before the first release, so nobody is there to be watched.

        While traffic is `shared` with the old revision the two are compared.
        """
        if self.watch is None or self.old is None:
            return ()
        against = None
        if shared and self.watch.budget is not None:
            against = Comparison(stable=self.old, budget=self.watch.budget, ignore_below=self.watch.ignore_below)
        if not self.watch.conditions and against is None:
            return ()
        return (
            Analyze(
                revision=self.new,
                window=self.watch.window,
                conditions=self.watch.conditions,
                min_requests=self.watch.min_requests,
                against=against,
            ),
        )

    def down(self, *revisions: str | None) -> tuple[Step, ...]:
        """Drain and stop these revisions, and whatever earlier rollouts left behind."""
        steps: list[Step] = []
        for revision in (*revisions, *self.leftovers):
            if revision is not None:
                steps += [Drain(revision=revision, deadline=self.drain), Retire(revision=revision)]
        return tuple(steps)
