"""Base class of every section of headway.yaml."""

from __future__ import annotations

from pydantic import ConfigDict

from headway.domain.base import Frozen

__all__ = ["Section"]


class Section(Frozen):
    """Frozen, without unknown keys, and serialized with the names of the file."""

    model_config = ConfigDict(serialize_by_alias=True)
