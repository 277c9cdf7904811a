"""`headway release`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway import config
from headway.cli.follow import follow as follow_release
from headway.cli.help_text import examples
from headway.cli.identity import current_user
from headway.cli.options import Json, PathArgument
from headway.cli.output import output
from headway.cli.work_tree import committed
from headway.domain import deployments
from headway.ledger import Ledger
from headway.service.prefect.client import Control
from headway.system.paths import ledger_url

__all__ = ["release"]


@examples(
    "headway release                      # release the checked-out commit to every environment",
    "headway release shop --to staging    # release the repository in ./shop, up to staging",
    "headway release --ref v1.2 --yes     # release a tag, without waiting for approvals",
)
def release(
    path: PathArgument = Path(),
    ref: Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the checked-out commit")] = None,
    to: Annotated[str | None, typer.Option(help="Last environment to release to; default: all")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not wait for approvals; this is recorded")] = False,
    follow: Annotated[bool, typer.Option(help="Wait for the release and print its progress")] = True,
    _json: Json = False,
) -> None:
    """Release a commit and follow its progress.

    It ends with the URL of each environment. Ctrl-C stops only the output: the release continues.
    """
    local = committed(path, ref)
    if ref is None:
        config.load(local.root).release_path(to)  # errors in headway.yaml are reported before anything starts
    with Control() as control, Ledger.open(ledger_url()) as ledger:
        parameters = {"repo": str(local.root), "ref": local.sha, "to": to, "yes": yes, "by": current_user(local.root)}
        run_id = control.start(deployments.RELEASE, parameters)
        output.say(f"{local.sha[:7]}: {control.run_url(run_id)}")
        if not follow:
            output.result({"flow_run_id": run_id, "url": control.run_url(run_id)})
            return
        exit_code = follow_release(control, ledger, run_id)
    raise typer.Exit(exit_code)
