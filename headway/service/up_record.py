"""The file in which `headway up` records its addresses and its process, for commands and for a second `headway up`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from headway.system.atomic_files import write_json
from headway.system.paths import home
from headway.system.processes import ProcessIdentity

__all__ = ["UpRecord"]


class UpRecord(ProcessIdentity):
    """A `headway up` that runs, or that was killed."""

    api_url: str
    web_url: str
    ui_url: str = Field(default="", description="Prefect's UI behind the sign-in; empty before 0.2")

    @staticmethod
    def file() -> Path:
        return home() / "up.json"

    @classmethod
    def read(cls) -> UpRecord | None:
        """None when there is none, or one of 0.1.0, which did not record when its process was created."""
        try:
            return cls.model_validate_json(cls.file().read_text())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self) -> None:
        write_json(self.file(), self.model_dump())
