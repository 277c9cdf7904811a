"""`headway watch`."""

from __future__ import annotations

import typer

from headway.cli.follow import conclude, follow
from headway.cli.help_text import examples
from headway.cli.options import Json, ReleaseArgument
from headway.ledger import Ledger
from headway.service.prefect.client import Control
from headway.system.paths import ledger_url

__all__ = ["watch"]


@examples("headway watch shop#14", "headway watch shop#14 --json    wait for the end, then print everything")
def watch(run: ReleaseArgument, _json: Json = False) -> None:
    """Follow a release until it ends or waits for a person.

    For a release that has ended, print how it ended. The exit code is that of `headway release`.
    """
    with Ledger.open(ledger_url()) as ledger:
        found = ledger.releases.find(run)
        if not found.open or found.flow_run_id is None:
            raise typer.Exit(conclude(ledger, found, f"headway history {found.app}"))
        with Control() as control:
            exit_code = follow(control, ledger, found.flow_run_id)
    raise typer.Exit(exit_code)
