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
    "HW001": Rule("warning", "The next build can get another base image, so this image cannot be rebuilt."),
    "HW002": Rule(
        "warning", "The image contains compilers, sources and caches: slower pulls, and a larger attack surface."
    ),
    "HW003": Rule("error", "An attacker in the app is root in the container, one kernel bug away from the host."),
    "HW004": Rule("warning", "A change of any file installs all dependencies again, which makes every build slow."),
    "HW005": Rule("error", "The git history, credentials and local files of the builder can get into the image."),
    "HW006": Rule("warning", "It makes every build slower, and images differ between machines."),
    "HW007": Rule("error", "One COPY of a directory can put credentials into an image that many people can pull."),
    "HW008": Rule("warning", "A hanging process counts as running and keeps getting requests until a person notices."),
    "HW009": Rule("warning", "The image contains test and build packages with their vulnerabilities."),
    "HW010": Rule("warning", "An attacker can use a compiler or git to build and fetch tools in the container."),
    "HW011": Rule(
        "error", "Everybody who can pull the image can read the secret, in its configuration or its history."
    ),
    "HW012": Rule(
        "error", "Everybody who can pull the image can read the file; removing it later leaves it in a layer."
    ),
    "HW013": Rule("warning", "One leak or busy loop can take all memory and CPU time of the machine."),
}


def finding(rule: str, file: str, line: int | None, what: str, fix: str) -> Finding:
    """Create a finding of one of Headway's own rules."""
    return Finding(rule=rule, level=RULES[rule].level, file=file, line=line, what=what, why=RULES[rule].why, fix=fix)
