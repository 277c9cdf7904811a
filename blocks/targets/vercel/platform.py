"""The vercel platform: a project is one app."""

from __future__ import annotations

from headway.domain.platform import Platform

__all__ = ["PLATFORM"]

PLATFORM = Platform(
    kind="vercel",
    target="blocks.targets.vercel.target:VercelTarget",
    artifacts=frozenset({"bundle"}),
    single_app=True,
    runs_command=False,
)
