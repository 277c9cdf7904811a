"""Stops the revision that a blue-green rollout kept warm, when its time is over."""

from __future__ import annotations

from prefect import flow

from tasks.gates import hold
from tasks.steps import retire_idle

__all__ = ["scale_down"]


@flow(name="scale-down", flow_run_name="{app} {environment} {revision}")
async def scale_down(app: str, environment: str, revision: str) -> None:
    """Stop a revision that nobody is routed to any more; one that serves again stays.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        revision: id of the revision to stop
    """
    async with hold(app, environment, holder=f"scale-down of {revision}", revision=revision, release=None):
        await retire_idle(app, environment, revision)
