"""Combine findings and attestations into the checklist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal, NamedTuple, Protocol

from headway.config.readiness_items import ITEMS, expand
from headway.domain.readiness import Finding

__all__ = ["Attestation", "Result", "assess", "counted", "unready"]


class Attestation(Protocol):
    """A person's confirmation of an item, from headway.yaml."""

    @property
    def by(self) -> str: ...
    @property
    def on(self) -> date: ...
    @property
    def until(self) -> date: ...
    @property
    def note(self) -> str: ...


class Result(NamedTuple):
    """One line of the checklist."""

    name: str
    state: Literal["pass", "fail", "attested", "unknown"]
    evidence: str
    required: bool

    @property
    def row(self) -> dict[str, str]:
        """As a table row."""
        item = ITEMS[self.name]
        about = {"group": item.group, "item": self.name, "": item.title}
        return {**about, "state": self.state, "needed": "yes" if self.required else "", "evidence": self.evidence}


def assess(
    found: Mapping[str, Finding], attested: Mapping[str, Attestation], required: Iterable[str], today: date
) -> list[Result]:
    """The whole checklist. An attestation counts for items that could not be verified, not for those that fail."""
    needed = set(expand(required))
    return [_result(name, found.get(name), attested.get(name), name in needed, today) for name in ITEMS]


def _result(name: str, found: Finding | None, attestation: Attestation | None, required: bool, today: date) -> Result:
    if found is not None and found.passes is not None:
        return Result(name, "pass" if found.passes else "fail", found.evidence, required)
    if attestation is None:
        why = found.evidence if found else "not verified and not attested"
        return Result(name, "unknown", why, required)
    text = f"{attestation.by} on {attestation.on}" + (f": {attestation.note}" if attestation.note else "")
    if attestation.on > today:
        return Result(name, "unknown", f"attested for a future date: {text}", required)
    if attestation.until < today:
        return Result(name, "unknown", f"expired on {attestation.until}: {text}", required)
    return Result(name, "attested", f"{text}, until {attestation.until}", required)


def counted(results: Iterable[Result]) -> str:
    """Number of items in each state, as text."""
    states = [one.state for one in results]
    return ", ".join(f"{states.count(state)} {state}" for state in ("pass", "attested", "fail", "unknown"))


def unready(results: Iterable[Result]) -> list[Result]:
    """Required items that fail or are unknown."""
    return [one for one in results if one.required and one.state in ("fail", "unknown")]
