"""Unchanged: the revision that is to be rolled out is live already. The same plan for every strategy."""

from __future__ import annotations

from headway.domain.plan import Analyze, Plan, Retire, Step
from headway.rollout.strategies.context import Situation

__all__ = ["unchanged"]


def unchanged(at: Situation, *, strategy: str, scale_down: bool, analyze: Analyze | None = None) -> Plan:
    """Replace no instance: start those that are missing, route all traffic to them, and stop what is left over.

    With `scale_down`, instances beyond the wanted number are stopped. `analyze` judges a revision that got all the
    traffic from a rollout that was interrupted before it was accepted. A rollback returns to the same revision.
    """
    surplus: tuple[Step, ...] = ()
    if scale_down and at.new_instances > at.instances:
        surplus = (Retire(revision=at.new, keep=at.instances),)
    steps = (*at.up(at.instances), *at.switch(analyze), *surplus, *at.down())
    return Plan(strategy=strategy, new=at.new, old=at.new, steps=steps)
