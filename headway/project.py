"""Finds the flows, tasks and blocks, in a checkout or inside the installed package, and makes them known to Prefect.

They are top-level packages of the project root; when Headway is installed that root is `headway/project/`, because
names as generic as `flows` have no business in anybody's site-packages.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.control import api_url
from headway.errors import NotFound
from headway.model import SecretRef
from headway.ports import GitHost, MetricSource, Registry, Target

if TYPE_CHECKING:
    from prefect.blocks.core import Block

__all__ = [
    "git_hosts",
    "load_git_host",
    "load_metric_source",
    "load_registry",
    "load_secret",
    "load_target",
    "metric_sources",
    "register",
    "root",
    "targets",
]

DEADLINE = 100.0  # seconds for prefect deploy
DEFAULT_KINDS = ("process", "docker")  # of targets that need nothing to be said
DEFAULT_TARGETS = ("preview", "staging", "production")


def root() -> Path:
    """The directory that holds prefect.yaml, flows/, tasks/ and blocks/; puts it on the import path."""
    package = Path(__file__).resolve().parent
    found = next((place for place in (package / "project", package.parent) if (place / "prefect.yaml").is_file()), None)
    if found is None:
        raise NotFound(f"{package}: the installation has no prefect.yaml beside it", "install Headway again")
    if str(found) not in sys.path:
        sys.path.insert(0, str(found))
    return found


def targets() -> dict[str, type[Block]]:
    """Every platform: block type slug -> class. One module of blocks/targets/ each."""
    return _adapters("blocks.targets", Target)


def metric_sources() -> dict[str, type[Block]]:
    """Every kind of metric source: block type slug -> class. One module of blocks/metrics/ each."""
    return _adapters("blocks.metrics", MetricSource)


def git_hosts() -> dict[str, type[Block]]:
    """Every kind of git host that can be told: block type slug -> class. One module of blocks/git_hosts/ each."""
    return _adapters("blocks.git_hosts", GitHost)


def _adapters(package: str, port: type) -> dict[str, type[Block]]:
    root()
    # Prefect reads it when it is first imported; without it, it would start a server of its own.
    os.environ.setdefault("PREFECT_API_URL", api_url())
    found: dict[str, type[Block]] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        for member in vars(importlib.import_module(module.name)).values():
            if isinstance(member, type) and issubclass(member, port) and member.__module__ == module.name:
                block: type[Block] = member  # type: ignore[assignment]  # an adapter is a block by rule
                found[block.get_block_type_slug()] = block
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
    """The registry block of this name; without one, the registry of this image repository, and no password.

    Raises NotFound, with the choices, when there is none of this name.
    """
    root()
    known: dict[str, type[Block]] = {"registry": importlib.import_module("blocks.registry").Registry}
    if name is None:
        block: object = known["registry"](host=repository.partition("/")[0])
    else:
        block = await _load("registry", "kind of registry", f"registry/{name}", known)
    assert isinstance(block, Registry)
    return block


async def load_secret(name: str, where: str) -> str:
    """The value of the secret of this name. Raises NotFound, which begins with `where`, when there is none."""
    root()
    os.environ.setdefault("PREFECT_API_URL", api_url())
    secrets = importlib.import_module("blocks.secrets")
    values: dict[str, str] = await secrets.values_of({"it": SecretRef(secret=name)}, where)
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
            f"make one in the UI under Blocks; there are: {', '.join(await _names(kind)) or 'none'}",
        ) from error


async def _names(kind: str) -> list[str]:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        documents = await client.read_block_documents_by_type(kind)
    return sorted(f"{kind}/{document.name}" for document in documents)


async def register() -> None:
    """Blocks, work pool and deployments.

    Repeatable: what is there stays, but for what prefect.yaml and we say of it.
    """
    await _work_pool()
    deploying = asyncio.create_task(asyncio.to_thread(_deploy))
    await _blocks()
    await deploying


async def _blocks() -> None:
    """Make the block types known to the server, and have the targets that need nothing to be said."""
    known = targets()
    registry: type[Block] = importlib.import_module("blocks.registry").Registry
    for block in (*known.values(), *metric_sources().values(), *git_hosts().values(), registry):
        await block.aregister_type_and_schema()
    for kind in DEFAULT_KINDS:
        existing = await _names(kind)
        for name in DEFAULT_TARGETS:
            if f"{kind}/{name}" not in existing:
                await known[kind]().asave(name)


async def _work_pool() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template: dict[str, Any] = json.loads(json.dumps(ProcessWorker.get_default_base_job_template()))
    variables = template["variables"]["properties"]
    if socket := os.environ.get("HEADWAY_WARM"):
        warm = Path(__file__).with_name("warm.py")
        variables["command"]["default"] = f"{sys.executable} -I -S {warm} run {socket}"
    place = str(root())
    variables["working_dir"]["default"] = place
    variables["env"]["default"] = {"PYTHONPATH": place}
    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name="headway", type="process", base_job_template=template))
        except ObjectAlreadyExists:
            await client.update_work_pool("headway", WorkPoolUpdate(base_job_template=template))


def _deploy() -> None:
    place = root()
    environment = {**os.environ, "HEADWAY_PROJECT": str(place)}
    subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=DEADLINE,
    )


if __name__ == "__main__":
    asyncio.run(register())
