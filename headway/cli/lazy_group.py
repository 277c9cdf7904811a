"""A command group that imports the module of a command when the command runs, not before."""

from __future__ import annotations

import ast
import importlib
from collections import UserDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

__all__ = ["LazyGroup", "typer_app"]


class LazyGroup(TyperGroup):
    """The commands in `declared`: name -> `module.object`, a module of this package.

    The object is a function, which becomes a command, or a Typer app, which becomes a group. Importing all of them
    takes more than a second, most of it for SQLAlchemy and the models of the settings; `headway --help` imports none.
    """

    declared: ClassVar[Mapping[str, str]]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands(self.declared)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # Typer's signature
        """List the commands for `--help`, without importing them as Typer's own method does."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(place)) for name, place in self.declared.items()])


def typer_app(**settings: Any) -> typer.Typer:
    """A Typer app with plain text instead of boxes, for a group of commands."""
    return typer.Typer(
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
