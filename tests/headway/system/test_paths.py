"""Headway's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.domain.errors import HeadwayError
from headway.system.paths import make_home


@pytest.mark.parametrize("before", [None, 0o755, 0o777])
def test_home_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int | None) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    if before is not None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home").chmod(before)
    assert make_home().stat().st_mode & 0o777 == 0o700


def test_home_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(HeadwayError, match=r"file/home: cannot be used as Headway's directory: Not a directory"):
        make_home()
