"""Examples and exit codes of a command, in its `--help` and on its reference page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from typer.core import TyperCommand

from headway.cli.output import output

__all__ = ["Command", "epilog", "examples", "examples_of", "write_examples", "write_exit_codes"]

Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_CODES = {
    "0": "done",
    "1": "failed; what a release had changed is rolled back",
    "2": "wrong usage or configuration; nothing was started",
    "3": "the release waits for a person",
}


def examples(*commands: str) -> Callable[[Function], Function]:
    """Decorator of a command: command lines that its `--help` shows."""

    def decorate(function: Function) -> Function:
        function.examples = commands  # type: ignore[attr-defined]  # read by `examples_of`
        return function

    return decorate


def examples_of(command: Any) -> tuple[str, ...]:
    """The examples of a Typer command; none for a group."""
    found: tuple[str, ...] = getattr(getattr(command, "callback", None), "examples", ())
    return found


class Command(TyperCommand):
    """A command whose help ends with its examples and the exit codes."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # Typer's signature
        write_examples(formatter, examples_of(self))
        write_exit_codes(formatter)


def write_examples(formatter: Any, commands: Iterable[str]) -> None:
    if commands:
        with formatter.section(output.style("Examples", "bold")):
            for command in commands:
                formatter.write(f"{'':{formatter.current_indent}}{command}\n")


def write_exit_codes(formatter: Any) -> None:
    with formatter.section(output.style("Exit codes", "bold")):
        formatter.write_dl(list(EXIT_CODES.items()))


def epilog(commands: Iterable[str]) -> str:
    """The examples as Markdown."""
    return "**Examples**:\n\n```console\n" + "".join(f"$ {command}\n" for command in commands) + "```"
