"""The `headway` program: its commands, its global options, and how errors end it.

Exit codes: 0 done, 1 failed (and rolled back), 2 wrong usage or settings, 3 waiting for a person, 130 interrupted,
141 nobody reads the output any more.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated, ClassVar

import typer
from typer._completion_classes import completion_init

from headway.cli.completion import COMPLETE
from headway.cli.lazy_group import LazyGroup, typer_app
from headway.cli.output import output
from headway.domain.errors import HeadwayError

__all__ = ["app", "main"]


class Commands(LazyGroup):
    """Every command, in the groups and the order of `--help`."""

    declared: ClassVar = {
        "Start and stop": {
            "up": "up.up",
            "down": "down.down",
            "serve": "up.serve",
            "open": "open.open_pages",
            "demo": "demo.demo",
        },
        "Prepare an app": {
            "init": "init.init",
            "check": "check.check",
            "plan": "plan.plan",
            "env": "env.commands",
        },
        "Release": {
            "release": "release.release",
            "watch": "watch.watch",
            "approve": "approval.approve",
            "reject": "approval.reject",
            "cancel": "cancel.cancel",
        },
        "Change what is live": {
            "promote": "rollout_commands.promote",
            "skip": "rollout_commands.skip",
            "abort": "rollout_commands.abort",
            "rollback": "rollback.rollback",
        },
        "Look": {
            "status": "status.status",
            "logs": "logs.logs",
            "history": "history.history",
            "judge": "judge.judge",
            "receipt": "receipts.receipt",
            "verify": "receipts.verify_receipt",
            "previews": "previews.previews",
        },
        "Manage": {
            "app": "apps.commands",
            "role": "roles.commands",
            "token": "tokens.commands",
            "audit": "audit.commands",
            "preview": "previews.preview",
            "adopt": "adopt.adopt",
            "prune": "prune.prune",
            "completion": "completion.completion",
        },
    }
    examples: ClassVar = (
        "headway demo                      # three releases of a sample app, one of them rolled back",
        "headway up                        # run Headway on this machine",
        "headway release                   # release the checked-out commit",
        "headway status                    # what is live, and what waits for whom",
        "headway rollback shop production  # go back to the version before",
    )


app = typer_app(
    name="headway",
    cls=Commands,
    help="Release every merge to production, and roll back when the new version is worse.",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"headway {importlib.metadata.version('headway')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Print the Python traceback of an error")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit")
    ] = False,
) -> None:
    output.debug, output.json = debug, False  # a command that takes --json sets it after this


def main() -> None:
    """Run the command line; every error is one line and a hint."""
    if COMPLETE in os.environ:
        completion_init()
    try:
        app()
    except HeadwayError as error:
        if COMPLETE in os.environ:
            sys.exit(error.exit_code)  # the message would appear within the line that is being typed
        if output.debug:
            raise
        output.error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader is gone, as with `| head`: Python would print a second error on exit
        sys.exit(141)
    except Exception as error:
        if output.debug:
            raise
        what = f"a bug in Headway: {type(error).__name__}: {error}"
        output.error(HeadwayError(what, "run it again with `headway --debug` and report what it says"))
        sys.exit(1)
