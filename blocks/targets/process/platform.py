"""The process platform: bundles, as processes of this machine."""

from __future__ import annotations

from headway.domain.platform import Platform

__all__ = ["PLATFORM"]

PLATFORM = Platform(
    kind="process",
    target="blocks.targets.process.target:ProcessTarget",
    artifacts=frozenset({"bundle"}),
    default_targets=True,
)
