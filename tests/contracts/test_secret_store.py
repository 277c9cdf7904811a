"""The SecretStore contract, for every store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.system import Secret

from blocks.secret_stores.environment import EnvironmentSecrets
from blocks.secret_stores.files import FileSecrets
from blocks.secret_stores.prefect import PrefectSecrets
from headway.domain.errors import NotFound
from headway.testing import FakeSecretStore
from headway.testing.contracts import SecretStoreContract

SECRETS = SecretStoreContract.SECRETS


class TestFake(SecretStoreContract):
    @pytest.fixture
    def store(self) -> FakeSecretStore:
        return FakeSecretStore(SECRETS)


class TestEnvironment(SecretStoreContract):
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> EnvironmentSecrets:
        for name, value in SECRETS.items():
            monkeypatch.setenv("HEADWAY_SECRET_" + name.replace("/", "_").replace("-", "_").upper(), value)
        return EnvironmentSecrets()


class TestFiles(SecretStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileSecrets:
        (tmp_path / "license").write_text("outside of the directory")
        directory = tmp_path / "secrets"
        monkeypatch.setenv("HEADWAY_SECRETS", str(directory))
        for name, value in SECRETS.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(f"{value}\n")
        return FileSecrets()

    async def test_missing_directory_has_no_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HEADWAY_SECRETS", raising=False)
        assert await FileSecrets().get("license") is None

    async def test_a_file_that_is_not_text_is_an_error(self, store: FileSecrets) -> None:
        (Path(os.environ["HEADWAY_SECRETS"]) / "binary").write_bytes(b"\xff\xfe")
        with pytest.raises(NotFound, match=r"!secret binary: its file in .* cannot be read: UnicodeDecodeError"):
            await store.get("binary")


class TestPrefect(SecretStoreContract):
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> PrefectSecrets:
        """Blocks as Prefect loads them; the end-to-end tests read one from a real server."""
        grouped: dict[str, Any] = {}
        for name, value in SECRETS.items():
            block, _, key = name.partition("/")
            if key:
                grouped.setdefault(block, {})[key] = value
            else:
                grouped[block] = value

        async def aload(name: str) -> Secret[Any]:
            if name not in grouped:
                raise ValueError(f"Unable to find block document named {name}")
            return Secret(value=grouped[name])

        monkeypatch.setattr(Secret, "aload", aload)
        return PrefectSecrets()
