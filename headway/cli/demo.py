"""`headway demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.service import demo as service_demo

__all__ = ["demo"]


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C")] = False,
) -> None:
    """Release three versions of a bundled app; the last is rolled back.

    The second goes out under load. The third has a bug, which its canary analysis finds.
    """
    service_demo.run(keep=keep)
