"""Scale-down: stop the revision that a blue-green rollout kept warm."""

from __future__ import annotations

from prefect import flow, get_run_logger

from headway.domain.errors import EnvironmentLocked
from tasks.environment_lock import hold
from tasks.release_record import open_ledger
from tasks.rollout_steps import retire_idle

__all__ = ["scale_down"]


@flow(name="scale-down", flow_run_name="stop {revision} of {app} {environment}")
async def scale_down(app: str, environment: str, revision: str) -> None:
    """Stop a revision that gets no traffic. One that gets traffic again is kept.

    Does nothing while another run holds the environment: that run stops what is left over itself.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        revision: id of the revision to stop
    """
    with open_ledger() as ledger:
        try:
            holder = f"scale-down of {revision}"
            async with hold(ledger, app, environment, holder=holder, revision=revision) as session:
                await retire_idle(session, revision)
        except EnvironmentLocked as busy:
            get_run_logger().info("%s %s: left to the run that holds it: %s", app, environment, busy)
