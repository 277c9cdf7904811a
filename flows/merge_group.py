"""Merge group: the checks of pull requests that a merge queue (GitLab: merge train) wants to merge together."""

from __future__ import annotations

from prefect import State, flow
from prefect.exceptions import Pause

from flows.verify import verify
from headway.domain.access import Action
from headway.ledger import ReleaseRecord
from headway.ledger.stages import ALL_CHECKS
from headway.policy import merge_queue
from tasks.checkout import checkout, read_settings
from tasks.preflight import preconditions
from tasks.release_record import ReleaseSession, close_release, open_ledger, run_state, start_release
from tasks.requester import require
from tasks.supersede import while_newest

__all__ = ["merge_group"]


@flow(name="merge-group", flow_run_name="{app} {sha}")
async def merge_group(app: str, sha: str, by: str = "") -> ReleaseRecord | State[ReleaseRecord]:
    """Run the checks of a commit that a merge queue has made. Nothing is deployed.

    Args:
        app: name of the registered app
        sha: the commit
        by: ignored when a person starts the run; services of Headway name what they start it for
    """
    with open_ledger() as ledger:
        require(ledger, Action.RELEASE, app)
        source = await checkout(ledger.apps.get(app).repo, sha)
        release = ReleaseSession(ledger, start_release(ledger, merge_queue.name(app), source, by))
        try:
            settings = await read_settings(source)
            await preconditions(release, source, settings, [])
            async with while_newest(release):
                with release.stage(ALL_CHECKS):
                    await verify(release, source, settings)
        except Pause:
            raise
        except BaseException as error:
            return run_state(await close_release(release, error), error)
        return await close_release(release)
