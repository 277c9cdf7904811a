"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.cli import completion
from headway.cli.output import output
from headway.system.os_user import os_user

__all__ = ["AppArgument", "By", "EnvironmentArgument", "Json", "PathArgument", "Reason", "ReleaseArgument"]


def _use_json(asked: bool) -> None:
    output.json = asked


def _ignore_name(name: str) -> str:
    """Accepted in this version, so that scripts of the last one go on."""
    if name:
        output.warn(f"--by {name} is ignored: the name is now the authenticated user's, {os_user()}")
    return ""


PathArgument = Annotated[Path, typer.Argument(help="Repository of the app")]
AppArgument = Annotated[
    str, typer.Argument(help="Name of the app, as in its headway.yaml", autocompletion=completion.apps)
]
EnvironmentArgument = Annotated[
    str,
    typer.Argument(help="Environment, such as staging or production", autocompletion=completion.environments),
]
ReleaseArgument = Annotated[
    str, typer.Argument(help="Release, such as shop#14, or its id", autocompletion=completion.releases)
]
By = Annotated[
    str, typer.Option("--by", hidden=True, callback=_ignore_name, help="Ignored: the record has the authenticated user")
]
Reason = Annotated[str, typer.Option("--reason", help="Reason, kept in the record")]
Json = Annotated[bool, typer.Option("--json", callback=_use_json, help="Print one JSON document instead of text")]
