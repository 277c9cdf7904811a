"""`headway demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.service import demo as service_demo

__all__ = ["demo"]


@examples(
    "headway demo",
    "headway demo --keep    # leave everything running, to look at it",
)
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C")] = False,
) -> None:
    """Release three versions of a sample app, the last with a bug.

    The second goes out under load. The canary analysis of the third finds its bug and rolls it back.
    """
    service_demo.run(keep=keep)
