"""What installed packages add to Headway, by entry point. Headway's own adapters are found in the same way."""

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

    Raises HeadwayError when a package's entry point cannot be imported, or two packages use the same name.
    """
    project_root()
    found: dict[str, Any] = {}
    for point in sorted(entry_points(group=group), key=lambda one: one.name):
        package = point.dist.name if point.dist else point.value
        if point.name in found:
            raise HeadwayError(
                f"{group}: two installed packages offer {point.name!r}, one of them is {package}",
                f"uninstall one: pip uninstall {package}",
            )
        try:
            found[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            raise HeadwayError(
                f"{group}: {point.name} of the package {package} cannot be loaded: {error}",
                f"upgrade or uninstall it: pip install --upgrade {package}",
            ) from error
    return found
