"""Thresholds: a revision's own figures against absolute limits."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from headway.domain.base import Frozen
from headway.domain.measurements import RequestCounts, Verdict
from headway.domain.plan import Condition

__all__ = ["Judgement", "judge"]

COMPARE = {">=": operator.ge, "<=": operator.le}


class Judgement(Frozen):
    """A verdict and the figures it is based on, in one line."""

    verdict: Verdict
    evidence: str


def judge(conditions: Iterable[Condition], counts: RequestCounts, min_requests: int) -> Judgement:
    """Judge one window of one revision.

    Fewer than `min_requests` requests, or a figure that was not measured, is inconclusive: no data is never a pass.
    Otherwise any condition that does not hold is a fail.
    """
    figures: dict[str, float | None] = {"success_rate": None, "p50": counts.quantile(0.5), "p99": counts.quantile(0.99)}
    if counts.requests:
        figures["success_rate"] = 100.0 * (counts.requests - counts.errors) / counts.requests
    counted = f"{counts.requests} requests, {counts.errors} errors"
    if counts.requests < max(1, min_requests):
        return Judgement(
            verdict=Verdict.INCONCLUSIVE, evidence=f"{counted}: fewer than the {min_requests} it takes to judge"
        )
    missing = [c.metric for c in conditions if figures[c.metric] is None]
    if missing:
        return Judgement(verdict=Verdict.INCONCLUSIVE, evidence=f"{counted}: no measurement of {', '.join(missing)}")
    broken = [
        f"{c} does not hold: {_show(c, figures[c.metric])}" for c in conditions if not _holds(c, figures[c.metric])
    ]
    if broken:
        return Judgement(verdict=Verdict.FAIL, evidence=f"{'; '.join(broken)} ({counted})")
    held = ", ".join(f"{c.metric} {_show(c, figures[c.metric])}" for c in conditions)
    return Judgement(verdict=Verdict.PASS, evidence=f"{held} ({counted})" if held else counted)


def _holds(condition: Condition, figure: float | None) -> bool:
    return figure is not None and bool(COMPARE[condition.op](figure, condition.limit))


def _show(condition: Condition, figure: float | None) -> str:
    if figure is None:
        return "not measured"
    return f"{figure:.2f} %" if condition.metric == "success_rate" else f"{figure * 1000:.0f} ms"
