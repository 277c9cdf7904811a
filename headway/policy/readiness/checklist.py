"""What was found and what was attested -> the checklist, item by item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal, NamedTuple, Protocol

from headway.config.readiness_items import ITEMS, expand
from headway.domain.readiness import Finding

__all__ = ["Attestation", "Result", "assess", "counted", "unready"]


class Attestation(Protocol):
    """A person's word, as headway.yaml has it."""

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
        """For a table."""
        item = ITEMS[self.name]
        about = {"group": item.group, "item": self.name, "": item.title}
        return {**about, "state": self.state, "needed": "yes" if self.required else "", "evidence": self.evidence}


def assess(
    found: Mapping[str, Finding], attested: Mapping[str, Attestation], required: Iterable[str], today: date
) -> list[Result]:
    """The whole checklist. What fails is attested by nobody: a person's word stands for what nobody could verify."""
    needed = set(expand(required))
    return [_result(name, found.get(name), attested.get(name), name in needed, today) for name in ITEMS]


def _result(name: str, found: Finding | None, word: Attestation | None, required: bool, today: date) -> Result:
    if found is not None and found.passes is not None:
        return Result(name, "pass" if found.passes else "fail", found.evidence, required)
    if word is None:
        why = found.evidence if found else "nobody has verified or attested it"
        return Result(name, "unknown", why, required)
    said = f"{word.by} on {word.on}" + (f": {word.note}" if word.note else "")
    if word.on > today:
        return Result(name, "unknown", f"attested for a day to come: {said}", required)
    if word.until < today:
        return Result(name, "unknown", f"expired on {word.until}: {said}", required)
    return Result(name, "attested", f"{said}, until {word.until}", required)


def counted(results: Iterable[Result]) -> str:
    """How many are how, in words."""
    states = [one.state for one in results]
    return ", ".join(f"{states.count(state)} {state}" for state in ("pass", "attested", "fail", "unknown"))


def unready(results: Iterable[Result]) -> list[Result]:
    """What has to be so, and is not known to be."""
    return [one for one in results if one.required and one.state in ("fail", "unknown")]
