"""Access to Prefect blocks for the service and the command line, which find `blocks` at run time."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Protocol, cast

from headway.domain.ports import GitHost, MetricSource, Target
from headway.service.prefect.client import api_url
from headway.system.project_root import project_root

if TYPE_CHECKING:
    from prefect.blocks.core import Block

__all__ = ["Connections", "connections"]


class Connections(Protocol):
    """The interface of `blocks.loading`."""

    def targets(self) -> dict[str, type[Block]]: ...

    def metric_sources(self) -> dict[str, type[Block]]: ...

    def git_hosts(self) -> dict[str, type[Block]]: ...

    async def load_target(self, slug: str) -> Target: ...

    async def load_metric_source(self, slug: str) -> MetricSource: ...

    async def load_git_host(self, slug: str) -> GitHost: ...

    async def load_secret(self, name: str, where: str) -> str: ...

    async def block_names(self, kind: str) -> list[str]: ...


def connections() -> Connections:
    """The loaders of blocks, imported at the first call because Prefect takes a second to import."""
    project_root()
    # Prefect reads it at its first import. Without it, Prefect starts a temporary server.
    os.environ.setdefault("PREFECT_API_URL", api_url())
    return cast("Connections", importlib.import_module("blocks.loading"))
