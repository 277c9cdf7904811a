"""The platforms that an environment's target can be of."""

from __future__ import annotations

from headway.domain.errors import NotFound
from headway.domain.platform import Platform
from headway.system.extensions import extensions

__all__ = ["platform", "platforms"]


def platforms() -> dict[str, Platform]:
    """Every installed platform by kind: those of Headway, and those that other packages add."""
    return dict(extensions("headway.platforms"))


def platform(kind: str) -> Platform:
    """Raises NotFound, naming the choices, when no such platform is installed."""
    known = platforms()
    if kind not in known:
        raise NotFound(f"no platform is called {kind!r}", f"there are: {', '.join(known)}")
    return known[kind]
