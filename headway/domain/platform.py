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
    """How a platform reads and checks the manifests that an app's repository has for it."""

    def read(self, root: Path, where: str) -> tuple[Manifest, ...]:
        """The objects under a path of the repository. Raises SettingsError with every fault, one a line."""

    def faults(self, app: str, image: str, manifests: tuple[Manifest, ...]) -> list[str]:
        """Everything that keeps these manifests from being released, one line each: `FILE#DOCUMENT: message`."""

    def replicas(self, app: str, manifests: tuple[Manifest, ...]) -> int:
        """Instances that the manifests ask for."""


@dataclass(frozen=True)
class Platform:
    """What is known of a kind of target without a configured one: for validation, before anything starts.

    A package offers one under the entry-point group `headway.platforms`. Its module must be quick to import: it is
    read whenever headway.yaml is.
    """

    kind: str
    """The part of `target: KIND/NAME` before the slash, and the slug of its block type."""
    target: str
    """Where its block class is, as `package.module:Class`; imported when a target is loaded."""
    artifacts: frozenset[Literal["bundle", "image"]]
    """What it runs."""
    single_app: bool = False
    """A target is one app: it cannot hold preview environments."""
    runs_command: bool = True
    """It needs `run` for a bundle. False: the platform finds out how to start what it is given."""
    autoscaling: bool = False
    default_targets: bool = False
    """A target needs no configuration: `headway up` makes one for each usual environment."""
    manifests: ManifestFormat | None = None
    """None: it has no use for manifests."""
    readiness_findings: Callable[[str, LaunchSpec], Mapping[str, Finding]] | None = None
    """Items of the production readiness checklist that follow from the app's name and a launch spec."""
