"""Names of flow runs, for the lists of runs in the Prefect UI."""

from __future__ import annotations

from pathlib import PurePosixPath
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from headway.ledger import Ledger, ReleaseRecord
from headway.system.paths import ledger_url

__all__ = ["release_run_name", "rename_run"]


def release_run_name() -> str:
    """Title of the release that this run has recorded, such as `shop#5 Faster quotes`; before that, what was asked for.

    A run that is resumed gets its name again.
    """
    with Ledger.open(ledger_url()) as ledger:
        known = ledger.releases.by_run(str(flow_run.get_id()))
    if known:
        return known.title
    asked = flow_run.get_parameters()
    if "number" in asked:
        return f"{asked['app']} #{asked['number']}"
    return f"{PurePosixPath(str(asked['repo'])).name.removesuffix('.git')} {asked['ref']}"


async def rename_run(release: ReleaseRecord) -> None:
    """Name this run after the release that it has just recorded."""
    async with get_client() as client:
        await client.update_flow_run(UUID(flow_run.get_id()), name=release.title)
