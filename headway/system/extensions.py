"""Adapters that installed packages offer as entry points. Headway's own are found in the same way."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from headway.domain.errors import HeadwayError
from headway.system.project_root import project_root

__all__ = ["extensions"]


@cache
def extensions(group: str) -> dict[str, Any]:
    """The objects of an entry-point group such as `headway.platforms`, by name, sorted.

    Raises HeadwayError, which names the package, when its entry point cannot be imported or its name is taken.
    """
    project_root()
    found: dict[str, Any] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        package = point.dist.name if point.dist else point.value
        if point.name in found:
            raise HeadwayError(
                f"{group}: two installed packages offer {point.name!r}, one of them is {package}",
                f"uninstall one: pip uninstall {package}",
            )
        try:
            found[point.name] = point.load()
        except Exception as error:  # whatever its import raises
            raise HeadwayError(
                f"{group}: {point.name} of the package {package} cannot be loaded: {type(error).__name__}: {error}",
                f"upgrade or uninstall it: pip install --upgrade {package}",
            ) from error
    return found
