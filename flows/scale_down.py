"""Stops the revision that a blue-green rollout kept warm, when its time is over."""

from __future__ import annotations

from prefect import flow, get_run_logger

from headway.domain.errors import EnvironmentLocked
from tasks.approvals import hold
from tasks.rollout_steps import retire_idle

__all__ = ["scale_down"]


@flow(name="scale-down", flow_run_name="{app} {environment} {revision}")
async def scale_down(app: str, environment: str, revision: str) -> None:
    """Stop a revision that nobody is routed to any more; one that serves again stays.

    Whoever is at work in the environment just now stops what is left over itself.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        revision: id of the revision to stop
    """
    try:
        async with hold(app, environment, holder=f"scale-down of {revision}", revision=revision, release=None):
            await retire_idle(app, environment, revision)
    except EnvironmentLocked as busy:
        get_run_logger().info("left to who is at work there: %s", busy)
