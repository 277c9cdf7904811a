"""Releases every night what was merged and is not live yet."""

from __future__ import annotations

import asyncio

from prefect import flow

from headway.policy.nightly import Night
from tasks.nightly import look, registered, release_tonight, summarize

__all__ = ["nightly"]


@flow(name="nightly", flow_run_name="nightly")
async def nightly(apps: list[str] | None = None, override: str = "", by: str = "nightly") -> list[Night]:
    """Release the head of each registered app where it differs from what is live and nothing speaks against it.

    Args:
        apps: names of the apps to look at; all that are registered when left out
        override: why to release in spite of a freeze; kept in the record
        by: who asks for it
    """
    places = registered(apps)
    found = await asyncio.gather(*(look(app, override) for app in places))
    done = await asyncio.gather(
        *(release_tonight(app, one, override, by) for app, one in zip(places, found, strict=True))
    )
    await summarize(list(done), override, by)
    return list(done)
