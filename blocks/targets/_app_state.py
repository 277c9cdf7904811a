"""State of an app on an Envoy-fronted target, in the file `apps/APP/state.json` of the target's directory.

Existing installations have such files: new fields need a default; fields are never renamed or removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from blocks.envoy.xds import Address, Endpoint, Endpoints
from headway.domain.revision import Health, Http, LaunchSpec, Revision
from headway.system.atomic_files import write_json

__all__ = ["AppState", "InstanceState", "PublicPorts", "RevisionState", "endpoints"]

FILE = "state.json"
REMEMBERED = 100  # length of `carried`


class InstancePorts(BaseModel):
    """The ports of an instance, of any installation on this machine."""

    port: int
    health_port: int | None = None
    """Where its launcher answers the proxy's health checks; None: the proxy asks the instance itself."""


class InstanceState(InstancePorts):
    """An instance that was launched and is not retired."""

    host: str
    draining: bool = False

    @property
    def address(self) -> Address:
        return self.host, self.port

    @classmethod
    def at(cls, address: Address, health_port: int | None = None) -> InstanceState:
        host, port = address
        return cls(host=host, port=port, health_port=health_port)


class RevisionState(BaseModel):
    """Data of a launched revision."""

    sha: str
    health: Health
    http: Http = Http()
    drain: float
    identity: str = ""
    """Token with which launchers answer the proxy's health checks; empty: the proxy asks the instances themselves."""

    @classmethod
    def of(cls, revision: Revision, spec: LaunchSpec, identity: str = "") -> RevisionState:
        return cls(sha=revision.sha, health=spec.health, http=spec.http, drain=spec.drain, identity=identity)


class PublicPorts(BaseModel):
    """The ports of an app, of any installation on this machine: other versions of Headway write other fields too."""

    port: int | None = None
    preview_port: int | None = None
    instances: Mapping[str, Mapping[str, InstancePorts]] = {}
    """Revision id -> name -> instance."""

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The state in the app's directory; the defaults if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return cls.model_validate_json((directory / FILE).read_text())
        return cls()

    def ports(self) -> set[int | None]:
        """All ports that the app has."""
        instances = [one for revision in self.instances.values() for one in revision.values()]
        return {self.port, self.preview_port, *(port for one in instances for port in (one.port, one.health_port))}


class AppState(PublicPorts):
    """The defaults are the state of an app that was never launched."""

    token: int = 0
    """Highest fencing token that was claimed."""
    instances: dict[str, dict[str, InstanceState]] = {}
    specs: dict[str, RevisionState] = {}
    """By revision id."""
    stopping: list[str] = []
    """Instances that have left `instances` and may not have ended yet."""
    carried: list[str] = []
    """Revisions that had all the traffic, the last one first."""

    def write(self, directory: Path) -> None:
        write_json(directory / FILE, self.model_dump(mode="json"))

    def forget(self) -> None:
        """Clear everything but the token, which still refuses older writers."""
        empty = AppState()
        for field in type(self).model_fields.keys() - {"token"}:
            setattr(self, field, getattr(empty, field))

    def names(self) -> list[str]:
        """Names of all instances."""
        return [name for instances in self.instances.values() for name in instances]

    def addresses(self) -> set[Address]:
        return {one.address for instances in self.instances.values() for one in instances.values()}

    def http(self) -> dict[str, Http]:
        """Every launched revision, with its http settings."""
        return {revision: self.specs[revision].http for revision in self.instances}

    def of(self, revision: str) -> dict[str, InstanceState]:
        return self.instances.get(revision, {})

    def add_carried(self, revisions: list[str]) -> None:
        """Record that these revisions have all the traffic now."""
        self.carried = [*revisions, *(one for one in self.carried if one not in revisions)][:REMEMBERED]


def endpoints(instances: dict[str, InstanceState]) -> Endpoints:
    """Endpoints for Envoy."""
    return {one.address: Endpoint(one.draining, one.health_port) for one in instances.values()}
