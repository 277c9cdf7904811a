"""Contract of `Target.execute`, for targets that run commands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from threading import Event

import pytest

from headway.domain.errors import TargetError
from headway.domain.ports import Command, Target
from headway.domain.revision import LaunchSpec
from headway.testing.contracts.target import SHA, until

__all__ = ["CommandContract"]


class Shell:
    """Runs commands as a revision would, and keeps their output in `lines`."""

    def __init__(self, target: Target, spec: LaunchSpec) -> None:
        self.target = target
        self.spec = spec
        self.revision = spec.revision("shop", SHA["old"])
        self.lines: list[str] = []
        self.stop = Event()

    def run(self, text: str, timeout: float = 30.0) -> int:
        command = Command(text, timeout, self.stop, self.lines.append)
        return self.target.execute(self.revision, self.spec, command)


class CommandContract:
    """Subclass it and define the fixtures `target` and `spec`, as for TargetContract."""

    @pytest.fixture
    def target(self) -> Iterator[Target]:
        raise NotImplementedError("define the fixture `target`")

    @pytest.fixture
    def spec(self) -> LaunchSpec:
        raise NotImplementedError("define the fixture `spec`")

    @pytest.fixture
    def shell(self, target: Target, spec: LaunchSpec) -> Shell:
        variables = {"DATABASE_URL": "postgres://shop:hunter2-very-secret@db/shop", "CURRENCY": "EUR"}
        return Shell(target, spec.model_copy(update={"env": variables, "secrets": ("DATABASE_URL",)}))

    def test_a_command_gets_the_environment_variables_of_the_app(self, shell: Shell) -> None:
        assert shell.run('echo *; echo "$CURRENCY $HEADWAY_APP $HEADWAY_ENVIRONMENT port:$PORT"') == 0
        assert "app.py" in shell.lines
        assert "EUR shop staging port:" in shell.lines

    def test_exit_code_and_output_are_returned(self, shell: Shell) -> None:
        assert shell.run("echo one; echo two >&2; exit 7") == 7
        assert sorted(shell.lines) == ["one", "two"]
        assert shell.run("true") == 0

    def test_secrets_are_masked_in_the_output(self, shell: Shell) -> None:
        assert shell.run('echo "connecting to $DATABASE_URL"') == 0
        assert shell.lines == ["connecting to ********"]

    def test_a_command_that_runs_out_of_time_is_ended_with_its_children(self, shell: Shell) -> None:
        with pytest.raises(TargetError, match="timed out after 1 s"):
            shell.run(f"echo begun; {_sleep(600)} & {_sleep(600)}", timeout=1)
        assert shell.lines == ["begun"]
        assert shell.run("true") == 0

    def test_a_stopped_command_ends(self, shell: Shell) -> None:
        failed: list[TargetError] = []

        def run() -> None:
            try:
                shell.run(f"echo begun; {_sleep(600)}")
            except TargetError as error:
                failed.append(error)

        running = threading.Thread(target=run)
        running.start()
        until(lambda: "begun" in shell.lines)
        shell.stop.set()
        running.join(60)
        assert "stopped" in failed[0].what

    def test_two_commands_of_an_app_never_run_at_once(self, shell: Shell) -> None:
        running = threading.Thread(target=shell.run, args=(f"echo begun; {_sleep(3)}",))
        running.start()
        until(lambda: "begun" in shell.lines)
        with pytest.raises(TargetError, match="another command of shop is still running"):
            shell.run("echo too early")
        running.join(60)
        assert shell.run("echo now") == 0
        assert shell.lines == ["begun", "now"]

    def test_a_command_leaves_no_instance(self, shell: Shell) -> None:
        shell.run("true")
        assert shell.target.observe("shop").instances == {}


def _sleep(seconds: int) -> str:
    """A command that sleeps, for images that have little more than Python."""
    return f"python3 -c 'import time; time.sleep({seconds})'"
