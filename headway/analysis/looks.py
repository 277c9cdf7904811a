"""A revision's own figures and the comparison with the stable one, look after look, in one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from headway.analysis.guardrails import Judgement, judge
from headway.analysis.sequential import Tally
from headway.model import Analyze, Counts, Frozen, Measurements, Verdict

__all__ = ["Replayed", "look", "replay"]


def look(
    tally: Tally, step: Analyze, start: Measurements, last: Measurements, now: Measurements
) -> tuple[Tally, Judgement]:
    """One more look: the revision's own figures since `start`, both revisions' requests since `last`.

    Worse than the stable revision is a fail, however few requests it took to show; otherwise the verdict is that of
    the revision's own figures.
    """
    own = judge(step.conditions, now.since(start, step.revision), step.min_requests)
    if step.against is None:
        return tally, own
    against = step.against
    known = tally.history or start.counts.get(against.stable, Counts()).latency
    tally = replace(tally, ignore_below=against.ignore_below, ignore_slower=against.ignore_slower, history=known).after(
        now.since(last, step.revision), now.since(last, against.stable)
    )
    sentence = tally.sentence(against.budget)
    if tally.alarm(against.budget):
        return tally, Judgement(verdict=Verdict.FAIL, evidence=sentence)
    return tally, own.model_copy(update={"evidence": f"{own.evidence}; {sentence}"})


class Replayed(Frozen):
    """What an analysis finds in readings that were kept: at the first fail, or at their end. `seconds` into it."""

    step: Analyze
    looks: int
    seconds: float
    judgement: Judgement


def replay(analyses: Sequence[tuple[Analyze, Sequence[Measurements]]]) -> list[Replayed]:
    """The analyses of one rollout again, in their order; what follows the first fail would not have happened."""
    tally = Tally()
    found: list[Replayed] = []
    for step, readings in analyses:
        judgement = Judgement(verdict=Verdict.INCONCLUSIVE, evidence="no readings were kept")
        looks, seconds = 0, 0.0
        for last, now in pairwise(readings):
            tally, judgement = look(tally, step, readings[0], last, now)
            looks, seconds = looks + 1, (now.at - readings[0].at).total_seconds()
            if judgement.verdict is Verdict.FAIL:
                break
        found.append(Replayed(step=step, looks=looks, seconds=seconds, judgement=judgement))
        if judgement.verdict is Verdict.FAIL:
            break
    return found
