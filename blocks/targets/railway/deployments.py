"""Deployments of a Railway service: which one serves, which one is in progress, and waiting for their end."""

from __future__ import annotations

import time

from prefect.logging import get_logger

from blocks.targets._hosted import LAST_LINES
from blocks.targets.railway.client import BROKEN, GOING, SERVING, Deployment, Instance, Place, Railway
from headway.domain.errors import TargetError
from headway.domain.revision import LaunchSpec

__all__ = ["follow", "going", "is_of", "live", "newer", "revision_of"]

NEW = 60.0  # seconds until a requested deployment is listed
LOG = get_logger("headway.railway")


def live(service: Instance) -> Deployment | None:
    """The serving deployment: the newest one that runs, or the one that ran until it crashed."""
    crashed = service.latest if service.latest and service.latest.status == "CRASHED" else None
    running = [one for one in service.active if one.status in SERVING]
    return max(running, key=lambda one: one.created, default=crashed)


def going(service: Instance) -> Deployment | None:
    """The deployment in progress, which will replace the serving one."""
    return service.latest if service.latest and service.latest.status in GOING else None


def is_of(deployment: Deployment, spec: LaunchSpec, sha: str = "") -> bool:
    """Whether the deployment has this image or commit, according to Railway's metadata."""
    if spec.artifact.kind == "image":
        return bool(deployment.meta.get("image") == spec.artifact.location)
    return bool(deployment.meta.get("commitHash", sha) == sha)


def revision_of(railway: Railway, app: str, deployment: Deployment) -> str | None:
    """Revision of a deployment; None for a foreign one."""
    identity = railway.identity(deployment.id)
    return identity.get("HEADWAY_REVISION") if identity.get("HEADWAY_APP") == app else None


def newer(railway: Railway, place: Place, before: Deployment | None, poll: float) -> str:
    """Wait for a deployment after this one, and return its id. Raises TargetError if none is listed in time."""
    end = time.monotonic() + NEW
    while time.monotonic() < end:
        latest = railway.instance(place).latest
        if latest and (before is None or latest.id != before.id):
            return latest.id
        time.sleep(poll)
    raise TargetError(f"{railway.where}: no deployment came of the rollback", "see the service in Railway")


def follow(railway: Railway, app: str, deployment: str, *, timeout: float, poll: float) -> None:
    """Wait until the deployment serves. Cancels it after the timeout: the previous one still serves."""
    end, status = time.monotonic() + timeout, ""
    while True:
        found = railway.deployment(deployment)
        if found.status != status:
            status = found.status
            LOG.info("%s: deployment %s is %s", railway.where, deployment, status)
        if status in SERVING:
            return
        if status in BROKEN:
            log = railway.build_log(deployment, LAST_LINES)
            log += [line for _, line in railway.log(deployment, LAST_LINES)]
            last = " | ".join(log[-LAST_LINES:]) or "it logged nothing"
            raise TargetError(
                f"{app}: deployment {deployment} is {status}: {last}",
                "its build and deploy logs are in Railway",
            )
        if status == "NEEDS_APPROVAL":
            railway.end(found)
            raise TargetError(
                f"{app}: deployment {deployment} waits for somebody's approval in Railway: cancelled",
                "have the service deploy what the owner of the token asks for, then release again",
            )
        if time.monotonic() >= end:
            railway.end(found)
            raise TargetError(
                f"{app}: deployment {deployment} is still {status} after {timeout:g} s: cancelled",
                "give the target a longer `timeout`, or see its logs in Railway",
            )
        time.sleep(poll)
