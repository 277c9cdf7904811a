"""State of an app on an Envoy-fronted target, in the file `apps/APP/state.json` of the target's directory.

Existing installations have such files: new fields need a default; fields are never renamed or removed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from blocks.envoy.proxy import Address, Endpoints
from headway.domain.revision import Health, LaunchSpec, Revision
from headway.system.atomic_files import write_json

__all__ = ["AppState", "InstanceState", "PublicPorts", "RevisionState", "endpoints"]

FILE = "state.json"
REMEMBERED = 100  # length of `carried`


class InstanceState(BaseModel):
    """An instance that was launched and is not retired."""

    host: str
    port: int
    draining: bool = False

    @property
    def address(self) -> Address:
        return self.host, self.port

    @classmethod
    def at(cls, address: Address) -> InstanceState:
        host, port = address
        return cls(host=host, port=port)


class RevisionState(BaseModel):
    """Data of a launched revision."""

    sha: str
    health: Health
    drain: float

    @classmethod
    def of(cls, revision: Revision, spec: LaunchSpec) -> RevisionState:
        return cls(sha=revision.sha, health=spec.health, drain=spec.drain)


class PublicPorts(BaseModel):
    """The ports of an app, of any installation on this machine: other versions of Headway write other fields too."""

    port: int | None = None
    preview_port: int | None = None

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The state in the app's directory; the defaults if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return cls.model_validate_json((directory / FILE).read_text())
        return cls()


class AppState(PublicPorts):
    """The defaults are the state of an app that was never launched."""

    token: int = 0
    """Highest fencing token that was claimed."""
    instances: dict[str, dict[str, InstanceState]] = {}
    """Revision id -> name -> instance."""
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

    def of(self, revision: str) -> dict[str, InstanceState]:
        return self.instances.get(revision, {})

    def add_carried(self, revisions: list[str]) -> None:
        """Record that these revisions have all the traffic now."""
        self.carried = [*revisions, *(one for one in self.carried if one not in revisions)][:REMEMBERED]


def endpoints(instances: dict[str, InstanceState]) -> Endpoints:
    """Endpoints for Envoy."""
    return {one.address: one.draining for one in instances.values()}
