"""Measurements -> Verdict. Pure."""

from headway.analysis.guardrails import Judgement, judge

__all__ = ["Judgement", "judge"]
