"""The railway platform: a service is one app."""

from __future__ import annotations

from headway.domain.platform import Platform

__all__ = ["PLATFORM"]

PLATFORM = Platform(
    kind="railway",
    target="blocks.targets.railway.target:RailwayTarget",
    artifacts=frozenset({"bundle", "image"}),
    single_app=True,
    runs_command=False,
)
