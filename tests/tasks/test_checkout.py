"""Tasks that read a commit."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headway.domain.source import Source
from tasks import checkout


def test_reading_the_settings_logs_a_warning_for_each_old_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkout, "get_run_logger", lambda: logging.getLogger("of the run"))
    (tmp_path / "headway.yaml").write_text("app: a\nchecks: {unit: pytest}\nleaks: {exceptions: {docs/: examples}}\n")

    source = Source(
        repo="/r",
        ref="main",
        sha="1" * 40,
        tree="2" * 40,
        author="Bob",
        subject="Change",
        committed_at=datetime.now(UTC),
        workspace=str(tmp_path),
    )

    settings = asyncio.run(checkout.read_settings.fn(source))

    assert settings.secret_scan.exceptions == {"docs/": "examples"}
    assert "headway.yaml:3: leaks is now called secret_scan" in caplog.text
