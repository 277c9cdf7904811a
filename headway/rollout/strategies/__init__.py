"""Strategies: pure functions from the state of an environment to a Plan. A new strategy is one file here."""

from __future__ import annotations

from collections.abc import Collection

from headway import config
from headway.domain.errors import UsageError
from headway.domain.plan import Analyze, Gate, Pause, Plan
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Capability, Observation
from headway.rollout.strategies.blue_green import blue_green
from headway.rollout.strategies.canary import Share, canary
from headway.rollout.strategies.context import Situation, enough
from headway.rollout.strategies.recreate import recreate
from headway.rollout.strategies.rollback import rollback
from headway.rollout.strategies.rolling import rolling
from headway.rollout.strategies.unchanged import unchanged

__all__ = [
    "FOREVER",
    "TEARDOWN",
    "Share",
    "Situation",
    "blue_green",
    "canary",
    "enough",
    "plan",
    "possible",
    "recreate",
    "require_capabilities",
    "rollback",
    "rolling",
    "unchanged",
]

TEARDOWN = "teardown"
"""Name of the plan that removes everything. It can be repeated after an interruption."""
FOREVER = 7 * 24 * 3600.0  # seconds; without a decision by then the rollout is rolled back

NEEDS = {
    "recreate": frozenset[Capability](),
    "rolling": frozenset({Capability.INSTANCES, Capability.WEIGHTED_ROUTING}),
    "blue_green": frozenset({Capability.ATOMIC_SWITCH}),
    "canary": frozenset({Capability.WEIGHTED_ROUTING}),
}


def plan(
    environment: config.Environment,
    observation: Observation,
    revision: Revision,
    spec: LaunchSpec,
    *,
    stable: str | None,
    capabilities: Collection[Capability],
) -> Plan:
    """The steps that bring `revision` into an environment in the state `observation`.

    Raises UsageError when the target cannot do what the strategy needs.
    """
    chosen = environment.strategy
    require_capabilities(environment, spec.environment, spec.instances, capabilities)
    at = Situation.of(
        observation,
        revision,
        stable=stable,
        instances=enough(spec, observation),
        startup=spec.health.startup,
        drain=spec.drain,
    )

    if at.live_already:
        unaccepted = _after_switch(chosen) if revision.id != stable else None
        return unchanged(
            at,
            strategy=chosen.kind,
            scale_down=spec.autoscale is None,
            analyze=unaccepted.step(at.new, stable) if unaccepted else None,
        )

    def analyze(analysis: config.Analysis | None, *, preview: bool = False) -> Analyze | None:
        return analysis.step(at.new, at.old, preview=preview) if analysis else None

    match chosen:
        case config.Recreate():
            return recreate(at)
        case config.Rolling():
            return rolling(
                at,
                max_surge=chosen.surge(at.instances),
                max_unavailable=chosen.unavailable(at.instances),
                analyze=analyze(chosen.analysis),
            )
        case config.BlueGreen():
            return blue_green(
                at,
                keep_warm=chosen.scale_down_delay > 0,
                preview=Capability.PREVIEW in capabilities,
                verify=tuple(probe.data for probe in environment.smoke),
                pre_promotion=analyze(chosen.pre_promotion, preview=True),
                gate=None if chosen.auto_promotion else Gate(asks="promote it?", deadline=FOREVER),
                rehearse=chosen.rehearse,
                post_promotion=analyze(chosen.post_promotion),
            )
        case config.Canary():
            return canary(
                at,
                shares=[
                    Share(
                        weight=step.weight,
                        then=_then(step),
                        analyze=analyze(chosen.analysis_at(step)),
                        headers=tuple(step.header.items()),
                    )
                    for step in chosen.steps
                ],
                sticky=chosen.sticky,
                rehearse=chosen.rehearse,
            )


def _after_switch(chosen: config.Strategy) -> config.Analysis | None:
    """The analysis of a revision that has all the traffic."""
    match chosen:
        case config.Rolling():
            return chosen.analysis
        case config.BlueGreen():
            return chosen.post_promotion
        case config.Canary():
            return chosen.analysis_at(chosen.steps[-1])
        case _:
            return None


def _then(step: config.CanaryStep) -> Pause | Gate | None:
    if step.pause == "forever":
        return Gate(asks=f"go on from {step.weight} %?", deadline=FOREVER)
    return Pause(seconds=step.pause) if step.pause else None


def require_capabilities(
    environment: config.Environment, name: str, instances: int, capabilities: Collection[Capability]
) -> None:
    """Raise UsageError when a target with these capabilities cannot do what the environment `name` needs."""
    chosen, target = environment.strategy, environment.target
    if instances > 1 and Capability.INSTANCES not in capabilities:
        raise UsageError(
            f"environments/{name}/instances: target {target} sets the number of instances itself",
            "leave instances out, and scale it on the platform",
        )
    needed = NEEDS[chosen.kind] | chosen.needs
    missing = needed - set(capabilities)
    if missing:
        raise UsageError(
            f"environments/{name}/strategy: {chosen.kind} needs {_names(missing)}; "
            f"target {target} has: {_names(capabilities)}",
            f"choose one of: {', '.join(possible(capabilities))}",
        )


def possible(capabilities: Collection[Capability]) -> list[str]:
    """Strategies that these capabilities suffice for."""
    return [name for name, needs in NEEDS.items() if needs <= set(capabilities)]


def _names(capabilities: Collection[Capability]) -> str:
    return ", ".join(sorted(capability.value for capability in capabilities)) or "nothing"
