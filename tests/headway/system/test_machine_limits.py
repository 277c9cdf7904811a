from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headway.system import machine_limits

HOG = """
import ctypes, os
from headway.system import machine_limits
assert machine_limits.inotify_shortage() is None
if not os.getuid():
    os.setuid(61234)  # the limit is a user's: this one has no other programs
libc = ctypes.CDLL(None)
while libc.inotify_init1(0) >= 0:
    pass
lacking = machine_limits.inotify_shortage()
print(lacking, lacking.hint)
"""


def test_a_machine_with_room_has_no_shortage(tmp_path: Path) -> None:
    assert machine_limits.shortage(tmp_path / "not" / "made" / "yet", "127.0.0.1") is None
    assert machine_limits.inotify_shortage() is None


def test_used_up_inotify_instances_are_named_with_the_setting_that_limits_them() -> None:
    run = subprocess.run([sys.executable, "-c", HOG], capture_output=True, text=True, timeout=60, check=True)
    assert "no inotify instance left (fs.inotify.max_user_instances is " in run.stdout
    assert "sysctl fs.inotify.max_user_instances=" in run.stdout


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("DISK", "MB left of the"),
        ("INODES", "inodes left"),
        ("MEMORY", "MiB of memory left"),
        ("FILES", "files of this machine are open (fs.file-max)"),
    ],
)
def test_what_is_short_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, words: str) -> None:
    monkeypatch.setattr(machine_limits, limit, 2**64)
    lacking = machine_limits.shortage(tmp_path, "127.0.0.1")
    assert lacking is not None
    assert words in lacking.what
    assert lacking.hint


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(tmp_path: Path, host: str) -> None:
    lacking = machine_limits.shortage(tmp_path, host)
    assert lacking is not None
    assert lacking.what.startswith(f"{host} is no address that this machine can listen on: ")
