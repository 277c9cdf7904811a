"""Stored state of an app: the fencing token, and what should run. What does run is read from the system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from headway.system.atomic_files import locked, write_json

__all__ = ["AppState", "Launched", "Routes", "changing", "read", "read_routes", "write_routes"]


class Launched(BaseModel):
    """A revision that was launched, and not retired."""

    sha: str
    health_path: str
    health_timeout: float
    stop_grace: float
    drain: float
    instances: dict[str, int] = {}
    """Name -> port."""


class AppState(BaseModel):
    token: int = 0
    port: int | None = None
    revisions: dict[str, Launched] = {}


class Routes(BaseModel):
    """Configuration of the router."""

    weights: dict[str, int] = {}
    ports: dict[str, list[int]] = {}


def read(directory: Path) -> AppState:
    file = directory / "state.json"
    return AppState.model_validate_json(file.read_text()) if file.exists() else AppState()


@contextmanager
def changing(directory: Path) -> Iterator[AppState]:
    """The state, for one process at a time; it is written when the block ends without an error."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(directory / "lock"):
        state = read(directory)
        yield state
        write_json(directory / "state.json", state.model_dump())


def read_routes(directory: Path) -> Routes:
    file = directory / "routes.json"
    return Routes.model_validate_json(file.read_text()) if file.exists() else Routes()


def write_routes(directory: Path, routes: Routes) -> None:
    write_json(directory / "routes.json", routes.model_dump())
