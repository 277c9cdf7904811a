"""Plans for a target: from what it runs now to the revision that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headway.config import Environment
from headway.domain.plan import Plan
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision
from headway.rollout import strategies

__all__ = ["PlannedRollout", "plan_back", "plan_for"]


@dataclass(frozen=True)
class PlannedRollout:
    """A plan that the target supports, and the target's remarks on it."""

    plan: Plan
    remarks: Sequence[str]


def plan_for(
    target: Target, environment: Environment, revision: Revision, spec: LaunchSpec, *, stable: str | None
) -> PlannedRollout:
    """Plan the rollout of a revision. `stable` is the id of the live revision, as the ledger knows it.

    Raises UsageError when the target cannot do what the strategy needs.
    """
    observation = target.observe(revision.app)
    plan = strategies.plan(environment, observation, revision, spec, stable=stable, capabilities=target.capabilities)
    target.check(revision.app, plan)
    return PlannedRollout(plan, target.remarks(revision.app, plan))


def plan_back(target: Target, app: str, revision: Revision | None, spec: LaunchSpec) -> Plan:
    """Plan the rollback to a revision, or to nothing for None. `spec` has the size and deadlines."""
    observation = target.observe(app)
    return strategies.rollback(
        observation,
        revision.id if revision else None,
        instances=strategies.enough(spec, observation),
        startup=spec.health.startup,
        drain=spec.drain,
    )
