"""The policy of an app, applied to a release: where its commit is from, what it may use, and its strictest rules."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from headway.config import FILE_NAME, Settings, StoredSettings
from headway.config.app_policy import AppPolicy
from headway.domain.access import Action
from headway.domain.errors import NotFound, SettingsError, UsageError
from headway.domain.principal import Principal
from headway.domain.refusal import Refusal
from headway.domain.source import Source
from headway.ledger import Ledger
from headway.ledger.release_inputs import SETTINGS
from headway.policy import app_policy
from headway.policy.access import may_by_role
from headway.policy.app_policy import Floor, RegisteredName
from headway.scm import git
from headway.system.os_user import home_owner
from headway.system.paths import home
from tasks.release_record import ReleaseSession
from tasks.requester import requester

__all__ = ["apply_policy", "require_allowed_source", "require_allowed_use"]

TOKEN = "token:"  # noqa: S105  # how a token is named as requester


@task(name="source", task_run_name="source", cache_policy=NO_CACHE)
async def require_allowed_source(ledger: Ledger, repo: str, source: Source, app: str) -> None:
    """Refuse a commit that is not of the app's repository, or of none of its release branches and tags.

    A run that is resumed is not asked again: a branch may be gone by then. Raises UsageError, SourceError.
    """
    if ledger.releases.by_run(str(flow_run.get_id())):
        return
    policy = _policy(ledger, app)
    _raise(app_policy.repository_refusal(app, source.repo, _repository(ledger, app, policy)))
    allowed = app_policy.allowed_ref(policy)
    if await asyncio.to_thread(git.reached_from, repo, source.sha, home() / "workspaces", allowed) is None:
        names = f"{', '.join((*policy.branches, *policy.tags))}" if policy else "a branch or a tag"
        raise UsageError(
            f"{source.repo}: {source.sha[:7]} is not in the history of {names}",
            "merge it first; a pull request gets a preview environment",
        )


@task(name="policy", task_run_name="policy", cache_policy=NO_CACHE)
async def apply_policy(release: ReleaseSession, settings: Settings, path: list[str]) -> Settings:
    """The settings under the policy of the app: the environments of `path` have the strictest rules.

    Those are of headway.yaml, the policy, and the release that is live: a commit that takes a rule away is released
    under that rule. Raises UsageError when the commit names a secret or target that it may not use, or when who
    requested the release may not release to an environment.
    """
    ledger = release.ledger
    if not release.passed_stage("configuration"):  # who requested it may lose their role while it waits
        _require_allowed_requester(release, path)
    require_allowed_use(ledger, settings, settings.app, path)
    environments, notes = dict(settings.environments), []
    for name in path:
        floors = _floors(ledger, settings, name, release.record.id)
        environments[name], stricter = app_policy.effective(name, environments[name], floors)
        notes += stricter
    for note in notes:
        get_run_logger().warning("%s", note)
    if notes:
        with release.stage("policy") as stage:
            stage.detail = "; ".join(notes)
    return settings.model_copy(update={"environments": environments})


def require_allowed_use(ledger: Ledger, settings: Settings, app: str, environments: list[str]) -> None:
    """Refuse secrets and targets that are not for this app. Raises UsageError."""
    policy = _policy(ledger, app)
    registered = [RegisteredName(app=one.name, secret=one.secret) for one in ledger.apps.all()]
    _raise(app_policy.secret_refusal(settings, app, policy, registered))
    _raise(app_policy.target_refusal(settings, environments, policy, app))


def _require_allowed_requester(release: ReleaseSession, path: list[str]) -> None:
    """Refuse a token or person without the right to release to an environment of the path.

    A token may be limited to environments, and the commit says which ones its release goes through. People need a role
    once somebody has one for the app. Services release what a git host or a schedule asks for.
    """
    record, ledger = release.record, release.ledger
    named = record.requested_by.removeprefix(TOKEN)
    is_token = named != record.requested_by
    who = Principal(kind="token", name=named) if is_token else requester(ledger)
    if who is None:
        return
    authority = ledger.grants.authority(who, home_owner(home()))
    for environment in path:
        _raise(may_by_role(authority, Action.RELEASE, record.app, environment, now=datetime.now(UTC)))


def _policy(ledger: Ledger, app: str) -> AppPolicy | None:
    found = ledger.policies.get(app)
    return found.policy if found else None


def _repository(ledger: Ledger, app: str, policy: AppPolicy | None) -> str | None:
    """The repository of an app: of its policy, its registration, or what is live; None: it has none yet."""
    if policy and policy.repository:
        return policy.repository
    try:
        return ledger.apps.get(app).repo
    except NotFound:
        pass  # an app that is not registered, on a laptop
    for environment in ledger.rollouts.environments(app):
        for rollout in ledger.rollouts.done(app, environment, 1):
            if rollout.release_id:
                return ledger.releases.get(rollout.release_id).repo
    return None


def _floors(ledger: Ledger, settings: Settings, environment: str, release_id: str) -> list[Floor]:
    """The least that an environment asks for, the policy last: of all floors it is met in any case."""
    app, target = settings.app, settings.environment(environment).target
    live = [
        name
        for name in ledger.rollouts.environments(app)
        if (revision := ledger.rollouts.live(app, name))
        and ledger.revisions.find(app, revision, environment=name)[1].target == target
    ]
    before = (_before(ledger, app, name, release_id) for name in dict.fromkeys((environment, *live)))
    policy = _policy(ledger, app)
    own = app_policy.floors_of(app, environment, target, policy, live) if policy else []
    return [*filter(None, before), *own]


def _before(ledger: Ledger, app: str, environment: str, release_id: str) -> Floor | None:
    """What headway.yaml of the last release to an environment asks for there; None before the first one."""
    done = ledger.rollouts.last_accepted(app, environment, release_id)
    stored = ledger.inputs.get(done, SETTINGS) if done else None
    if done is None or stored is None:
        return None
    name = ledger.releases.get(done).name
    try:
        rules = StoredSettings.load(stored, name).environments.get(environment)
    except SettingsError as error:
        get_run_logger().warning("%s: its rules are not compared: %s", environment, error.what)
        return None
    return Floor.of(f"{FILE_NAME} of {name}, the last release", rules) if rules else None


def _raise(refusal: Refusal | None) -> None:
    if refusal:
        raise UsageError(refusal.what, refusal.hint)
