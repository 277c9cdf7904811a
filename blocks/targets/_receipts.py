"""The field with which a target block demands receipts."""

from __future__ import annotations

from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field

__all__ = ["RequiresReceipts"]


class RequiresReceipts(Block):
    """A target block that may demand a receipt of whatever is launched."""

    require: Literal["receipt"] | None = Field(
        default=None,
        description="`receipt`: nothing is launched here, rollbacks included, without a valid receipt of its release",
    )

    def required(self) -> Literal["receipt"] | None:
        return self.require
