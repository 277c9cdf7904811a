"""Preview: check the commit of a pull request, and deploy it to an environment of its own until it is closed."""

from __future__ import annotations

from prefect import State, flow
from prefect.exceptions import Pause

from flows.rollout import deliver_revision
from flows.teardown import teardown
from flows.verify import verify
from headway.config import PREVIEW
from headway.domain.access import Action
from headway.domain.errors import Superseded
from headway.ledger import ReleaseRecord
from headway.ledger.stages import ALL_CHECKS
from tasks.app_policy import require_allowed_use
from tasks.approvals import wait_for_fork_approval
from tasks.build import build
from tasks.checkout import checkout, look
from tasks.environment_lock import hold_for_release
from tasks.preflight import preconditions
from tasks.previews import (
    base_settings,
    is_closed,
    open_preview,
    preview_settings,
    pull_request,
    record_deployed,
    require_open,
)
from tasks.release_record import ReleaseSession, close_release, launch_specs, open_ledger, run_state, undelivered
from tasks.requester import require
from tasks.run_names import release_run_name
from tasks.supersede import while_newest
from tasks.workloads import require_runner

__all__ = ["preview"]


@flow(name="preview", flow_run_name=release_run_name)
async def preview(
    app: str, number: int, sha: str, base: str = "main", fork: bool = False, by: str = ""
) -> ReleaseRecord | State[ReleaseRecord]:
    """Check the newest commit of a pull request, and deploy it to a preview environment.

    Args:
        app: name of the registered app
        number: of the pull request
        sha: the commit
        base: the branch that the pull request is for
        fork: whether the commit is from a fork: it waits for a person, and gets no secrets
        by: ignored when a person starts the run; services of Headway name what they start it for
    """
    with open_ledger() as ledger:
        require(ledger, Action.RELEASE, app, PREVIEW)
        pull = await pull_request(ledger, app, number, sha, base, fork)
        commit = await look(pull.repo, sha)
        release = ReleaseSession(ledger, await open_preview(ledger, pull, commit, by))
        try:
            require_runner(trusted=not pull.fork)
            if pull.fork:
                await wait_for_fork_approval(release, commit, await base_settings(release, pull))
            source = (await checkout(pull.repo, sha)).model_copy(update={"trusted": not pull.fork})
            settings, refusal = await preview_settings(release, pull, source)
            require_allowed_use(ledger, settings, app, [] if refusal else [PREVIEW])
            await preconditions(release, source, settings, [] if refusal else [PREVIEW])
            async with while_newest(release):
                with release.stage(ALL_CHECKS):
                    await verify(release, source, settings)
            if refusal:
                release.skip_stage(PREVIEW, refusal.what)
                return await close_release(release)
            (spec,) = launch_specs(release, settings, await build(release, source, settings), [PREVIEW])
            await require_open(ledger, pull)
            async with hold_for_release(release, PREVIEW, sha) as session:
                if revision := undelivered(release, spec):
                    rules = settings.environment(PREVIEW)
                    await deliver_revision(release, session, source, rules, revision, spec)
                await record_deployed(session, pull, settings, spec)
            if await is_closed(ledger, pull):
                await teardown(app, number, reason="the pull request was closed while it was deployed")
                raise Superseded(f"pull request #{number} was closed meanwhile")
        except Pause:
            raise
        except BaseException as error:
            return run_state(await close_release(release, error), error)
        return await close_release(release)
