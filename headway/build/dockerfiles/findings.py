"""Findings on a Dockerfile, and the table of Headway's own rules."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from headway.domain.base import Frozen

__all__ = ["RULES", "Finding", "Level", "Rule", "finding"]

Level: TypeAlias = Literal["error", "warning", "info"]


class Finding(Frozen):
    """One problem of a Dockerfile. Never contains the value of a secret."""

    rule: str  # "DL3006" of hadolint, "SC2046" of ShellCheck, or Headway's own "HW001"
    level: Level
    file: str
    line: int | None
    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.rule} {self.what}"


class Rule(NamedTuple):
    level: Level
    why: str


RULES = {
    "HW001": Rule(
        "warning", "The next build takes whatever the registry has by then, and nobody can rebuild this one."
    ),
    "HW002": Rule("warning", "Compilers, sources and caches ship with the app: slower starts, and more to attack."),
    "HW003": Rule("error", "Whoever breaks into the app is root in the container, one kernel bug away from the host."),
    "HW004": Rule(
        "warning", "Every change of any file installs all dependencies again, so a hotfix waits for minutes."
    ),
    "HW005": Rule("error", "History, credentials and local files of whoever builds can end up in the image."),
    "HW006": Rule("warning", "It makes the image differ from one machine to the next, and every build slower."),
    "HW007": Rule("error", "One COPY of a directory is enough for credentials to be in an image that many can pull."),
    "HW008": Rule(
        "warning", "A process that hangs counts as running and keeps getting requests until a person notices."
    ),
    "HW009": Rule(
        "warning", "Test and build packages, with all their vulnerabilities, are there for an attacker to use."
    ),
    "HW010": Rule("warning", "With a compiler or git at hand, an attacker can build and fetch tools in the container."),
    "HW011": Rule("error", "Everybody who can pull the image can read it, in its configuration or its history."),
    "HW012": Rule(
        "error", "Everybody who can pull the image can read the file; removing it later leaves it in a layer."
    ),
    "HW013": Rule("warning", "One leak or busy loop takes the memory and processors of everything on the machine."),
}


def finding(rule: str, file: str, line: int | None, what: str, fix: str) -> Finding:
    """Create a finding of one of Headway's own rules."""
    return Finding(rule=rule, level=RULES[rule].level, file=file, line=line, what=what, why=RULES[rule].why, fix=fix)
