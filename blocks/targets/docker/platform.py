"""The docker platform: images, as containers of an engine."""

from __future__ import annotations

from headway.domain.platform import Platform

__all__ = ["PLATFORM"]

PLATFORM = Platform(
    kind="docker",
    target="blocks.targets.docker.target:DockerTarget",
    artifacts=frozenset({"image"}),
    image_health_check=True,
    default_targets=True,
)
