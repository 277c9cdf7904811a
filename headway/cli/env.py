"""Compare, print and import the environment variables of an app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway import config
from headway.cli.help_text import examples
from headway.cli.lazy_group import typer_app
from headway.cli.options import EnvironmentArgument, Json, PathArgument
from headway.cli.output import output
from headway.config import env_import
from headway.config.env_export import FORMATS, differences, render
from headway.domain.errors import UsageError

__all__ = ["commands"]

commands = typer_app(help=__doc__)


@commands.command()
@examples(
    "headway env diff staging production",
)
def diff(
    one: EnvironmentArgument, other: EnvironmentArgument, path: PathArgument = Path(), _json: Json = False
) -> None:
    """Compare the environment variables of two environments.

    Secrets are compared by name.
    """
    found = config.load(path)
    rows = differences(found.variables(one), found.variables(other))
    if not rows:
        output.say(f"{one} and {other} have the same variables")
    else:
        table = [("", one, other), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        for row in table:
            output.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    output.result([{"variable": name, one: here, other: there} for name, here, there in rows])


@commands.command("render")
@examples(
    "headway env render production --format docker",
)
def render_(
    environment: EnvironmentArgument,
    path: PathArgument = Path(),
    form: Annotated[str, typer.Option("--format", help="Output format: dotenv, docker or k8s")] = "dotenv",
    _json: Json = False,
) -> None:
    """Print the environment variables in the format of another tool.

    Secrets are printed as references, never as values.
    """
    known = next((one for one in FORMATS if one == form), None)
    if known is None:
        raise UsageError(f"--format {form}: no such format", f"formats: {', '.join(FORMATS)}")
    text = render(config.load(path).variables(environment), known)
    output.say(text)
    output.result({"environment": environment, "format": known, "text": text})


@commands.command("import")
@examples(
    "headway env import .env.example",
    "headway env import shop.settings:Settings",
)
def import_(
    what: Annotated[
        str,
        typer.Argument(
            help="File such as .env.example, JSON Schema file, or module:Class of a pydantic-settings class"
        ),
    ],
    path: PathArgument = Path(),
    _json: Json = False,
) -> None:
    """Print the `env` section of headway.yaml for an existing schema."""
    found = env_import.env_schema(what, path)
    output.say(env_import.env_section(found))
    output.result({name: one.model_dump(mode="json", exclude_unset=True) for name, one in found.items()})
