"""The unit that `headway up --install` writes, as systemd reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headway.cli.main import app
from headway.service import systemd_unit
from headway.service.apps import start_apps
from headway.system.supervisor import Program, Supervisor


@pytest.mark.parametrize("system", [True, False])
def test_systemd_accepts_the_unit(tmp_path: Path, system: bool) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze on this machine: apt-get install systemd")
    home = tmp_path / "a home with 100% $pecial characters"
    home.mkdir()
    text = systemd_unit.unit(["--host", "0.0.0.0"], home, system=system)
    file = tmp_path / systemd_unit.NAME
    # The command has to exist, and the tests may run from an environment without it.
    file.write_text(
        "\n".join("ExecStart=/bin/true" if line.startswith("ExecStart") else line for line in text.split("\n"))
    )
    mode = "--system" if system else "--user"
    done = subprocess.run([verify, mode, "verify", str(file)], capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if systemd_unit.NAME in line]
    assert complaints == []


def test_stopping_the_unit_leaves_the_apps_running(tmp_path: Path) -> None:
    lines = systemd_unit.unit([], tmp_path, system=False).splitlines()
    assert "KillMode=process" in lines
    assert "Restart=always" in lines


def test_up_install_writes_a_user_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    done = CliRunner().invoke(app, ["up", "--install", "--port", "4400"])
    assert done.exit_code == 0
    written = tmp_path / "config" / "systemd" / "user" / "headway.service"
    assert "systemctl --user enable --now headway.service" in done.output
    assert '"--port" "4400"' in written.read_text()
    assert f'Environment="HEADWAY_HOME={tmp_path / "home"}"' in written.read_text()


@pytest.mark.slow
def test_apps_of_a_machine_that_was_restarted_come_back_first(tmp_path: Path) -> None:
    target = tmp_path / "targets" / "production"
    target.mkdir(parents=True)
    supervisor = Supervisor(target)
    try:
        supervisor.start(Program(name="shop-1", command="exec sleep 600", log=str(tmp_path / "log")))
        assert list(start_apps(tmp_path)) == []
        supervisor.shut_down()
        assert list(start_apps(tmp_path)) == ["apps of the target production are started again"]
        assert supervisor.running
        assert supervisor.knows("shop-1")
    finally:
        supervisor.shut_down()
