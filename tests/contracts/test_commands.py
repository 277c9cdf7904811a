"""What every target that runs commands promises. A new platform's is added to PARAMS and has to pass as it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from headway.domain.errors import TargetError
from headway.domain.ports import Command, Target
from headway.domain.revision import LaunchSpec
from tests.contracts.test_target import SHA, TARGETS, spec, until

__all__ = ["spec"]

PARAMS = ["process", pytest.param("docker", marks=pytest.mark.xdist_group("docker"))]


@pytest.fixture(params=PARAMS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with TARGETS[request.param](request, tmp_path / "target") as made:
        yield made


class Shell:
    """Runs commands as a revision would, and keeps what they say."""

    def __init__(self, target: Target, spec: LaunchSpec) -> None:
        self.target = target
        self.spec = spec
        self.revision = spec.revision("shop", SHA["old"])
        self.said: list[str] = []
        self.stop = Event()

    def run(self, text: str, timeout: float = 30.0) -> int:
        command = Command(text, timeout, self.stop, self.said.append)
        return self.target.execute(self.revision, self.spec, command)


@pytest.fixture
def shell(target: Target, spec: LaunchSpec) -> Shell:
    told = {"DATABASE_URL": "postgres://shop:hunter2-very-secret@db/shop", "CURRENCY": "EUR"}
    return Shell(target, spec.model_copy(update={"env": told, "secrets": ("DATABASE_URL",)}))


def sleep(seconds: int) -> str:
    """The images of these tests have little more than Python."""
    return f"python3 -c 'import time; time.sleep({seconds})'"


def test_a_command_is_told_what_the_app_is_told(shell: Shell) -> None:
    assert shell.run('echo *; echo "$CURRENCY $HEADWAY_APP $HEADWAY_ENVIRONMENT port:$PORT"') == 0
    assert "app.py" in shell.said
    assert "EUR shop staging port:" in shell.said


def test_it_says_how_it_ended_line_by_line(shell: Shell) -> None:
    assert shell.run("echo one; echo two >&2; exit 7") == 7
    assert sorted(shell.said) == ["one", "two"]
    assert shell.run("true") == 0


def test_its_secrets_are_masked(shell: Shell) -> None:
    assert shell.run('echo "connecting to $DATABASE_URL"') == 0
    assert shell.said == ["connecting to ********"]


def test_one_that_takes_too_long_is_ended_with_all_it_started(shell: Shell) -> None:
    with pytest.raises(TargetError, match="no end after 1 s"):
        shell.run(f"echo begun; {sleep(600)} & {sleep(600)}", timeout=1)
    assert shell.said == ["begun"]
    assert shell.run("true") == 0


def test_one_that_is_stopped_ends(shell: Shell) -> None:
    failed: list[TargetError] = []

    def run() -> None:
        try:
            shell.run(f"echo begun; {sleep(600)}")
        except TargetError as error:
            failed.append(error)

    going = threading.Thread(target=run)
    going.start()
    until(lambda: "begun" in shell.said)
    shell.stop.set()
    going.join(20)
    assert "stopped" in failed[0].what


def test_two_of_an_app_never_run_at_once(shell: Shell) -> None:
    going = threading.Thread(target=shell.run, args=(f"echo begun; {sleep(3)}",))
    going.start()
    until(lambda: "begun" in shell.said)
    with pytest.raises(TargetError, match="another command of shop is still running"):
        shell.run("echo too early")
    going.join(20)
    assert shell.run("echo now") == 0
    assert shell.said == ["begun", "now"]


def test_an_app_that_was_only_given_commands_runs_nowhere(shell: Shell) -> None:
    shell.run("true")
    assert shell.target.observe("shop").instances == {}
