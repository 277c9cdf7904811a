"""Settings as a document that the ledger stores for a release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from headway.config.settings import Settings
from headway.domain.base import Frozen
from headway.domain.errors import SettingsError
from headway.domain.revision import Manifest

__all__ = ["StoredSettings"]


class StoredSettings(Frozen):
    """headway.yaml of a commit with all defaults, and the Kubernetes manifests that it names."""

    settings: Settings
    manifests: dict[str, tuple[Manifest, ...]] = Field(default={}, description="by environment")

    @classmethod
    def document(cls, settings: Settings) -> dict[str, Any]:
        return cls(settings=settings, manifests=settings.manifests_read).model_dump(mode="json")

    @classmethod
    def load(cls, document: Mapping[str, Any], release: str) -> Settings:
        """The settings of a release. Raises SettingsError when this version of Headway cannot read them."""
        try:
            stored = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "/".join(map(str, first["loc"]))
            raise SettingsError(
                f"{release}: its settings were stored by another version of Headway: {where}: {first['msg']}",
                "release the commit again",
            ) from error
        return stored.settings.with_manifests(stored.manifests)
