"""The installed platforms: the kinds of target that headway.yaml can name."""

from __future__ import annotations

from headway.config.validation import nearest
from headway.domain.errors import HeadwayError, NotFound
from headway.domain.platform import Platform
from headway.system.extensions import extensions

__all__ = ["platform", "platforms"]


def platforms() -> dict[str, Platform]:
    """Every installed platform by kind: those of Headway, and those that other packages add.

    Raises HeadwayError, which names the entry point, when one is not a Platform of its own name.
    """
    found = extensions("headway.platforms")
    for name, each in found.items():
        if not isinstance(each, Platform) or each.kind != name:
            raise HeadwayError(
                f"headway.platforms: the entry point {name!r} is not a Platform with the kind {name!r}: {each!r:.80}",
                "upgrade or uninstall the package that offers it",
            )
    return dict(found)


def platform(kind: str) -> Platform:
    """Raises NotFound, naming the choices, when no such platform is installed."""
    known = platforms()
    if kind not in known:
        raise NotFound(f"no platform is called {kind!r}{nearest(kind, known)}", f"there are: {', '.join(known)}")
    return known[kind]
