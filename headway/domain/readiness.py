"""Findings of the production readiness checklist."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Finding", "failed", "passed", "unknown"]


class Finding(NamedTuple):
    """Result of one verification, with its evidence. `passes` is None when it could not be found out."""

    passes: bool | None
    evidence: str


def passed(evidence: str) -> Finding:
    return Finding(True, evidence)


def failed(evidence: str) -> Finding:
    return Finding(False, evidence)


def unknown(evidence: str) -> Finding:
    return Finding(None, evidence)
