"""Blue-green: the new revision runs without traffic and is verified in the preview, then one atomic switch."""

from __future__ import annotations

from headway.domain.plan import Analyze, Gate, Plan, Probe, Rehearse, Route, Step, Verify
from headway.rollout.strategies.context import Situation

__all__ = ["blue_green"]

LOW = 5  # percent of the traffic that the new revision gets during a rehearsal


def blue_green(
    at: Situation,
    *,
    keep_warm: bool,
    preview: bool,
    verify: tuple[Probe, ...] = (),
    pre_promotion: Analyze | None = None,
    gate: Gate | None = None,
    rehearse: float | None = None,
    post_promotion: Analyze | None = None,
) -> Plan:
    """Launch beside the old revision, verify through the preview, then switch all traffic at once.

    With `keep_warm` the old revision is left running: until it is retired, a rollback is one switch. `rehearse` is the
    time in seconds that the rollback may take.
    """
    before = at.before.model_copy(update={"preview": at.new}) if preview else at.before
    steps: list[Step] = [*at.up(at.instances)]
    if preview:
        steps.append(Route(traffic=before))
        steps += [Verify(revision=at.new, probes=verify)] if verify else []
        steps += at.judged(pre_promotion)
    if rehearse is not None and at.old is not None:
        low = before.model_copy(update={"weights": {at.new: LOW, at.old: 100 - LOW}})
        steps.append(Rehearse(low=low, back=before, within=rehearse))
    steps += [gate] if gate and at.old else []
    down = at.down() if keep_warm else at.down(at.old)
    return Plan(strategy="blue_green", new=at.new, old=at.old, steps=(*steps, *at.switch(post_promotion), *down))
