"""Find the installed types of blocks, and load configured blocks by `type/name`."""

from __future__ import annotations

import importlib

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client

from blocks import prefect_clients
from blocks.registries.oci import Registry as RegistryBlock
from blocks.secrets import values_of
from headway.config.platforms import platforms
from headway.domain.errors import NotFound
from headway.domain.ports import GitHost, MetricSource, Registry, Target
from headway.domain.revision import SecretRef
from headway.system.extensions import extensions

__all__ = [
    "block_names",
    "git_hosts",
    "load_git_host",
    "load_metric_source",
    "load_registry",
    "load_secret",
    "load_target",
    "metric_sources",
    "targets",
]

prefect_clients.install()  # every flow run, and what loads blocks, imports this module


def targets() -> dict[str, type[Block]]:
    """Every platform: block type slug -> class."""
    return {kind: _imported(platform.target) for kind, platform in platforms().items()}


def metric_sources() -> dict[str, type[Block]]:
    """Every kind of metric source: block type slug -> class."""
    return extensions("headway.metric_sources")


def git_hosts() -> dict[str, type[Block]]:
    """Every kind of git host that takes statuses: block type slug -> class."""
    return extensions("headway.git_hosts")


def _imported(where: str) -> type[Block]:
    module, _, name = where.partition(":")
    found: type[Block] = getattr(importlib.import_module(module), name)
    return found


async def load_target(slug: str) -> Target:
    """The configured target `type/name`. Raises NotFound, with the choices, when there is none."""
    block = await _load("target", "platform", slug, targets())
    assert isinstance(block, Target)
    return block


async def load_metric_source(slug: str) -> MetricSource:
    """The configured metric source `type/name`. Raises NotFound, with the choices, when there is none."""
    block = await _load("metric source", "kind of metric source", slug, metric_sources())
    assert isinstance(block, MetricSource)
    return block


async def load_git_host(slug: str) -> GitHost:
    """The configured git host `type/name`. Raises NotFound, with the choices, when there is none."""
    block = await _load("git host", "kind of git host", slug, git_hosts())
    assert isinstance(block, GitHost)
    return block


async def load_registry(name: str | None, repository: str) -> Registry:
    """The registry block of this name. Without a name: the registry of this image repository, without credentials.

    Raises NotFound, with the choices, when there is none of this name.
    """
    if name is None:
        return RegistryBlock(host=repository.partition("/")[0])
    block = await _load("registry", "kind of registry", f"registry/{name}", {"registry": RegistryBlock})
    assert isinstance(block, Registry)
    return block


async def load_secret(name: str, where: str) -> str:
    """The value of the secret of this name. Raises NotFound, which begins with `where`, when there is none."""
    values = await values_of({"it": SecretRef(secret=name)}, where)
    return values["it"]


async def _load(what: str, kinds: str, slug: str, known: dict[str, type[Block]]) -> object:
    kind, _, name = slug.partition("/")
    if kind not in known or not name:
        raise NotFound(
            f"{what} {slug}: no {kinds} is called {kind!r}", f"it is TYPE/NAME, TYPE one of: {', '.join(known)}"
        )
    try:
        return await known[kind].aload(name)
    except ValueError as error:
        raise NotFound(
            f"{what} {slug}: no {kind} block has the name {name!r}",
            f"make one in the UI under Blocks; there are: {', '.join(await block_names(kind)) or 'none'}",
        ) from error


async def block_names(kind: str) -> list[str]:
    """The configured blocks of a type, as sorted `type/name`."""
    async with get_client() as client:
        documents = await client.read_block_documents_by_type(kind)
    return sorted(f"{kind}/{document.name}" for document in documents)
