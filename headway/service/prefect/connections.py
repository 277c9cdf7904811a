"""Access to Prefect blocks for the service and the command line, which find `blocks` at run time."""

from __future__ import annotations

import contextlib
import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from headway.domain.ports import GitHost, MetricSource, Target
from headway.service.prefect.client import api_url
from headway.service.prefect.credential import server_login
from headway.service.up_record import UpRecord
from headway.system.project_root import project_root

if TYPE_CHECKING:
    from prefect.blocks.core import Block

__all__ = ["Connections", "connections", "target_classes"]

NO_SERVER = "http://127.0.0.1:1/api"


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
    # Prefect reads them at its first import. Without a URL, Prefect starts a temporary server.
    url = os.environ.setdefault("PREFECT_API_URL", api_url())
    if (up := UpRecord.read()) and up.api_url == url and (login := server_login()):
        os.environ.setdefault("PREFECT_API_AUTH_STRING", login)
    return cast("Connections", _loading())


def target_classes() -> dict[str, Any]:
    """Every kind of target: block type slug -> class. Needs no Prefect server."""
    project_root()
    named = "PREFECT_API_URL" in os.environ
    os.environ.setdefault("PREFECT_API_URL", NO_SERVER)  # blocks read it when they are imported, and send nothing
    try:
        return dict(_loading().targets())
    finally:
        if not named:
            del os.environ["PREFECT_API_URL"]


def _loading() -> ModuleType:
    """Import `blocks.loading` from another folder: Prefect reads `.env`, `prefect.toml` and `pyproject.toml` of the one
    that a program is in, which is an app's."""
    with contextlib.chdir("/"):
        return importlib.import_module("blocks.loading")
