"""Measurements -> Verdict. Pure."""

from headway.analysis.guardrails import Judgement, judge
from headway.analysis.looks import Replayed, look, replay
from headway.analysis.sequential import Tally

__all__ = ["Judgement", "Replayed", "Tally", "judge", "look", "replay"]
