"""One verdict from a revision's own figures, business metrics and the comparison with the stable revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headway.domain.base import Frozen
from headway.domain.measurements import Measurements, RequestCounts, Verdict
from headway.domain.plan import Analyze
from headway.rollout.analysis.instance_health import steadiness
from headway.rollout.analysis.metric_limits import metric
from headway.rollout.analysis.sequential_test import Tally
from headway.rollout.analysis.thresholds import Judgement, judge

__all__ = ["Replayed", "evaluate", "replay"]

# The worst verdict counts: a fail counts whatever else is unknown, and a check without a verdict is no pass.
WORST_FIRST = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASS)


def evaluate(tally: Tally, step: Analyze, readings: Sequence[Measurements]) -> tuple[Tally, Judgement]:
    """Evaluate the last of `readings`.

    It counts the revision's own figures since the first reading, and both revisions' requests since the one before.

    Worse than the stable revision is a fail, with however few requests.
    """
    start, last, now = readings[0], readings[-2], readings[-1]
    own = now.since(start, step.revision)
    found = [metric(limit, readings) for limit in step.metrics]
    if step.conditions or step.against:
        found.insert(0, judge(step.conditions, own, step.min_requests))
    if steady := steadiness(readings, startup=step.startup, at_least=step.at_least):
        found += [steady] if steady.verdict is not Verdict.PASS else []
    if step.against is not None:
        tally, compared = _compare(tally, step, start, last, now)
        found.append(compared)
    worst = min(found, key=lambda one: WORST_FIRST.index(one.verdict)).verdict
    # The evidence of a fail names the failed checks only; any other verdict names all checks.
    words = [one.evidence for one in found if worst is not Verdict.FAIL or one.verdict is Verdict.FAIL]
    synthetic = (
        now.synthetic.get(step.revision, RequestCounts()).requests
        - start.synthetic.get(step.revision, RequestCounts()).requests
    )
    words += [f"{synthetic:,} of its {own.requests:,} requests were synthetic"] if synthetic else []
    words += [f"requests counted by {step.counted_by}"] if step.counted_by else []
    return tally, Judgement(verdict=worst, evidence="; ".join(words))


def _compare(
    tally: Tally, step: Analyze, start: Measurements, last: Measurements, now: Measurements
) -> tuple[Tally, Judgement]:
    assert step.against is not None
    against = step.against
    known = tally.history or start.counts.get(against.stable, RequestCounts()).latency
    tally = replace(tally, ignore_below=against.ignore_below, ignore_slower=against.ignore_slower, history=known).after(
        now.since(last, step.revision), now.since(last, against.stable)
    )
    sentence = tally.sentence(against.budget)
    if tally.alarm(against.budget):
        return tally, Judgement(verdict=Verdict.FAIL, evidence=sentence)
    if unknown := tally.unknown(step.min_requests):
        return tally, Judgement(verdict=Verdict.INCONCLUSIVE, evidence=f"{sentence}; {unknown}")
    return tally, Judgement(verdict=Verdict.PASS, evidence=sentence)


class Replayed(Frozen):
    """Judgement of an analysis on stored readings: at the first fail, or at their end, `seconds` after its start."""

    step: Analyze
    looks: int
    seconds: float
    judgement: Judgement


def replay(analyses: Sequence[tuple[Analyze, Sequence[Measurements]]]) -> list[Replayed]:
    """Repeat the analyses of one rollout, in order, up to the first fail: the rollout would have ended there."""
    tally = Tally()
    found: list[Replayed] = []
    for step, readings in analyses:
        judgement = Judgement(verdict=Verdict.INCONCLUSIVE, evidence="no readings were stored")
        looks, seconds = 0, 0.0
        for end in range(2, len(readings) + 1):
            tally, judgement = evaluate(tally, step, readings[:end])
            looks, seconds = looks + 1, (readings[end - 1].at - readings[0].at).total_seconds()
            if judgement.verdict is Verdict.FAIL:
                break
        found.append(Replayed(step=step, looks=looks, seconds=seconds, judgement=judgement))
        if judgement.verdict is Verdict.FAIL:
            break
    return found
