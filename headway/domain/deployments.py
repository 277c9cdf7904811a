"""Names of Headway's Prefect deployments, as `FLOW/NAME`. prefect.yaml describes them."""

from __future__ import annotations

__all__ = [
    "CONTRACT",
    "DELETE",
    "FORMER",
    "MERGE_GROUP",
    "NIGHTLY",
    "PREVIEW",
    "RELEASE",
    "ROLLBACK",
    "SCALE_DOWN",
    "STEER",
    "TEARDOWN",
    "present_name",
]

RELEASE = "release/release-commit"
PREVIEW = "preview/deploy-preview"
MERGE_GROUP = "merge-group/check-merge-group"
TEARDOWN = "teardown/remove-preview"
STEER = "steer/steer-rollout"
SCALE_DOWN = "scale-down/stop-idle-revision"
CONTRACT = "contract/contract-schema"
ROLLBACK = "rollback/roll-back-environment"
NIGHTLY = "nightly/release-nightly"
DELETE = "delete/delete-app"

FORMER = {
    f"{name.partition('/')[0]}/main": name
    for name in (RELEASE, PREVIEW, TEARDOWN, STEER, SCALE_DOWN, CONTRACT, ROLLBACK, NIGHTLY)
}
"""Names in 0.1 -> present names. They work in 0.2."""


def present_name(name: str) -> str:
    """The present name of a deployment that may be named as in 0.1."""
    return FORMER.get(name, name)
