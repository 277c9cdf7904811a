"""Receipts: signed before each rollout, and demanded where an environment or a target requires them."""

from __future__ import annotations

import asyncio
import json

from prefect import get_run_logger

from blocks import loading
from headway.config import Settings, StoredSettings
from headway.domain.errors import HeadwayError, ReleaseFailed
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import Ledger, ReleaseRecord
from headway.ledger.receipts import ENDED
from headway.ledger.release_inputs import BASE_SETTINGS, SETTINGS
from headway.policy.app_policy import floors_of
from headway.policy.receipts.statement import PAYLOAD_TYPE, statement
from headway.policy.receipts.verification import Expected, verify
from headway.system import signatures
from headway.system.paths import home
from tasks.environment_lock import EnvironmentSession
from tasks.release_record import ReleaseSession

__all__ = ["require_receipt", "sign_last_receipt", "sign_receipt"]

ENVELOPE = "application/vnd.dsse.envelope.v1+json"


async def sign_receipt(release: ReleaseSession, spec: LaunchSpec, *, ended: bool = False) -> None:
    """Sign what the ledger has of the release before this rollout, or at its end; save it, and push it beside an image.

    Raises HeadwayError when it cannot be signed. A registry that does not take it is logged: the ledger has it.
    """
    ledger, record = release.ledger, release.record
    settings = _settings(ledger, record)
    made = statement(ledger, ledger.releases.get(record.id), settings, spec, ended=ended)
    envelope = await asyncio.to_thread(signatures.sign, json.dumps(made).encode(), PAYLOAD_TYPE, home())
    environment = ENDED if ended else spec.environment
    ledger.receipts.save(record.id, record.app, environment, spec.artifact.digest, envelope)
    get_run_logger().info("receipt of %s signed: %s %s", record.name, environment or "complete", spec.artifact.digest)
    if spec.artifact.kind != "image":
        return
    repository = spec.artifact.location.partition("@")[0]
    content = json.dumps(envelope).encode()
    try:
        registry = await loading.load_registry(settings.build.registry, repository)
        await asyncio.to_thread(registry.attach, repository, spec.artifact.digest, ENVELOPE, content, ENVELOPE)
    except HeadwayError as error:
        get_run_logger().warning("the receipt is not beside the image: %s", error.what)


async def sign_last_receipt(release: ReleaseSession) -> None:
    """Sign the receipt of a release that has succeeded, with its last environment. A failure is logged."""
    ledger, record = release.ledger, release.record
    done = [one for one in ledger.rollouts.by_release(record.id) if (one.kind, one.state) == ("release", "done")]
    if not done:
        return
    try:
        stored = ledger.inputs.get(record.id, f"launch {done[-1].environment}")
        await sign_receipt(release, LaunchSpec.model_validate(stored), ended=True)
    except HeadwayError as error:
        get_run_logger().warning("no receipt at the end of %s: %s", record.name, error.what)


async def require_receipt(session: EnvironmentSession, revision: Revision, spec: LaunchSpec) -> None:
    """Raise ReleaseFailed when a receipt is required here, and there is no valid one for this revision."""
    ledger = session.ledger
    if not await _is_required(session, spec):
        return
    expected = Expected(
        app=session.app, digest=spec.artifact.digest, environment=session.environment, commit=revision.sha
    )
    receipt = ledger.receipts.newest(session.app, session.environment, spec.artifact.digest)
    if receipt is None:
        raise ReleaseFailed(
            f"{session}: {revision} has no receipt, and nothing is launched here without one", "release the commit"
        )
    try:
        await asyncio.to_thread(verify, receipt.envelope, signatures.trusted_keys(home()), expected)
    except HeadwayError as error:
        raise ReleaseFailed(f"{session}: {revision} is not launched: {error.what}", error.hint) from error


async def _is_required(session: EnvironmentSession, spec: LaunchSpec) -> bool:
    """Whether the revision, the target, the policy of the app, or the newest revision of the environment requires one.

    The newest one counts for a rollback to a revision from before the requirement.
    """
    ledger, app, environment = session.ledger, session.app, session.environment
    target, policy = await session.target(spec.target), ledger.policies.get(app)
    floors = floors_of(app, environment, spec.target, policy.policy, ()) if policy else []
    wanted = (spec.require, target.required(), ledger.receipts.required(app, environment))
    return "receipt" in (*wanted, *(floor.require for floor in floors))


def _settings(ledger: Ledger, release: ReleaseRecord) -> Settings:
    """The settings of the release; of a fork's pull request those of the base branch, which it uses."""
    stored = ledger.inputs.get(release.id, SETTINGS) or ledger.inputs.get(release.id, BASE_SETTINGS)
    assert stored is not None  # both are stored before anything is built
    return StoredSettings.load(stored, release.name)
