"""Deployments of a Railway service: which one serves, which one is in progress, and waiting for their end."""

from __future__ import annotations

import time

from prefect.logging import get_logger

from blocks.targets._hosted import LAST_LINES
from blocks.targets.railway.client import BROKEN, GOING, SERVING, Deployment, Instance, Place, Railway
from headway.domain.errors import TargetError
from headway.domain.revision import LaunchSpec

__all__ = ["follow", "going", "is_of", "live", "newer", "revision_of"]

NEW = 60.0  # seconds until a deployment that was asked for is listed
LOG = get_logger("headway.railway")


def live(service: Instance) -> Deployment | None:
    """The deployment that answers: the newest one that runs, or the one that ran until it crashed."""
    crashed = service.latest if service.latest and service.latest.status == "CRASHED" else None
    running = [one for one in service.active if one.status in SERVING]
    return max(running, key=lambda one: one.created, default=crashed)


def going(service: Instance) -> Deployment | None:
    """The deployment that will replace the one that answers, unless somebody stops it."""
    return service.latest if service.latest and service.latest.status in GOING else None


def is_of(deployment: Deployment, spec: LaunchSpec, sha: str = "") -> bool:
    """Whether it is of this image or commit, as far as Railway says what it deployed."""
    if spec.artifact.kind == "image":
        return bool(deployment.meta.get("image") == spec.artifact.location)
    return bool(deployment.meta.get("commitHash", sha) == sha)


def revision_of(railway: Railway, app: str, deployment: Deployment) -> str | None:
    """Which one it is; None for what others have deployed."""
    told = railway.told(deployment.id)
    return told.get("HEADWAY_REVISION") if told.get("HEADWAY_APP") == app else None


def newer(railway: Railway, place: Place, before: Deployment | None, poll: float) -> str:
    """Wait for a deployment after this one, and return its id. Raises TargetError when none is listed in time."""
    end = time.monotonic() + NEW
    while time.monotonic() < end:
        latest = railway.instance(place).latest
        if latest and (before is None or latest.id != before.id):
            return latest.id
        time.sleep(poll)
    raise TargetError(f"{railway.where}: no deployment came of the rollback", "see the service in Railway")


def follow(railway: Railway, app: str, deployment: str, *, timeout: float, poll: float) -> None:
    """Wait until the deployment serves. One that does not in time is ended: the one before it still serves."""
    end, told = time.monotonic() + timeout, ""
    while True:
        found = railway.deployment(deployment)
        if found.status != told:
            told = found.status
            LOG.info("%s: deployment %s is %s", railway.where, deployment, told)
        if told in SERVING:
            return
        if told in BROKEN:
            said = railway.build_log(deployment, LAST_LINES)
            said += [line for _, line in railway.log(deployment, LAST_LINES)]
            last = " | ".join(said[-LAST_LINES:]) or "it logged nothing"
            raise TargetError(
                f"{app}: deployment {deployment} is {told}: {last}",
                "its build and deploy logs are in Railway",
            )
        if told == "NEEDS_APPROVAL":
            railway.end(found)
            raise TargetError(
                f"{app}: deployment {deployment} waits for somebody's approval in Railway: cancelled",
                "have the service deploy what the owner of the token asks for, then release again",
            )
        if time.monotonic() >= end:
            railway.end(found)
            raise TargetError(
                f"{app}: deployment {deployment} is still {told} after {timeout:g} s: cancelled",
                "give the target a longer `timeout`, or see its logs in Railway",
            )
        time.sleep(poll)
