"""Shows a pull request: checks its commit, and brings it to a place of its own for as long as it is open."""

from __future__ import annotations

from prefect import State, flow
from prefect.exceptions import Pause

from flows.rollout import deliver
from flows.teardown import teardown
from flows.verify import verify
from headway.config import PREVIEW
from headway.domain.errors import Superseded
from headway.ledger import ReleaseRecord
from tasks.approvals import hold, let_in, while_newest
from tasks.build import build
from tasks.checkout import checkout, look
from tasks.preflight import preconditions
from tasks.previews import ask, base_settings, closed, open_preview, preview_settings, require_open, up
from tasks.release_record import close_release, run_state, skip_stage

__all__ = ["preview"]


@flow(name="preview", flow_run_name="{app} #{number}")
async def preview(
    app: str, number: int, sha: str, base: str = "main", fork: bool = False, by: str = ""
) -> ReleaseRecord | State[ReleaseRecord]:
    """Check the newest commit of a pull request, and show it at a URL of its own.

    Args:
        app: name of the registered app
        number: of the pull request
        sha: the commit
        base: the branch that the pull request is for
        fork: its commits are from somebody else's repository: they wait for a person, and get no secrets
        by: who asks for it
    """
    pull = await ask(app, number, sha, base, fork)
    seen = await look(pull.repo, sha)
    record = await open_preview(pull, seen, by)
    try:
        if pull.fork:
            await let_in(record, seen, await base_settings(pull))
        source = (await checkout(pull.repo, sha)).model_copy(update={"trusted": not pull.fork})
        settings, why_not = await preview_settings(pull, source)
        await preconditions(record, source, settings, [] if why_not else [PREVIEW])
        async with while_newest(record):
            await verify(record, source, settings)
        if why_not:
            skip_stage(record, PREVIEW, why_not)
            return await close_release(record)
        spec = settings.launch_spec(PREVIEW, await build(record, source, settings), record.name)
        await require_open(pull)
        async with hold(record.app, PREVIEW, holder=record.name, revision=sha, release=record):
            await deliver(record, source, settings.environment(PREVIEW), spec)
            await up(pull, settings, spec)
        if await closed(pull):
            await teardown(app, number, reason="the pull request was closed while it was deployed")
            raise Superseded(f"pull request #{number} was closed meanwhile")
    except Pause:
        raise
    except BaseException as error:
        return run_state(await close_release(record, error), error)
    return await close_release(record)
