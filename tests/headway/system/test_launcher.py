from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from headway.domain.log_lines import LogLine
from headway.system import launcher, sealed_tree
from headway.system.launcher import Log
from tests.standins.ports import free_port


def what(tmp_path: Path, command: str, **more: Any) -> str:
    content = {"command": command, "cwd": str(tmp_path), "env": {"PATH": os.defpath}, "secrets": []}
    (tmp_path / "what.json").write_text(json.dumps(content | {"log": str(tmp_path / "log")} | more))
    return str(tmp_path / "what.json")


def start(file: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", launcher.__file__, file], start_new_session=True)


def run(file: str) -> int:
    return start(file).wait(60)


def until(done: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1)


def said(tmp_path: Path) -> str:
    """The log without the time of each line, which every line has."""
    return unstamped(tmp_path / "log") if (tmp_path / "log").exists() else ""


def unstamped(log: Path) -> str:
    lines = [LogLine.stamped("", line) for line in log.read_text().splitlines(keepends=True)]
    assert all(line.at and abs((datetime.now(UTC) - line.at).total_seconds()) < 600 for line in lines)
    return "".join(line.text for line in lines)


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_launcher_returns_the_exit_code_of_the_program(tmp_path: Path, command: str, code: int) -> None:
    assert run(what(tmp_path, command)) == code


def test_log_has_all_output_in_order(tmp_path: Path) -> None:
    assert run(what(tmp_path, "echo one; echo two >&2; printf 'three'")) == 0
    assert said(tmp_path) == "one\ntwo\nthree\n"


def test_launcher_runs_until_the_last_process_exits(tmp_path: Path) -> None:
    assert run(what(tmp_path, "(sleep 0.5; echo late) & exit 0")) == 0
    assert said(tmp_path) == "late\n"


def test_stdin_is_empty(tmp_path: Path) -> None:
    assert run(what(tmp_path, "cat; echo end")) == 0
    assert said(tmp_path) == "end\n"


def test_secrets_do_not_reach_the_log(tmp_path: Path) -> None:
    env = {"PATH": os.defpath, "TOKEN": "s3cr3t-value"}
    assert run(what(tmp_path, "echo a $TOKEN b", env=env, secrets=["TOKEN"])) == 0
    assert said(tmp_path) == "a ******** b\n"


def test_sigterm_to_the_group_lets_the_program_finish(tmp_path: Path) -> None:
    going = start(what(tmp_path, "trap 'sleep 0.3; echo done; exit 0' TERM; echo up; while :; do sleep 0.05; done"))
    until(lambda: "up" in said(tmp_path))
    os.killpg(going.pid, signal.SIGTERM)
    assert going.wait(60) == 0
    assert said(tmp_path).endswith("done\n")


def test_a_launcher_killed_ends_its_program(tmp_path: Path) -> None:
    going = start(what(tmp_path, "echo $$; exec sleep 60"))
    until(lambda: said(tmp_path))
    going.kill()
    going.wait(60)
    program = int(said(tmp_path))
    until(lambda: not Path(f"/proc/{program}/cmdline").exists() or not Path(f"/proc/{program}/cmdline").read_bytes())


HIDDEN = "trap '' TERM; {} & echo up; while :; do sleep 0.05; done"


def running(command: str) -> list[int]:
    """Processes with this command line."""
    return [one.pid for one in psutil.process_iter(["cmdline"]) if " ".join(one.info["cmdline"] or ()) == command]


@pytest.mark.parametrize(
    "helper",
    [
        "setsid sleep {}",
        "setsid setsid sh -c 'sleep {} & exit'",
        "env -i setsid sh -c 'trap \"\" TERM; /bin/sleep {} & wait; wait; exit'",
    ],
)
def test_no_process_outlives_its_program(tmp_path: Path, helper: str) -> None:
    """A helper with a session of its own, a daemon, and one that ignores SIGTERM and has cleared its environment."""
    seconds = str(100_000 + os.getpid())
    going = start(what(tmp_path, HIDDEN.format(helper.format(seconds)), grace=0.5))
    until(lambda: running(f"sleep {seconds}") or running(f"/bin/sleep {seconds}"))
    os.killpg(going.pid, signal.SIGTERM)
    assert going.wait(60) != 0
    assert running(f"sleep {seconds}") + running(f"/bin/sleep {seconds}") == []


def test_helpers_of_a_program_that_failed_do_not_keep_it_from_its_restart(tmp_path: Path) -> None:
    seconds = str(200_000 + os.getpid())
    assert run(what(tmp_path, f"setsid sleep {seconds} & sleep 0.2; exit 4", grace=5)) == 4
    assert running(f"sleep {seconds}") == []


def test_next_launcher_ends_leftovers_of_a_killed_one(tmp_path: Path) -> None:
    seconds = str(300_000 + os.getpid())
    file = what(tmp_path, HIDDEN.format(f"setsid sleep {seconds}"), grace=0.5)
    first = start(file)
    until(lambda: running(f"sleep {seconds}"))
    (left,) = running(f"sleep {seconds}")
    first.kill()
    first.wait(60)
    assert running(f"sleep {seconds}") == [left]
    second = start(file)
    until(lambda: left not in running(f"sleep {seconds}"))
    until(lambda: running(f"sleep {seconds}"))
    os.killpg(second.pid, signal.SIGTERM)
    second.wait(60)
    assert running(f"sleep {seconds}") == []


def test_a_program_that_dies_late_and_was_never_healthy_is_given_up(tmp_path: Path) -> None:
    """However long it takes: an app that fails at the end of a slow start."""
    settings = {"port": free_port(), "token": "t", "instance_port": 1, "path": "/", "host": "h", "timeout": 1}
    file = what(tmp_path, "sleep 0.2; exit 3", health=settings)
    quick = (
        "import sys; from headway.system import launcher; launcher.UP_AFTER = 0.1; sys.exit(launcher.main(sys.argv[1]))"
    )
    codes = [subprocess.run([sys.executable, "-c", quick, file], check=False, timeout=60).returncode for _ in range(2)]
    assert codes == [3, launcher.GAVE_UP]


def test_a_program_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    file = what(tmp_path, "exit 3")
    assert run(file) == 3
    assert run(file) == launcher.GAVE_UP
    assert launcher.failures(file) == (2, 3)


def test_a_program_that_is_kept_is_started_until_it_stays_up(tmp_path: Path) -> None:
    file = what(tmp_path, "echo try; cat needed || exit 3; exec sleep 60")
    Path(f"{file}.keep").touch()
    for tries in (1, 2, 3):
        assert run(file) == 3
        assert launcher.failures(file) == (tries, 3)
    (tmp_path / "needed").write_text("there\n")
    going = start(file)
    until(lambda: "there" in said(tmp_path))
    os.killpg(going.pid, signal.SIGTERM)
    going.wait(60)
    assert launcher.failures(file)[0] == 0
    assert said(tmp_path).count("try") == 4


def test_sigterm_ends_the_pause_before_a_restart(tmp_path: Path) -> None:
    file = what(tmp_path, "echo started")
    Path(f"{file}.failures").write_text("20 3")
    going = start(file)
    until(lambda: catches_sigterm(going.pid))
    os.killpg(going.pid, signal.SIGTERM)
    assert going.wait(60) == 0
    assert said(tmp_path) == ""


def test_program_with_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    assert run(what(tmp_path, "true", cwd=str(tmp_path / "gone"))) == 127
    assert "cannot be started: " in said(tmp_path)
    assert str(tmp_path / "gone") in said(tmp_path)


def test_second_launcher_follows_the_running_program(tmp_path: Path) -> None:
    file = what(tmp_path, "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
    first = start(file)
    until(lambda: "up" in said(tmp_path))
    second = start(file)
    until(lambda: catches_sigterm(second.pid))
    assert (first.poll(), second.poll()) == (None, None)
    assert said(tmp_path) == "up\n"
    os.killpg(second.pid, signal.SIGTERM)
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert launcher.running(file) is None


def test_second_launcher_exits_with_the_program(tmp_path: Path) -> None:
    file = what(tmp_path, "sleep 1; exit 3")
    first = start(file)
    until(lambda: launcher.running(file) == first.pid)
    second = start(file)
    assert (first.wait(60), second.wait(60)) == (3, 0)


def test_a_log_that_has_grown_is_renamed_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "LOG_BYTES", 10)
    log = Log(tmp_path / "log", None)
    for number in range(6):
        log.write(b"line no. %d\n" % number)
    log.close()
    kept = {path.name: unstamped(path).strip() for path in tmp_path.glob("log*")}
    assert kept == {"log": "", "log.1": "line no. 5", "log.2": "line no. 4", "log.3": "line no. 3"}


def test_full_disk_drops_lines_and_logs_their_number(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", None)
    with Path("/dev/full").open("wb", buffering=0) as full:
        mine, log._file = log._file, full
        log.write(b"lost\n")
        log.write(b"lost too\n")
        log._file = mine
    log.write(b"back\n")
    log.close()
    assert said(tmp_path) == "(2 lines lost: the disk was full)\nback\n"


def test_a_program_whose_bundle_was_changed_is_not_started(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "app.sh").write_text("echo started")
    sealed_tree.seal(bundle)
    file = what(tmp_path, "sh app.sh", cwd=str(bundle), digest=f"sha256:{sealed_tree.digest_of(bundle)}")
    assert run(file) == 0
    bundle.chmod(0o755)
    (bundle / "more").touch(mode=0o444)
    assert [run(file), run(file)][1] == launcher.GAVE_UP
    assert launcher.failures(file)[1] == launcher.CHANGED
    assert said(tmp_path).count("started\n") == 1
    assert "headway: not started: the bundle was changed after its build: its content has another digest" in said(
        tmp_path
    )
    (bundle / "more").unlink()
    Path(f"{file}.failures").unlink()
    assert run(file) == 0
    assert said(tmp_path).count("started\n") == 2
