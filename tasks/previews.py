"""The steps of a preview: ask how its pull request is, who may run, where it stands; and take all of it away again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks import loading
from headway.config import FILE_NAME, PREVIEW, Settings
from headway.domain.base import Frozen
from headway.domain.errors import GitHostError, Superseded, UsageError
from headway.domain.git import PullRequest
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec
from headway.domain.source import Source
from headway.ledger import AppRecord, ReleaseRecord
from headway.policy import previews
from headway.rollout import strategies
from tasks.approvals import held
from tasks.checkout import checkout, read_settings
from tasks.release_record import ledger, start_release
from tasks.rollout_steps import Prepared, prepare
from tasks.run_results import once_per_run

__all__ = [
    "Pull",
    "ask",
    "base_settings",
    "close",
    "closed",
    "forget",
    "open_preview",
    "plan_teardown",
    "preview_settings",
    "require_open",
    "standing_on",
    "up",
    "wanted_again",
]


class Pull(Frozen):
    """A pull request, and the commit of it that is to be shown."""

    app: str
    """What is registered."""
    name: str
    """What the pull request is called, as an app."""
    number: int
    repo: str
    sha: str
    base: str
    fork: bool


@task(name="ask", task_run_name="ask about #{number}", persist_result=True, cache_policy=once_per_run())
async def ask(app: str, number: int, sha: str, base: str, fork: bool) -> Pull:
    """What is known of the pull request. Whoever says that it is from a fork is believed."""
    registered, name = ledger().apps.get(app), previews.name(app, number)
    now, known = await _pull_request(registered, number), ledger().previews.get(name)
    fork = fork or (now is not None and now.fork) or (known is not None and known.head == sha and known.fork)
    return Pull(
        app=app, name=name, number=number, repo=registered.repo, sha=sha, base=now.base if now else base, fork=fork
    )


async def _pull_request(app: AppRecord, number: int) -> PullRequest | None:
    """As its host says; None where nobody can be asked, or does not answer: then what the host said last counts."""
    if app.reports is None:
        return None
    try:
        host = await loading.load_git_host(app.reports)
        return await asyncio.to_thread(host.pull_request, app.path, number)
    except GitHostError as silent:
        get_run_logger().warning("%s", silent)
        return None


@task(name="open preview", task_run_name="open preview", persist_result=True, cache_policy=once_per_run())
async def open_preview(pull: Pull, source: Source, by: str) -> ReleaseRecord:
    """Enter the preview, and this release of it, in the ledger. Raises UsageError when an app proper has its name."""
    ledger().previews.open(pull.name, of=pull.app, number=pull.number, head=pull.sha, fork=pull.fork)
    return start_release(pull.name, source, by, preview=True)


async def base_settings(pull: Pull) -> Settings:
    """What the branch that it is for says: of a fork nothing that it says itself counts."""
    return await read_settings(await checkout(pull.repo, f"refs/heads/{pull.base}"))


async def preview_settings(pull: Pull, source: Source) -> tuple[Settings, str]:
    """What it is checked and shown with, and why it is not shown, if it is not."""
    settings = await (read_settings(source) if source.trusted else base_settings(pull))
    if settings.app != pull.app:
        raise UsageError(f"its {FILE_NAME} is that of {settings.app}", f"the repository is registered as {pull.app}")
    if settings.branch != pull.base:
        raise UsageError(f"it is for {pull.base}", f"previews are of what is for {settings.branch}")
    return settings.preview(pull.name, secrets=source.trusted)


@task(name="is it open", task_run_name="is #{pull.number} open?", cache_policy=NO_CACHE)
async def require_open(pull: Pull) -> None:
    """Raises Superseded when the pull request is closed. A newer commit is no reason: perhaps it is not to be shown."""
    now = await _pull_request(ledger().apps.get(pull.app), pull.number)
    if now is not None and not now.open:
        raise Superseded(f"pull request #{pull.number} was closed", "open it again, and it starts again")


@task(name="is it still open", task_run_name="is #{pull.number} still open?", cache_policy=NO_CACHE)
async def closed(pull: Pull) -> bool:
    """Whether the pull request was closed while it was deployed."""
    now = await _pull_request(ledger().apps.get(pull.app), pull.number)
    return now is not None and not now.open


@task(name="up", task_run_name="up", cache_policy=NO_CACHE)
async def up(pull: Pull, settings: Settings, spec: LaunchSpec) -> None:
    """Where it answers and until when, for whoever asks."""
    target = await loading.load_target(spec.target)
    url = (await asyncio.to_thread(target.observe, pull.name)).url
    ttl = settings.environment(PREVIEW).ttl
    ledger().previews.mark_deployed(pull.name, url, datetime.now(UTC) + timedelta(seconds=ttl) if ttl else None)
    get_run_logger().info("%s: %s", pull.name, url)


# --- and away --------------------------------------------------------------------------------------------------


def wanted_again(name: str, run: str, seen: datetime | None) -> str:
    """Why a teardown that has waited for its turn is too late; empty while it is not.

    `seen` is when the preview had changed last, as far as whoever asks knew; None: it is to go whatever came since.
    """
    if newer := ledger().deliveries.successor(run):
        return f"{newer.ref} was opened again, or has another commit, and {name} with it"
    known = ledger().previews.get(name)
    if seen and known and known.updated_at != seen:
        return f"{name} was updated since"
    return ""


def standing_on(name: str) -> list[str]:
    """The targets on which anything of it may be: every one that it was ever brought to."""
    return ledger().revisions.targets(name, PREVIEW)


@task(name="plan teardown", task_run_name="plan teardown of {target}", cache_policy=NO_CACHE)
async def plan_teardown(name: str, target: str, reason: str) -> Prepared:
    """What it takes to route nothing to it any more, and to stop all that runs of it."""
    there = await _claimed(name, target)
    observation = await asyncio.to_thread(there.observe, name)
    drain = ledger().revisions.longest_drain(name, PREVIEW)
    plan = strategies.rollback(observation, None, instances=0, startup=0.0, drain=drain)
    plan = plan.model_copy(update={"strategy": strategies.TEARDOWN})
    return await prepare(plan, there, name, PREVIEW, None, "rollback", reason, drain)


@task(name="forget", task_run_name="forget {name} on {target}", cache_policy=NO_CACHE)
async def forget(name: str, target: str) -> None:
    """Have the target free what it keeps for an app of which nothing runs: ports, proxies, objects."""
    await asyncio.to_thread((await _claimed(name, target)).forget, name)


def close(name: str, reason: str) -> None:
    """Nothing of it is left."""
    ledger().previews.close(name, reason)
    get_run_logger().info("%s: torn down: %s", name, reason)


async def _claimed(name: str, target: str) -> Target:
    there = await loading.load_target(target)
    await asyncio.to_thread(there.claim, name, held(name, PREVIEW).token)
    return there
