"""`headway release`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway import config
from headway.cli.follow import follow as follow_release
from headway.cli.help_text import examples
from headway.cli.options import Json, PathArgument
from headway.cli.output import output
from headway.cli.work_tree import committed
from headway.domain import deployments
from headway.domain.errors import SettingsError
from headway.ledger import Ledger
from headway.scm import git
from headway.scm.branch_head import settings_at
from headway.scm.repository_url import place
from headway.service.prefect.client import Control
from headway.service.prefect.start_as import start_as
from headway.system.os_user import os_user
from headway.system.paths import ledger_url

__all__ = ["release"]


@examples(
    "headway release                      # release the checked-out commit to every environment",
    "headway release shop --to staging    # release the repository in ./shop, up to staging",
    "headway release --ref v1.2 --yes     # release a tag, and approve it yourself",
)
def release(
    path: PathArgument = Path(),
    ref: Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the checked-out commit")] = None,
    to: Annotated[str | None, typer.Option(help="Last environment to release to; default: all")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve it as far as you may; this is recorded")] = False,
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
        parameters = {"repo": _repository(ledger, local), "ref": local.sha, "to": to, "yes": yes}
        run_id = start_as(os_user(), ledger, control, deployments.RELEASE, parameters)
        output.say(f"{local.sha[:7]}: {control.run_url(run_id)}")
        if not follow:
            output.result({"flow_run_id": run_id, "url": control.run_url(run_id)})
            return
        exit_code = follow_release(control, ledger, run_id)
    raise typer.Exit(exit_code)


def _repository(ledger: Ledger, local: git.LocalRepo) -> str:
    """Where the commit is released from: the repository of the app, of which the work tree may be a clone.

    The release itself refuses a commit that the repository does not have.
    """
    try:
        app = settings_at(git.Tip(local.root, local.sha), local.sha).app
    except SettingsError:
        return str(local.root)  # the release shows what is wrong
    policy = ledger.policies.get(app)
    registered = {one.name: one.repo for one in ledger.apps.all()}
    repo = (policy and policy.policy.repository) or registered.get(app)
    if repo is None or place(repo) == place(str(local.root)):
        return str(local.root)
    output.note(f"{app} is released from {repo}: a commit that is only here has to be pushed there first")
    return repo
