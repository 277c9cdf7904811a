"""`headway judge`: the verdicts of a release again, from the readings in the ledger, also with other limits."""

from __future__ import annotations

from pydantic import ValidationError

from headway.cli.output import output
from headway.config import CanaryAnalysis
from headway.domain.errors import NotFound, UsageError
from headway.domain.plan import Analyze
from headway.ledger import Ledger, RolloutRecord
from headway.rollout.analysis import Replayed, replay
from headway.system.paths import ledger_url

__all__ = ["judge"]


def judge(text: str, limits: dict[str, str]) -> None:
    """Raises NotFound when nothing was analysed, UsageError when a limit cannot be read."""
    wanted = _wanted(limits)
    with Ledger.open(ledger_url()) as ledger:
        release = ledger.find_release(text)
        rollouts = [rollout for rollout in ledger.rollouts_of(release.id) if rollout.kind == "release"]
        found = [(rollout, _replayed(ledger, rollout, wanted)) for rollout in rollouts]
    if not any(verdicts for _, verdicts in found):
        raise NotFound(f"{release.name}: nothing was analysed", "an analysis is asked for under strategy, headway.yaml")
    for rollout, verdicts in found:
        for each in verdicts:
            output.say(
                f"{rollout.environment}: {each.step}\n"
                f"  {each.judgement.verdict.value} after {each.seconds:.1f} s and {each.looks} looks: "
                f"{each.judgement.evidence}"
            )
    output.result(
        {
            "release": release.name,
            "analyses": [
                {"environment": rollout.environment, **each.model_dump(mode="json")}
                for rollout, verdicts in found
                for each in verdicts
            ],
        }
    )


def _wanted(limits: dict[str, str]) -> CanaryAnalysis | None:
    """Limits as headway.yaml writes them; None: those of the release."""
    if not limits:
        return None
    try:
        return CanaryAnalysis.model_validate(limits)
    except ValidationError as error:
        fault = error.errors()[0]
        option = "--" + "-".join(map(str, fault["loc"])).replace("_", "-")
        raise UsageError(f"{option}: {fault['msg'].removeprefix('Value error, ')}", 'as in ">= 99.5", 1%') from error


def _replayed(ledger: Ledger, rollout: RolloutRecord, wanted: CanaryAnalysis | None) -> list[Replayed]:
    readings = ledger.measurements(rollout.id)
    return replay(
        [
            (_with(step, wanted, rollout.plan.old), [reading for at, reading in readings if at == position])
            for position, step in enumerate(rollout.plan.steps)
            if isinstance(step, Analyze) and any(at == position for at, _ in readings)
        ]
    )


def _with(step: Analyze, wanted: CanaryAnalysis | None, stable: str | None) -> Analyze:
    if wanted is None:
        return step
    against = wanted.against(stable) if stable is not None else None
    return step.model_copy(update={"conditions": wanted.conditions, "against": against})
