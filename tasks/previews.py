"""Preview environments: the state of the pull request, the settings of its preview, and the teardown."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from blocks import loading
from headway.config import FILE_NAME, PREVIEW, Settings, StoredSettings
from headway.domain.base import Frozen
from headway.domain.errors import GitHostError, Superseded, UsageError
from headway.domain.git import PullRequest
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec
from headway.domain.source import Source
from headway.ledger import AppRecord, Ledger, ReleaseRecord
from headway.ledger.release_inputs import BASE_SETTINGS
from headway.policy import previews
from headway.rollout import strategies
from headway.rollout.executor import RolloutContext
from headway.scm.branch_head import head_of
from headway.system.paths import home
from tasks.checkout import SETTINGS, checkout, read_settings
from tasks.environment_lock import EnvironmentSession
from tasks.release_record import ReleaseSession, start_release
from tasks.rollout_steps import RolloutRequest, start_rollout
from tasks.run_names import rename_run

__all__ = [
    "Pull",
    "base_settings",
    "close_preview",
    "forget",
    "is_closed",
    "open_preview",
    "plan_teardown",
    "preview_settings",
    "preview_targets",
    "pull_request",
    "record_deployed",
    "require_open",
    "why_keep",
]

PULL = "pull request"  # name of this input of a release


class Pull(Frozen):
    """A pull request, and the commit to deploy."""

    app: str
    """Name of the registered app."""
    name: str
    """Name of the preview, an app of its own, such as shop-pr-42."""
    number: int
    repo: str
    sha: str
    base: str
    fork: bool
    branch: str | None = None
    """The released branch in the registration of the app; None: headway.yaml of the default branch names it."""


@task(name="ask", task_run_name="ask about #{number}", cache_policy=NO_CACHE)
async def pull_request(ledger: Ledger, app: str, number: int, sha: str, base: str, fork: bool) -> Pull:
    """Read the pull request from its git host. It counts as a fork if any source says so. Raises NotFound.

    A run that is resumed gets what it read before.
    """
    release = ledger.releases.by_run(str(flow_run.get_id()))
    if release and (stored := ledger.inputs.get(release.id, PULL)):
        return Pull.model_validate(stored)
    registered, name = ledger.apps.get(app), previews.name(app, number)
    now, known = await _pull_request(registered, number), ledger.previews.get(name)
    fork = fork or (now is not None and now.fork) or (known is not None and known.head == sha and known.fork)
    return Pull(
        app=app,
        name=name,
        number=number,
        repo=registered.repo,
        sha=sha,
        base=now.base if now else base,
        fork=fork,
        branch=registered.branch,
    )


async def _pull_request(app: AppRecord, number: int) -> PullRequest | None:
    """The pull request at its git host; None when no host is configured, or it does not answer."""
    if app.reports is None:
        return None
    try:
        host = await loading.load_git_host(app.reports)
        return await asyncio.to_thread(host.pull_request, app.path, number)
    except GitHostError as error:
        get_run_logger().warning("%s", error)
        return None


@task(name="open preview", task_run_name="open preview", cache_policy=NO_CACHE)
async def open_preview(ledger: Ledger, pull: Pull, source: Source, by: str) -> ReleaseRecord:
    """Record the preview and this release of it. Raises UsageError when another app has its name."""
    ledger.previews.open(pull.name, of=pull.app, number=pull.number, head=pull.sha, fork=pull.fork)
    release = start_release(ledger, pull.name, source, by, preview=True)
    await rename_run(release)
    ledger.inputs.fix(release.id, PULL, pull.model_dump(mode="json"))
    return release


async def base_settings(release: ReleaseSession, pull: Pull) -> Settings:
    """Settings of the base branch, which a fork uses. A run that is resumed gets those that it read before."""
    inputs, record = release.ledger.inputs, release.record
    stored = inputs.get(record.id, BASE_SETTINGS)
    if stored is None:
        read = await read_settings(await checkout(pull.repo, f"refs/heads/{pull.base}"))
        stored = inputs.fix(record.id, BASE_SETTINGS, StoredSettings.document(read))
    return StoredSettings.load(stored, record.name)


async def preview_settings(release: ReleaseSession, pull: Pull, source: Source) -> tuple[Settings, Refusal | None]:
    """Settings of the preview, and why it is not deployed. Raises UsageError."""
    if source.trusted:
        settings = await read_settings(source, release.ledger)
        release.ledger.inputs.fix(release.record.id, SETTINGS, StoredSettings.document(settings))
    else:
        settings = await base_settings(release, pull)
    if settings.app != pull.app:
        raise UsageError(f"its {FILE_NAME} is that of {settings.app}", f"the repository is registered as {pull.app}")
    released, _, _ = await asyncio.to_thread(head_of, pull.repo, home() / "workspaces", pull.branch)
    if released != f"refs/heads/{pull.base}":
        raise UsageError(
            f"it is into {pull.base}", f"only pull requests into {released.removeprefix('refs/heads/')} have previews"
        )
    return settings.preview(pull.name, secrets=source.trusted)


@task(name="is it open", task_run_name="is #{pull.number} open?", cache_policy=NO_CACHE)
async def require_open(ledger: Ledger, pull: Pull) -> None:
    """Raise Superseded when the pull request is closed.

    Not for a newer commit: the trigger rules may exclude that from previews.
    """
    now = await _pull_request(ledger.apps.get(pull.app), pull.number)
    if now is not None and not now.open:
        raise Superseded(f"pull request #{pull.number} was closed", "open it again, and it starts again")


@task(name="is it still open", task_run_name="is #{pull.number} still open?", cache_policy=NO_CACHE)
async def is_closed(ledger: Ledger, pull: Pull) -> bool:
    """Whether the pull request was closed while it was being deployed."""
    now = await _pull_request(ledger.apps.get(pull.app), pull.number)
    return now is not None and not now.open


@task(name="up", task_run_name="up", cache_policy=NO_CACHE)
async def record_deployed(session: EnvironmentSession, pull: Pull, settings: Settings, spec: LaunchSpec) -> None:
    """Record the URL of the preview, and when it expires."""
    target = await session.target(spec.target)
    url = (await asyncio.to_thread(target.observe, pull.name)).url
    ttl = settings.environment(PREVIEW).ttl
    expires_at = datetime.now(UTC) + timedelta(seconds=ttl) if ttl else None
    session.ledger.previews.mark_deployed(pull.name, url, expires_at)
    get_run_logger().info("%s: %s", pull.name, url)


# --- teardown --------------------------------------------------------------------------------------------------


def why_keep(ledger: Ledger, name: str, run: str, seen: datetime | None) -> str:
    """Why the preview must not be torn down any more; empty when it must.

    `seen` is when the preview had last changed when the teardown was requested; None tears it down in any case.
    """
    if newer := ledger.deliveries.successor(run):
        return f"{newer.ref} was opened again, or has another commit, and {name} with it"
    known = ledger.previews.get(name)
    if seen and known and known.updated_at != seen:
        return f"{name} was updated since"
    return ""


def preview_targets(session: EnvironmentSession) -> list[str]:
    """Every target that the preview was ever rolled out to."""
    return session.ledger.revisions.targets(session.app, session.environment)


@task(name="plan teardown", task_run_name="plan teardown of {target}", cache_policy=NO_CACHE)
async def plan_teardown(session: EnvironmentSession, target: str, reason: str) -> RolloutContext:
    """Plan to route no traffic to the preview and to stop all its instances on one target; record the start."""
    loaded = await session.target(target)
    observation = await asyncio.to_thread(loaded.observe, session.app)
    drain = session.ledger.revisions.longest_drain(session.app, session.environment)
    plan = strategies.rollback(observation, None, instances=0, startup=0.0, drain=drain)
    plan = plan.model_copy(update={"strategy": strategies.TEARDOWN})
    request = RolloutRequest(plan=plan, kind="rollback", release_id=None, reason=reason, progress_deadline=drain)
    return await start_rollout(session, loaded, request)


@task(name="forget", task_run_name="forget {session.app} on {target}", cache_policy=NO_CACHE)
async def forget(session: EnvironmentSession, target: str) -> None:
    """Free what the target keeps for an app of which nothing runs: ports, proxies, objects."""
    loaded = await session.target(target)
    await asyncio.to_thread(loaded.forget, session.app)


def close_preview(session: EnvironmentSession, reason: str) -> None:
    """Record that the preview is torn down."""
    session.ledger.previews.close(session.app, reason)
    get_run_logger().info("%s: torn down: %s", session.app, reason)
