"""`headway down`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.options import Json
from headway.cli.output import output
from headway.domain.errors import HeadwayError
from headway.domain.ports import Suspendable
from headway.ledger import Ledger
from headway.service import stack
from headway.service.prefect.client import answers
from headway.service.prefect.connections import connections
from headway.system.paths import home, ledger_url
from headway.system.supervisor import Supervisor

__all__ = ["down"]


@examples(
    "headway down           # stop headway up; the apps run on",
    "headway down --apps    # stop the apps too; the next headway up starts them again",
)
def down(
    apps: Annotated[
        bool, typer.Option("--apps", help="Stop the apps of the process and docker targets of this machine too")
    ] = False,
    _json: Json = False,
) -> None:
    """Stop the `headway up` of this HEADWAY_HOME.

    Releases in progress are rolled back. The apps continue to run, unless --apps is given.
    """
    targets = asyncio.run(_suspendable()) if apps else {}
    pid = stack.running_pid()
    if pid is None:
        output.say("headway up is not running")
    else:
        output.say(f"stopping headway up (pid {pid}); releases in progress are rolled back")
        stack.stop(pid)
        output.say("stopped")
    stopped = _stop_apps(targets) if apps else []
    output.result({"pid": pid, "targets": stopped})


async def _suspendable() -> dict[str, Suspendable]:
    """Targets by name that something is live on; none when the Prefect server, which knows them, does not answer."""
    if not answers():
        return {}
    with Ledger.open(ledger_url()) as ledger:
        names = _live_targets(ledger)
    loaded = {name: await connections().load_target(name) for name in sorted(names)}
    return {name: target for name, target in loaded.items() if isinstance(target, Suspendable)}


def _live_targets(ledger: Ledger) -> set[str]:
    live = [
        (app, environment, revision)
        for app in ledger.releases.apps()
        for environment in ledger.rollouts.environments(app)
        if (revision := ledger.rollouts.live(app, environment))
    ]
    return {ledger.revisions.find(app, revision, environment=place)[1].target for app, place, revision in live}


def _stop_apps(targets: dict[str, Suspendable]) -> list[str]:
    """Names of the targets whose apps were stopped. Raises the first error at the end."""
    errors: list[HeadwayError] = []
    stopped = []
    for name, target in targets.items():
        try:
            target.suspend()
        except HeadwayError as error:  # the others are to stop all the same
            errors.append(error)
            continue
        stopped.append(name)
    for directory in sorted((home() / "targets").glob("*/supervisord.conf")):  # also when no server knows the targets
        Supervisor(directory.parent).shut_down()
    output.say("the apps of this machine are stopped")
    if errors:
        raise errors[0]
    return stopped
