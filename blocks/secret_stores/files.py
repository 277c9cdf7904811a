"""Secrets in files, one each, as Docker and Kubernetes mount them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from headway.domain.errors import NotFound
from headway.domain.ports import SecretStore

__all__ = ["FileSecrets"]


class FileSecrets(SecretStore):
    """`shop-production/database-url` is that file in the directory that HEADWAY_SECRETS names."""

    order: ClassVar[int] = 20

    async def get(self, name: str) -> str | None:
        directory = os.environ.get("HEADWAY_SECRETS")
        if not directory or Path(name).is_absolute() or ".." in Path(name).parts:
            return None
        try:
            return (Path(directory) / name).read_text().removesuffix("\n")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise NotFound(
                f"!secret {name}: its file in {directory} cannot be read: {type(error).__name__}",
                "it must be text that the worker may read",
            ) from error

    def location(self, name: str) -> str:
        return f"the file {name} in HEADWAY_SECRETS"
