"""`headway up` and `headway serve` refuse wrong settings before they start anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["up", "serve"])
def test_wrong_settings_of_the_identity_provider_are_an_error(tmp_path: Path, command: str) -> None:
    environment = os.environ | {
        "HEADWAY_HOME": str(tmp_path / "home"),
        "HEADWAY_OIDC_ISSUER": "http://login.example.com",
        "HEADWAY_OIDC_CLIENT_ID": "headway",
    }
    run = [sys.executable, "-c", "from headway.cli import main; main()", command]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "HEADWAY_OIDC_ISSUER='http://login.example.com' is not an https:// address" in done.stderr
    assert "hint: take the value of `issuer`" in done.stderr
    assert not (tmp_path / "home").exists()
