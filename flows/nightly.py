"""Nightly release: every app whose main branch has commits that are not live yet."""

from __future__ import annotations

import asyncio

from prefect import flow

from headway.domain.access import Action
from headway.policy.nightly import NightlyResult
from tasks.nightly import check_head, registered_apps, release_head, summarize
from tasks.release_record import open_ledger
from tasks.requester import requested_by, require

__all__ = ["nightly"]


@flow(name="nightly", flow_run_name="nightly")
async def nightly(apps: list[str] | None = None, override: str = "", by: str = "nightly") -> list[NightlyResult]:
    """Release the head of each registered app, if it is not live yet and nothing prevents it.

    Args:
        apps: names of the apps; all registered apps by default
        override: reason to release in spite of a freeze; kept in the record
        by: ignored when a person starts the run; services of Headway name what they start it for
    """
    with open_ledger() as ledger:
        by = requested_by(ledger, by)
        chosen = registered_apps(ledger, apps)
        for app in chosen:
            require(ledger, Action.RELEASE, app.name)
        heads = await asyncio.gather(*(check_head(ledger, app, override) for app in chosen))
        pairs = zip(chosen, heads, strict=True)
        nights = await asyncio.gather(*(release_head(ledger, app, head, override, by) for app, head in pairs))
    await summarize(list(nights), override, by)
    return list(nights)
