"""Secrets in environment variables of the worker."""

from __future__ import annotations

import os
import re
from typing import ClassVar

from headway.domain.ports import SecretStore

__all__ = ["EnvironmentSecrets"]


class EnvironmentSecrets(SecretStore):
    """`shop-production/database-url` is in the variable HEADWAY_SECRET_SHOP_PRODUCTION_DATABASE_URL."""

    order: ClassVar[int] = 10

    async def get(self, name: str) -> str | None:
        return os.environ.get(_variable(name))

    def location(self, name: str) -> str:
        return f"${_variable(name)}"


def _variable(name: str) -> str:
    return "HEADWAY_SECRET_" + re.sub(r"\W", "_", name).upper()
