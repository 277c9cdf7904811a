"""Where the value of a secret is looked for: the worker's environment before files."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.secrets import look_up
from headway.domain.revision import SecretRef

NAMED: dict[str, str | SecretRef] = {"LEVEL": "info", "URL": SecretRef(secret="shop-prod/database-url")}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As Docker and Kubernetes lay them out."""
    monkeypatch.setenv("HEADWAY_SECRETS", str(tmp_path))
    (tmp_path / "shop-prod").mkdir()
    (tmp_path / "shop-prod/database-url").write_text("postgresql://of-a-file\n")
    return tmp_path


async def test_a_file(files: Path) -> None:
    assert await look_up(NAMED) == ({"LEVEL": "info", "URL": "postgresql://of-a-file"}, {})


async def test_a_variable_comes_first(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_SECRET_SHOP_PROD_DATABASE_URL", "postgresql://of-a-variable")
    assert await look_up(NAMED) == ({"LEVEL": "info", "URL": "postgresql://of-a-variable"}, {})
