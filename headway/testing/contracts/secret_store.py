"""Contract of the SecretStore port."""

from __future__ import annotations

import pytest

from headway.domain.ports import SecretStore

__all__ = ["SecretStoreContract"]


class SecretStoreContract:
    """Subclass it and define the fixture `store`: a store with the secrets `SECRETS`, and no others."""

    SECRETS = {  # noqa: RUF012  # a constant
        "shop-production/database-url": "postgres://shop:correct-horse@db/shop",
        "shop-production/empty": "",
        "license": "first line\nsecond line",
    }

    @pytest.fixture
    async def store(self) -> SecretStore:
        raise NotImplementedError("define the fixture `store`")

    async def test_a_secret_is_returned_unchanged(self, store: SecretStore) -> None:
        for name, value in self.SECRETS.items():
            assert await store.get(name) == value

    @pytest.mark.parametrize("name", ["shop-staging/database-url", "shop-production/other", "shop-production", "other"])
    async def test_a_secret_that_is_not_there_is_none(self, store: SecretStore, name: str) -> None:
        assert await store.get(name) is None

    @pytest.mark.parametrize("name", ["../license", "shop-production/../license", "/etc/hostname"])
    async def test_a_name_never_leads_out_of_the_store(self, store: SecretStore, name: str) -> None:
        assert await store.get(name) is None

    async def test_its_location_is_one_line_without_the_value(self, store: SecretStore) -> None:
        for name, value in self.SECRETS.items():
            assert store.location(name)
            assert "\n" not in store.location(name)
            assert not value or value not in store.location(name)
