"""A ledger that is lost, or new: what a platform knows of an app is entered again, and work goes on from there."""

from __future__ import annotations

from headway.domain.errors import EnvironmentLocked, NotFound, UsageError
from headway.domain.plan import Plan
from headway.domain.ports import Target
from headway.ledger import Ledger

__all__ = ["adopt"]

LEASE = 30.0  # seconds; it takes a moment


def adopt(ledger: Ledger, app: str, slug: str, target: Target) -> tuple[str, list[str]]:
    """Enter what the target `slug` remembers of an app: the environment, and their ids, the live one last.

    Nothing on the platform is changed. Raises NotFound when it remembers none, UsageError when the ledger knows some
    already, EnvironmentLocked when somebody is at work there.
    """
    known = target.remembered(app)
    if not known.revisions:
        raise NotFound(
            f"{slug} remembers no revision of {app}",
            "only kubernetes targets do; what others run is in the ledger alone",
        )
    environment = known.revisions[-1][1].environment
    if live := ledger.rollouts.live(app, environment):
        raise UsageError(
            f"{app} {environment}: the ledger knows already that {live} is live", "headway history tells more"
        )
    lock = ledger.locks.acquire(
        app, environment, holder="adoption", revision=known.revisions[-1][0].id, lease=LEASE, above=known.token
    )
    if lock is None:
        raise EnvironmentLocked(f"{app} {environment}: somebody is at work there", "wait for its end")
    try:
        before: str | None = None
        for revision, spec in known.revisions:
            ledger.revisions.save(revision, spec.model_copy(update={"target": slug}))
            plan = Plan(strategy="adopted", new=revision.id, old=before, steps=())
            rollout = ledger.rollouts.start(
                None, app, environment, plan, kind="release", reason=f"adopted from {slug}", token=lock.token
            )
            ledger.rollouts.finish(rollout.id, "done")
            before = revision.id
    finally:
        ledger.locks.release(lock)
    return environment, [revision.id for revision, _ in known.revisions]
