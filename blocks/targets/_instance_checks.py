"""Health checks of instances that are behind an Envoy on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx

from blocks.envoy.xds import HEALTH_HOST, Address
from blocks.targets._app_state import RevisionState
from headway.domain.refusal import Refusal
from headway.domain.revision import REVISION_HEADER
from headway.domain.traffic import Instance
from headway.domain.version_check import unhealthy
from headway.system import tls

__all__ = ["InstanceStatus", "address_text", "as_instance", "check_all", "public_refusal"]

PUBLIC_TIMEOUT = 10.0  # seconds


class InstanceStatus(NamedTuple):
    """State of an instance according to the platform."""

    run: str | None = None
    """Different each time it is started; None while it does not run."""
    failed: Refusal | None = None
    """Why it will never run."""
    crashed: Refusal | None = None
    """It runs, but has crashed so often that it has failed unless it is ready."""
    unhealthy: Refusal | None = None
    """Why it is not ready, whatever its health path answers."""


def check_all(
    addresses: Mapping[str, Address], statuses: Mapping[str, InstanceStatus], spec: RevisionState, revision: str
) -> list[Instance]:
    """Request the health path of these instances of a revision, all at the same time."""
    health, versions = spec.health, (spec.sha, revision)
    with (
        httpx.Client(timeout=health.timeout, trust_env=False, verify=tls.for_url("http://instance")) as client,
        ThreadPoolExecutor(len(addresses)) as pool,
    ):
        results = pool.map(
            lambda address: unhealthy(
                client, f"http://{address_text(address)}{health.path}", versions, host=health.host or HEALTH_HOST
            ),
            addresses.values(),
        )
        return [
            as_instance(name, address, statuses.get(name, InstanceStatus()), result)
            for (name, address), result in zip(addresses.items(), results, strict=True)
        ]


def public_refusal(url: str, path: str, revisions: Collection[str]) -> Refusal | None:
    """Why none of these revisions answers at a public address; None when one does."""
    try:
        answer = httpx.get(f"{url}{path}", timeout=PUBLIC_TIMEOUT, trust_env=False, verify=tls.for_url(url))
    except httpx.HTTPError as error:
        return Refusal(f"{url} does not answer: {error or type(error).__name__}")
    named = answer.headers.get(REVISION_HEADER)
    if named not in revisions and not answer.is_server_error:
        return Refusal(f"{url} is answered by another program")
    if answer.is_server_error:
        return Refusal(f"{url}{path} answers {answer.status_code}")
    return None


def as_instance(name: str, address: Address, status: InstanceStatus, refusal: Refusal | None) -> Instance:
    """The instance; `refusal` is why its health check fails."""
    reason = status.unhealthy or refusal
    return Instance(
        name=name, address=address_text(address), ready=reason is None, detail=str(reason or ""), run=status.run
    )


def address_text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
