"""Detailed health of an app and its dependencies, as the app reports it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.revision import Revision
from headway.domain.version_check import is_release

__all__ = ["Dependency", "Detailed", "read"]

WELL = ("ok", "up", "pass", "passing", "healthy")  # as Spring, the health+json draft and others call it


class Dependency(Frozen):
    """Health of one dependency, as the app reports it."""

    name: str
    well: bool
    latency: float | None = Field(default=None, description="milliseconds")
    detail: str = ""

    def __str__(self) -> str:
        took = f" ({self.latency:g} ms)" if self.latency is not None else ""
        return f"{self.name}{took}" + (f": {self.detail}" if self.detail else "")


class Detailed(Frozen):
    """An answer of the detailed health path."""

    well: bool
    version: str | None = None
    uptime: float | None = Field(default=None, description="seconds")
    dependencies: tuple[Dependency, ...] = ()

    @property
    def ailing(self) -> tuple[Dependency, ...]:
        """Names of degraded dependencies; the app itself if it is degraded and names none."""
        found = tuple(one for one in self.dependencies if not one.well)
        return found if found or self.well else (Dependency(name="the app", well=False),)

    def wrong_version(self, revision: Revision) -> str:
        """Error if another version answered; empty if this one did, or the answer has no version."""
        other = is_release(self.version, revision.sha, revision.id) is False
        return f"expected version {revision.sha}, it says {self.version}" if other else ""


def read(answer: object) -> Detailed:
    """`{status, version, uptime, checks: {name: {status, latency_ms}}}`, or `components` for checks, or a list of them.

    Raises ValueError when it is nothing of the kind.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("status"), str):
        raise ValueError("expected a JSON object with a status such as ok or degraded")  # noqa: TRY004  # as JSON goes
    checks = answer.get("checks", answer.get("components", {}))
    named = checks.items() if isinstance(checks, Mapping) else _listed(checks)
    uptime = answer.get("uptime_seconds", answer.get("uptime"))
    return Detailed(
        well=_is_well(answer["status"]),
        version=answer["version"] if isinstance(answer.get("version"), str) else None,
        uptime=float(uptime) if isinstance(uptime, int | float) else None,
        dependencies=tuple(_dependency(str(name), value) for name, value in named),
    )


def _listed(checks: object) -> list[tuple[str, Any]]:
    if not isinstance(checks, list) or not all(isinstance(one, Mapping) and "name" in one for one in checks):
        raise ValueError("expected checks as a mapping of names, or a list of mappings with a name")
    return [(one["name"], one) for one in checks]


def _dependency(name: str, value: object) -> Dependency:
    if not isinstance(value, Mapping):
        return Dependency(name=name, well=value is True or _is_well(value))
    latency = value.get("latency_ms", value.get("latency"))
    detail = value.get("error", value.get("detail", ""))
    return Dependency(
        name=name,
        well=_is_well(value.get("status")),
        latency=float(latency) if isinstance(latency, int | float) and not isinstance(latency, bool) else None,
        detail=" ".join(str(detail).split())[:200] if detail else "",
    )


def _is_well(status: object) -> bool:
    return str(status).lower() in WELL
