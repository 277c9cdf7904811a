"""A command group that imports the module of a command when the command runs, not before."""

from __future__ import annotations

import ast
import importlib
from collections import UserDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from headway.cli.help_text import Command, write_examples, write_exit_codes
from headway.cli.output import output

__all__ = ["LazyGroup", "typer_app"]


class LazyGroup(TyperGroup):
    """The commands in `declared`: title of a group -> name -> `module.object`, a module of this package.

    The object is a function, which becomes a command, or a Typer app, which becomes a group. Importing all of them
    takes more than a second, most of it for SQLAlchemy and the models of the settings; `headway --help` imports none.
    """

    declared: ClassVar[Mapping[str, Mapping[str, str]]]
    examples: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.places = {name: place for group in self.declared.values() for name, place in group.items()}
        self.commands = _Commands(self.places)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # Typer's signature
        """List the commands for `--help`, without importing them as Typer's own method does."""
        width = max(map(len, self.places))
        for title, group in self.declared.items():
            with formatter.section(output.style(title, "bold")):
                formatter.write_dl([(name.ljust(width), _summary(place)) for name, place in group.items()])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # Typer's signature
        write_examples(formatter, self.examples)
        write_exit_codes(formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the name of a command without importing the commands."""
        from typer._click.shell_completion import CompletionItem

        options = super(TyperGroup, self).shell_complete(ctx, incomplete)
        found = [(name, place) for name, place in self.places.items() if name.startswith(incomplete)]
        return [*(CompletionItem(name, help=_summary(place)) for name, place in found), *options]


class _Typer(typer.Typer):
    """A Typer app whose commands print their examples and exit codes."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=Command, **settings)


def typer_app(**settings: Any) -> typer.Typer:
    """A Typer app with plain text instead of boxes, for a group of commands."""
    return _Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
        **settings,
    )


class _Commands(UserDict[str, Any]):
    """Maps the name of a command to the command, imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        place = self.data[name]
        module, _, attribute = place.partition(".")
        found = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer_app()
            found.command(name)(function)
        command = typer.main.get_command(found)
        command.name, command.short_help = name, _summary(place)
        return command


def _summary(place: str) -> str:
    """First line of the docstring of a command, or of the module for a group, read without importing it."""
    module, _, name = place.partition(".")
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text("utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return (ast.get_docstring(next(functions, tree)) or "").partition("\n")[0]
