"""Old names of modules, for what the last release has stored.

A release that waits for approval keeps the results of its tasks as pickles, and a pickle names the modules of its
classes. `headway` installs the finder below: importing an old name gives a module with the classes from their new ones.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "install"]

# Moved after 0.1.0. These lines go away in 0.3.0: a release does not wait for longer than from one version to the next.
MOVED: dict[str, tuple[str, ...]] = {
    "headway.errors": ("headway.domain.errors",),
    "headway.model": ("headway.domain.plan", "headway.domain.revision", "headway.domain.source"),
    "headway.readiness": ("headway.policy.readiness",),
    "headway.readiness.checklist": ("headway.policy.readiness.checklist", "headway.domain.readiness"),
    "headway.settings": ("headway.config",),
    "headway.settings.repository": ("headway.config.settings",),
    "headway.settings.sections": ("headway.config.sections", "headway.config.environment"),
    "headway.settings.strategies": (
        "headway.config.strategy",
        "headway.config.analysis",
        "headway.config.http_request",
    ),
    "headway.settings.variables": ("headway.config.env_schema",),
}
"""Old module -> the modules that have its classes now."""

RENAMED = {"Leaks": "SecretScan", "Probe": "HttpRequest"}
"""Old name -> new name of a class of headway.settings, for modules of MOVED that no longer have the old name."""


class _Finder:
    """Finds the modules of MOVED, when there is nothing of that name."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name in MOVED else None  # type: ignore[arg-type]  # by shape

    def create_module(self, spec: ModuleSpec) -> None:
        """Python makes an ordinary one."""

    def exec_module(self, module: ModuleType) -> None:
        places = MOVED[module.__name__]
        warnings.warn(
            f"{module.__name__} has moved to {', '.join(places)}; the old name goes away in 0.3.0",
            DeprecationWarning,
            stacklevel=2,
        )

        def found(name: str) -> Any:
            for known in (name, RENAMED.get(name, name)):
                for place in places:
                    if not known.startswith("__") and hasattr(new := importlib.import_module(place), known):
                        return getattr(new, known)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = found  # type: ignore[method-assign]


def install() -> None:
    """Have Python find the old names, after everything else. Repeatable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
