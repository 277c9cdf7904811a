"""What every section of headway.yaml is."""

from __future__ import annotations

from pydantic import ConfigDict

from headway.domain.base import Frozen

__all__ = ["Section"]


class Section(Frozen):
    model_config = ConfigDict(serialize_by_alias=True)
