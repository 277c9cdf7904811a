"""Strategies: pure functions from where an environment stands to a Plan. A new strategy is one file here."""

from __future__ import annotations

from collections.abc import Collection

from headway import settings
from headway.errors import UsageError
from headway.model import Capability, LaunchSpec, Observation, Plan, Revision
from headway.strategies.blue_green import blue_green
from headway.strategies.canary import canary
from headway.strategies.recreate import recreate
from headway.strategies.rollback import rollback
from headway.strategies.rolling import rolling
from headway.strategies.situation import Situation, Watch

__all__ = ["Situation", "Watch", "blue_green", "canary", "plan", "recreate", "rollback", "rolling"]

NEEDS = {
    "recreate": frozenset[Capability](),
    "rolling": frozenset({Capability.INSTANCES, Capability.WEIGHTED_ROUTING}),
    "blue_green": frozenset({Capability.ATOMIC_SWITCH}),
    "canary": frozenset({Capability.WEIGHTED_ROUTING}),
}


def plan(
    environment: settings.Environment,
    observation: Observation,
    revision: Revision,
    spec: LaunchSpec,
    *,
    stable: str | None,
    capabilities: Collection[Capability],
) -> Plan:
    """The steps that bring `revision` into an environment that looks like `observation`.

    Raises UsageError when the target cannot do what the strategy needs.
    """
    chosen = environment.strategy
    analysis = getattr(chosen, "analysis", None)
    _possible(chosen.kind, spec, capabilities, judged=analysis is not None)
    at = Situation.of(
        observation,
        revision,
        stable=stable,
        instances=spec.instances,
        startup=spec.health.startup,
        drain=spec.drain,
        watch=analysis and _watch(analysis),
    )
    match chosen:
        case settings.Recreate():
            return recreate(at)
        case settings.Rolling():
            return rolling(
                at, max_surge=chosen.surge(spec.instances), max_unavailable=chosen.unavailable(spec.instances)
            )
        case settings.BlueGreen():
            return blue_green(at, scale_down_delay=chosen.scale_down_delay)
        case settings.Canary():
            return canary(at, steps=[(step.weight, step.pause) for step in chosen.steps])


def _watch(analysis: settings.Analysis) -> Watch:
    watch = Watch(window=analysis.window, conditions=analysis.conditions, min_requests=analysis.min_requests)
    if isinstance(analysis, settings.CanaryAnalysis) and analysis.false_rollback is not None:
        shares = {"budget": analysis.false_rollback / 100, "ignore_below": analysis.ignore_below / 100}
        return watch.model_copy(update=shares)
    return watch


def _possible(strategy: str, spec: LaunchSpec, capabilities: Collection[Capability], *, judged: bool) -> None:
    needed = NEEDS[strategy] | ({Capability.METRICS} if judged else set())
    missing = needed - set(capabilities)
    if missing:
        raise UsageError(
            f"environments/{spec.environment}/strategy: {strategy} needs {_names(missing)}; "
            f"target {spec.target} has: {_names(capabilities)}",
            f"choose one of: {', '.join(name for name, needs in NEEDS.items() if needs <= set(capabilities))}",
        )


def _names(capabilities: Collection[Capability]) -> str:
    return ", ".join(sorted(capability.value for capability in capabilities)) or "nothing"
