"""`headway judge`: replay the analyses of a release from the readings in the ledger."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from headway.cli.help_text import examples
from headway.cli.options import Json, ReleaseArgument
from headway.cli.output import output
from headway.config import CanaryAnalysis
from headway.domain.errors import NotFound, UsageError
from headway.domain.plan import Analyze
from headway.ledger import Ledger, RolloutRecord
from headway.rollout.analysis import Replayed, replay
from headway.system.paths import ledger_url

__all__ = ["judge"]


@examples(
    "headway judge shop#14",
    'headway judge shop#14 --success-rate ">= 99.9"    # with another limit',
)
def judge(
    run: ReleaseArgument,
    success_rate: Annotated[str, typer.Option(help='Limit of successful responses, such as ">= 99.5"')] = "",
    p50: Annotated[str, typer.Option(help='Limit of the median latency, such as "<= 100ms"')] = "",
    p99: Annotated[str, typer.Option(help='Limit of the 99th percentile of latency, such as "<= 500ms"')] = "",
    false_rollback: Annotated[
        str,
        typer.Option(help="Compare with the stable version, with this probability of a false rollback, such as 1%"),
    ] = "",
    ignore_below: Annotated[str, typer.Option(help="Error rate that is never worse, such as 0.1%")] = "",
    ignore_slower: Annotated[str, typer.Option(help="Relative slowdown that is never worse, such as 25%")] = "",
    _json: Json = False,
) -> None:
    """Repeat the analyses of a release from its recorded readings.

    Without options the limits are those of the release. With any option, only the given limits apply.
    """
    limits = {
        "success_rate": success_rate,
        "p50": p50,
        "p99": p99,
        "false_rollback": false_rollback,
        "ignore_below": ignore_below,
        "ignore_slower": ignore_slower,
    }
    analysis = _analysis({name: limit for name, limit in limits.items() if limit})
    with Ledger.open(ledger_url()) as ledger:
        release = ledger.releases.find(run)
        rollouts = [rollout for rollout in ledger.rollouts.by_release(release.id) if rollout.kind == "release"]
        found = [(rollout, _replayed(ledger, rollout, analysis)) for rollout in rollouts]
    if not any(verdicts for _, verdicts in found):
        raise NotFound(f"{release.name}: has no analysis", "configure one under strategy in headway.yaml")
    for rollout, verdicts in found:
        for each in verdicts:
            output.say(
                f"{rollout.environment}: {each.step}\n"
                f"  {each.judgement.verdict.value} after {each.seconds:.1f} s and {each.looks} evaluations: "
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


def _analysis(limits: dict[str, str]) -> CanaryAnalysis | None:
    """The analysis with these limits, written as in headway.yaml; None for those of the release."""
    if not limits:
        return None
    try:
        return CanaryAnalysis.model_validate(limits)
    except ValidationError as error:
        fault = error.errors()[0]
        option = "--" + "-".join(map(str, fault["loc"])).replace("_", "-")
        raise UsageError(f"{option}: {fault['msg'].removeprefix('Value error, ')}", 'as in ">= 99.5", 1%') from error


def _replayed(ledger: Ledger, rollout: RolloutRecord, analysis: CanaryAnalysis | None) -> list[Replayed]:
    readings = ledger.readings.by_rollout(rollout.id)
    return replay(
        [
            (_with(step, analysis, rollout.plan.replaced), [reading for at, reading in readings if at == position])
            for position, step in enumerate(rollout.plan.steps)
            if isinstance(step, Analyze) and any(at == position for at, _ in readings)
        ]
    )


def _with(step: Analyze, analysis: CanaryAnalysis | None, stable: str | None) -> Analyze:
    if analysis is None:
        return step
    against = analysis.against(stable) if stable is not None else None
    return step.model_copy(update={"conditions": analysis.conditions, "against": against})
