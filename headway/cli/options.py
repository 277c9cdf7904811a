"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.cli import completion
from headway.cli.output import output

__all__ = ["AppArgument", "By", "EnvironmentArgument", "Json", "PathArgument", "Reason", "ReleaseArgument"]


def _use_json(asked: bool) -> None:
    output.json = asked


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
By = Annotated[str, typer.Option("--by", help="Who decides; default: the git user, or the login name")]
Reason = Annotated[str, typer.Option("--reason", help="Reason, kept in the record")]
Json = Annotated[bool, typer.Option("--json", callback=_use_json, help="Print one JSON document instead of text")]
