"""The statement of a receipt: in-toto Statement v1, about one artifact and one environment, from the ledger alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from headway.config import Settings
from headway.domain.plan import Analyze, Gate, Rehearse, Verify
from headway.domain.revision import LaunchSpec
from headway.ledger import ApprovalRecord, Ledger, ReleaseRecord, RolloutRecord, StageRecord, StepRecord
from headway.ledger.release_inputs import SBOM

__all__ = ["PAYLOAD_TYPE", "PREDICATE_TYPE", "statement"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "https://headway.dev/release-receipt/v1"
JUDGING = (Analyze, Gate, Rehearse, Verify)  # steps whose outcome is a verdict


def statement(
    ledger: Ledger, release: ReleaseRecord, settings: Settings, spec: LaunchSpec, *, ended: bool = False
) -> dict[str, Any]:
    """What the ledger has of a release now: before the rollout to the environment of `spec`, or when it has `ended`."""
    assert release.sha is not None  # it was recorded when the release began
    stages = {stage.name: stage for stage in ledger.stages.by_release(release.id)}
    rollouts = {one.environment: one for one in ledger.rollouts.by_release(release.id) if one.kind == "release"}
    requests = ledger.approvals.by_release(release.id)
    path = settings.release_path()
    before = path[: path.index(spec.environment) + ended] if spec.environment in path else []
    image = spec.artifact.location.partition("@")[0] if spec.artifact.kind == "image" else None
    digest = {"sha256": spec.artifact.digest.removeprefix("sha256:")}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": image or release.app, "digest": digest}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "app": release.app,
            "release": release.name,
            "environment": None if ended else spec.environment,
            "revision": spec.revision(release.app, release.sha).id,
            "requestedBy": release.requested_by,
            "signedAt": datetime.now(UTC).isoformat(),
            "source": {
                "repository": release.repo,
                "ref": release.ref,
                "commit": release.sha,
                "tree": release.tree,
                "author": release.author,
            },
            "checks": [_stage(name, stages.get(name)) for name in settings.checks],
            "build": {"kind": spec.artifact.kind, "digest": spec.artifact.digest, "bytes": spec.artifact.size},
            "sbom": ledger.inputs.get(release.id, SBOM),
            "approvals": [_approved(ledger, one) for one in requests if one.state == "approved"],
            "environments": [_rolled_out(ledger, name, rollouts.get(name)) for name in before],
        },
    }


def _stage(name: str, stage: StageRecord | None) -> dict[str, Any]:
    if stage is None:
        return {"name": name, "state": "missing"}
    return {"name": name, "state": stage.state, "detail": stage.detail, "seconds": round(stage.seconds, 3)}


def _approved(ledger: Ledger, request: ApprovalRecord) -> dict[str, Any]:
    """An approval, with the decision of each person."""
    decisions = [
        {
            "by": str(one.principal),
            "decision": one.decision,
            "reason": one.reason,
            "via": one.via,
            "at": one.decided_at.isoformat(),
        }
        for one in ledger.approvals.decisions(request.id)
    ]
    return {"environment": request.environment, "asks": request.asks, "by": request.decided_by, "decisions": decisions}


def _rolled_out(ledger: Ledger, environment: str, rollout: RolloutRecord | None) -> dict[str, Any]:
    """How the rollout of this release to an environment before ended, and how it was measured."""
    if rollout is None:
        return {"name": environment, "state": "missing"}
    steps = ledger.rollouts.steps(rollout.id)
    readings = [[position, one.model_dump(mode="json")] for position, one in ledger.readings.by_rollout(rollout.id)]
    return {
        "name": environment,
        "state": rollout.state,
        "revision": rollout.plan.new,
        "strategy": rollout.plan.strategy,
        "startedAt": rollout.started_at.isoformat(),
        "finishedAt": rollout.finished_at.isoformat() if rollout.finished_at else None,
        "verdicts": [
            {"step": step.title, "outcome": step.outcome, "evidence": step.detail}
            for step in steps
            if isinstance(rollout.plan.steps[step.position], JUDGING)
        ],
        "readings": {"count": len(readings), "sha256": _hash(readings)},
        "requests": _requests(steps),
    }


def _hash(readings: Sequence[Any]) -> str:
    """SHA-256 of JSON without spaces, keys sorted."""
    return hashlib.sha256(json.dumps(readings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _requests(steps: Sequence[StepRecord]) -> dict[str, int] | None:
    """Requests of users during the rollout; None if they were not counted."""
    counted = [step for step in steps if step.requests is not None]
    if not counted:
        return None
    return {"total": sum(step.requests or 0 for step in counted), "failed": sum(step.failed or 0 for step in counted)}
