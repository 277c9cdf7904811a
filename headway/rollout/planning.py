"""Plans for a target: from what it runs now to the revision that is wanted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from headway.config import Environment
from headway.domain.errors import UsageError
from headway.domain.plan import Analyze, Plan, Step
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Capability, Instance, Observation, Traffic
from headway.rollout import strategies
from headway.rollout.little_traffic import little_traffic

__all__ = ["PlannedRollout", "plan_back", "plan_for", "plan_without_target", "require_supported"]

BY_ANSWERS = "the answers of its instances to the synthetic requests"


@dataclass(frozen=True)
class PlannedRollout:
    """A plan that the target supports, and the target's remarks on it."""

    plan: Plan
    remarks: Sequence[str]


def plan_for(
    target: Target, environment: Environment, revision: Revision, spec: LaunchSpec, *, stable: str | None
) -> PlannedRollout:
    """Plan the rollout of a revision. `stable` is the id of the live revision, as the ledger knows it.

    Raises UsageError when the target cannot do what the strategy needs, or count what an analysis judges.
    """
    observation = target.observe(revision.app)
    plan = strategies.plan(environment, observation, revision, spec, stable=stable, capabilities=target.capabilities)
    plan = plan.model_copy(
        update={
            "steps": tuple(
                _counted(target, spec.environment, spec.target, _with_instances(spec, step)) for step in plan.steps
            )
        }
    )
    target.check(revision.app, plan)
    remarks = target.remarks(revision.app, plan)
    if plan.old == plan.new:
        remarks = (f"{plan.new} is live already: none of its instances is replaced", *remarks)
    if little := little_traffic(target, revision.app, plan):
        remarks = (*remarks, little)
    return PlannedRollout(plan, remarks)


def require_supported(target: Target, environment: Environment, name: str) -> None:
    """Raise UsageError when the target cannot carry out the strategy of the environment `name`. Reads no platform."""
    strategies.require_capabilities(environment, name, environment.instances.min, target.capabilities)
    for analysis in environment.strategy.analyses:
        _counted(target, name, environment.target, analysis.step("new", "stable"))


def _with_instances(spec: LaunchSpec, step: Step) -> Step:
    """The step with what it has to know of the app's instances, if it is an analysis."""
    if not isinstance(step, Analyze):
        return step
    at_least = spec.autoscale.min if spec.autoscale else None
    return step.model_copy(update={"startup": spec.health.startup, "at_least": at_least})


def _counted(target: Target, environment: str, slug: str, step: Step) -> Step:
    """The step with the source of its request counts, if it is an analysis. Raises UsageError when there is none."""
    if not isinstance(step, Analyze) or not step.needs_counts:
        return step
    if Capability.METRICS in target.capabilities:
        return step.model_copy(update={"counted_by": target.counted_by})
    if step.synthetic and target.sends_requests:
        return step.model_copy(update={"counted_by": BY_ANSWERS})
    declare = "declare synthetic requests in the analysis, " if target.sends_requests else ""
    raise UsageError(
        f"environments/{environment}/strategy: target {slug} counts no requests of users, and an analysis "
        "is judged by counted requests",
        f"{declare}give the target something that counts, judge by metrics of a metric source alone, or leave the "
        "analysis out",
    )


def plan_without_target(
    capabilities: Collection[Capability],
    environment: Environment,
    revision: Revision,
    spec: LaunchSpec,
    live: tuple[Revision, LaunchSpec] | None,
) -> Plan:
    """Plan the rollout of a revision as if the target ran what the ledger says, and nothing else.

    Raises UsageError when a target with these capabilities cannot do what the strategy needs.
    """
    stable = live[0].id if live else None
    running = [
        Instance(name=f"{stable}-{number}", address="", ready=True)
        for number in range(live[1].instances if live else 0)
    ]
    observation = Observation(
        app=revision.app,
        url=None,
        traffic=Traffic.all_to(stable) if stable else Traffic(),
        instances={stable: tuple(running)} if stable else {},
    )
    return strategies.plan(environment, observation, revision, spec, stable=stable, capabilities=capabilities)


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
