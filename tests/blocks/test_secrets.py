"""Order of the secret stores, and the error for a missing secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.blocks.system import Secret

from blocks import secrets
from blocks.secrets import look_up, values_of
from headway.domain.errors import NotFound
from headway.domain.revision import SecretRef
from headway.system.extensions import extensions
from headway.testing import FakeSecretStore

NAMED: dict[str, str | SecretRef] = {"LEVEL": "info", "URL": SecretRef(secret="shop-prod/database-url")}


@pytest.fixture(autouse=True)
def no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def aload(name: str) -> Secret[str]:
        raise ValueError(name)

    monkeypatch.setattr(Secret, "aload", aload)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As Docker and Kubernetes lay them out."""
    monkeypatch.setenv("HEADWAY_SECRETS", str(tmp_path))
    (tmp_path / "shop-prod").mkdir()
    (tmp_path / "shop-prod/database-url").write_text("postgresql://of-a-file\n")
    return tmp_path


async def test_secret_from_a_file(files: Path) -> None:
    assert await look_up(NAMED) == ({"LEVEL": "info", "URL": "postgresql://of-a-file"}, {})


async def test_environment_variable_takes_precedence(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_SECRET_SHOP_PROD_DATABASE_URL", "postgresql://of-a-variable")
    assert await look_up(NAMED) == ({"LEVEL": "info", "URL": "postgresql://of-a-variable"}, {})


async def test_third_party_store_comes_last(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Vault(FakeSecretStore):
        def __init__(self) -> None:
            super().__init__({"shop-prod/database-url": "postgresql://of-vault", "shop-prod/token": "of-vault"})

    installed = {**extensions("headway.secret_stores"), "a-vault": Vault}
    monkeypatch.setattr(secrets, "extensions", lambda group: installed)
    secrets.stores.cache_clear()
    try:
        values, missing = await look_up({**NAMED, "TOKEN": SecretRef(secret="shop-prod/token")})
    finally:
        secrets.stores.cache_clear()
    assert values == {"LEVEL": "info", "URL": "postgresql://of-a-file", "TOKEN": "of-vault"}
    assert missing == {}


async def test_missing_secret_lists_the_searched_stores() -> None:
    with pytest.raises(NotFound) as raised:
        await values_of(NAMED, "environments/prod/env")
    assert raised.value.what == (
        "environments/prod/env: URL (!secret shop-prod/database-url: not found in "
        "$HEADWAY_SECRET_SHOP_PROD_DATABASE_URL, the file shop-prod/database-url in HEADWAY_SECRETS, "
        "the Secret block shop-prod)"
    )
