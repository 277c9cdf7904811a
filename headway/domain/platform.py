"""Static description of a kind of target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from headway.domain.readiness import Finding
from headway.domain.revision import LaunchSpec, Manifest

__all__ = ["ManifestFormat", "Platform"]


class ManifestFormat(Protocol):
    """Reads and validates the manifests that an app's repository has for the platform."""

    def read(self, root: Path, where: str) -> tuple[Manifest, ...]:
        """Read the objects under a path of the repository. Raises SettingsError with all errors, one a line."""

    def faults(self, app: str, image: str, manifests: tuple[Manifest, ...]) -> list[str]:
        """Return all validation errors, one line each: `FILE#DOCUMENT: message`."""

    def replicas(self, app: str, manifests: tuple[Manifest, ...]) -> int:
        """Number of instances in the manifests."""


@dataclass(frozen=True)
class Platform:
    """What is known of a kind of target without a configured one. For validation, before a release starts.

    A package offers one as an entry point in the group `headway.platforms`. Its module must import quickly: it is
    imported with every headway.yaml.
    """

    kind: str
    """The part of `target: KIND/NAME` before the slash, and the slug of its block type."""
    target: str
    """Its block class, as `package.module:Class`. Imported when a target is loaded."""
    artifacts: frozenset[Literal["bundle", "image"]]
    """Artifacts that it runs."""
    single_app: bool = False
    """Whether a target runs one app only. Such a target cannot run preview environments."""
    runs_command: bool = True
    """Whether a bundle needs the setting `run`. False: the platform finds the command itself."""
    image_health_check: bool = False
    """Whether it runs the HEALTHCHECK of an image."""
    autoscaling: bool = False
    default_targets: bool = False
    """Whether a target needs no configuration: `headway up` makes the targets staging, production and preview."""
    manifests: ManifestFormat | None = None
    """None if it takes no manifests."""
    readiness_findings: Callable[[str, LaunchSpec], Mapping[str, Finding]] | None = None
    """Items of the production readiness checklist that follow from the app's name and a launch spec."""
