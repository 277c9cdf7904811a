"""Commands run in an app's folder, whose files are no settings of Headway or Prefect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = {
    ".env": "PREFECT_LOGGING_LEVEL=ERROR\n",
    "prefect.toml": "[logging]\nlevel = 'ERROR'\n",
    "pyproject.toml": "[tool.prefect.logging]\nlevel = 'ERROR'\n",
}
LOAD = """
from headway.service.prefect.connections import target_classes
target_classes()
from prefect.settings import get_current_settings
print(get_current_settings().logging.level)
"""


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_prefect_in_an_apps_folder_are_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SETTINGS[name])
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "INFO\n"), done.stderr
