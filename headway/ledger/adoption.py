"""Adoption: record the revisions that a platform remembers in a ledger that is new, or replaces a lost one."""

from __future__ import annotations

from headway.domain.errors import EnvironmentLocked, NotFound, UsageError
from headway.domain.plan import Plan
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import Ledger, ReleaseRecord

__all__ = ["adopt"]

LEASE = 30.0  # seconds


def adopt(ledger: Ledger, app: str, slug: str, target: Target) -> tuple[str, list[str]]:
    """Record what the target `slug` remembers of an app.

    Returns the environment and the ids of the revisions, the live one last. Changes nothing
    on the platform. Raises NotFound if the target has stored no revision, UsageError when the ledger has a live one
    already, EnvironmentLocked when another run holds the environment.
    """
    known = target.remembered(app)
    if not known.revisions:
        raise NotFound(
            f"{slug} has no record of a revision of {app}",
            "only kubernetes targets store revisions; those of other targets are in the ledger only",
        )
    environment = known.revisions[-1][1].environment
    if live := ledger.rollouts.live(app, environment):
        raise UsageError(f"{app} {environment}: {live} is live already, according to the ledger", "see headway history")
    lock = ledger.locks.acquire(
        app, environment, holder="adoption", revision=known.revisions[-1][0].id, lease=LEASE, above=known.token
    )
    if lock is None:
        raise EnvironmentLocked(f"{app} {environment}: another run holds the environment", "wait until it ends")
    try:
        before: str | None = None
        for revision, spec in known.revisions:
            ledger.revisions.save(revision, spec.model_copy(update={"target": slug}))
            plan = Plan(strategy="adopted", new=revision.id, old=before, steps=())
            release = _release(ledger, app, revision, spec)
            rollout = ledger.rollouts.start(
                release.id if release else None,
                app,
                environment,
                plan,
                kind="release",
                reason=f"adopted from {slug}",
                token=lock.token,
            )
            ledger.rollouts.finish(rollout.id, "done")
            before = revision.id
    finally:
        ledger.locks.release(lock)
    return environment, [revision.id for revision, _ in known.revisions]


def _release(ledger: Ledger, app: str, revision: Revision, spec: LaunchSpec) -> ReleaseRecord | None:
    """The release that launched a revision, by its name in the spec: `shop#14`."""
    name, _, number = spec.release.rpartition("#")
    return ledger.releases.adopt(app, int(number), revision) if name == app and number.isdecimal() else None
