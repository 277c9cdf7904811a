"""Secrets in Secret blocks of Prefect."""

from __future__ import annotations

from typing import Any, ClassVar

from prefect.blocks.system import Secret

from headway.domain.ports import SecretStore

__all__ = ["PrefectSecrets"]


class PrefectSecrets(SecretStore):
    """`shop-production/database-url` is the key `database-url` of the block `shop-production`, a JSON object.

    A name without a slash is a block with one value.
    """

    order: ClassVar[int] = 30

    async def get(self, name: str) -> str | None:
        block, _, key = name.partition("/")
        try:
            secret: Secret[Any] = await Secret.aload(block)
        except ValueError:
            return None
        content = secret.get()
        if not key:
            return content if isinstance(content, str) else None
        value = content.get(key) if isinstance(content, dict) else None
        return None if value is None else str(value)

    def location(self, name: str) -> str:
        return f"the Secret block {name.partition('/')[0]}"
