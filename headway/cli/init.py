"""`headway init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.build import scaffold
from headway.cli.help_text import examples
from headway.cli.options import Json, PathArgument
from headway.cli.output import output

__all__ = ["init"]


@examples(
    "headway init",
    "headway init services/shop --force",
)
def init(
    path: PathArgument = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist")] = False,
    _json: Json = False,
) -> None:
    """Write a Dockerfile, .dockerignore and headway.yaml for an app.

    Node, Go and Python apps are detected.
    """
    project = scaffold.detect(path)
    written = scaffold.write(path, force=force)
    output.say(f"{project.name}: {project.kind} {project.version}, started with: {project.run}")
    for note in project.notes:
        output.say(f"note: {note}")
    output.say(f"written: {', '.join(written)}. Look at them, commit them, then: headway check {path}")
    output.result({"app": project.name, "kind": project.kind, "written": written, "notes": list(project.notes)})
