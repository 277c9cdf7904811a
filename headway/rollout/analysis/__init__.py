"""Measurements -> Verdict. Pure."""

from headway.rollout.analysis.judge import Replayed, evaluate, replay
from headway.rollout.analysis.sequential_test import Tally
from headway.rollout.analysis.thresholds import Judgement, judge

__all__ = ["Judgement", "Replayed", "Tally", "evaluate", "judge", "replay"]
