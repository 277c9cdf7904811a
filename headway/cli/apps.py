"""Manage the registered apps, whose git hosts may send webhooks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from headway.cli import completion
from headway.cli.app_policy import policy
from headway.cli.authority import require
from headway.cli.delete_app import delete_app
from headway.cli.help_text import examples
from headway.cli.lazy_group import typer_app
from headway.cli.options import AppArgument, Json
from headway.cli.output import output
from headway.config.value_parsers import parse_label, parse_secret
from headway.domain.access import Action
from headway.domain.errors import HeadwayError, UsageError
from headway.ledger import AppRecord, DeliveryRecord, Ledger, ReleaseRecord
from headway.scm.branch_head import head_of
from headway.scm.webhooks import HOSTS, place
from headway.system.os_user import os_user
from headway.system.paths import home, ledger_url

__all__ = ["commands"]

commands = typer_app(help=__doc__)
commands.command()(policy)

KNOWN_HOSTS = {"github.com": "github", "gitlab.com": "gitlab", "codeberg.org": "gitea", "bitbucket.org": "bitbucket"}
REPORTED = ("github", "gitlab", "gitea", "bitbucket")  # block types of git hosts that accept commit statuses
HOOK = Path(__file__).parents[1] / "scm" / "webhooks" / "post_receive_hook.py"


@commands.command()
@examples(
    "headway app add https://github.com/acme/shop.git",
    "headway app add /srv/git/shop.git --name shop",
)
def add(
    repo: Annotated[str, typer.Argument(help="URL or path that git fetches from")],
    name: Annotated[
        str | None, typer.Option(help="Name of the app, as in its headway.yaml; default: name of the repository")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Kind of git host: github, gitlab, gitea, bitbucket or generic; default: guessed from the URL"
        ),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="Name of the secret that signs the webhooks; default: NAME-webhook")
    ] = None,
    reports: Annotated[
        str | None, typer.Option(help="Block of the git host that receives commit statuses, such as github/acme")
    ] = None,
    branch: Annotated[
        str | None,
        typer.Option(help="Branch that is released; default: the one that headway.yaml of the default branch names"),
    ] = None,
    _json: Json = False,
) -> None:
    """Register the repository of an app, or change its registration."""
    if "://" in repo and urlsplit(repo).password:
        raise UsageError("the URL has a password in it", "remove it, and configure a git credential helper")
    where = str(Path(repo).resolve()) if Path(repo).is_dir() else repo
    name = name or place(where).rpartition("/")[2]
    host = host or KNOWN_HOSTS.get(place(where).partition("/")[0]) or "generic"
    secret = secret or f"{name}-webhook"
    if host not in HOSTS:
        raise UsageError(f"--host {host}: no such kind of git host", f"kinds: {', '.join(HOSTS)}")
    kinds = ", ".join(REPORTED)
    if reports is not None and not re.fullmatch(f"({'|'.join(REPORTED)})/[a-z0-9][a-z0-9-]*", reports):
        raise UsageError(f"--reports {reports} names no block of a git host", f"TYPE/NAME, TYPE of {kinds}")
    try:
        parse_label(name)
        parse_secret(secret)
    except ValueError as error:
        raise UsageError(
            f"{name}, with the secret {secret}: {error}", "choose others with --name and --secret"
        ) from error
    with Ledger.open(ledger_url()) as ledger:
        require(ledger, Action.ADMIN, name)
        known = any(app.name == name for app in ledger.apps.all())
        app = ledger.apps.register(
            name, repo=where, host=host, secret=secret, reports=reports, branch=branch, by=str(os_user())
        )
        baseline = [] if known else [_baseline(ledger, app)]
    output.say(_line(app), *baseline, *_next_steps(app))
    output.result(app.model_dump(mode="json"))


def _baseline(ledger: Ledger, app: AppRecord) -> str:
    """Record the present head of the released branch as one that starts nothing. Returns a line that says so."""
    try:
        ref, sha, _ = head_of(app.repo, home() / "workspaces", app.branch)
    except HeadwayError as error:
        return f"  the first head that Headway reads is not released: {error.what}"
    ledger.deliveries.record_baseline(app, ref, sha)
    return f"  {ref.removeprefix('refs/heads/')} is at {sha[:7]}: the next push is the first that is released"


def _next_steps(app: AppRecord) -> list[str]:
    variable = f"HEADWAY_SECRET_{app.secret.replace('-', '_').replace('/', '_').upper()}"
    secret = f"  next: store the secret in a Secret block {app.secret}, or in ${variable} of the Headway service"
    if app.host == "generic":
        return [secret, f"  then: install the post-receive hook that headway app hook {app.name} URL prints"]
    events = {
        "github": "pushes, pull requests and merge groups",
        "gitlab": "pushes, tags, merge requests and pipelines",
    }.get(app.host, "pushes and pull requests")
    return [secret, f"  then: add a webhook: URL/hooks/{app.host}, JSON, the same secret, {events}"]


@commands.command("list")
@examples(
    "headway app list",
)
def list_(_json: Json = False) -> None:
    """List the registered apps."""
    with Ledger.open(ledger_url()) as ledger:
        apps = ledger.apps.all()
    if not apps:
        output.say("no registered apps: headway app add REPO")
    output.say(*map(_line, apps))
    output.result([app.model_dump(mode="json") for app in apps])


def _line(app: AppRecord) -> str:
    reports = f", reports to {app.reports}" if app.reports else ""
    return f"{app.name:20} {app.host:10} {app.repo}  secret {app.secret}{reports}"


@commands.command()
@examples(
    "headway app remove shop",
)
def remove(name: AppArgument, _json: Json = False) -> None:
    """Unregister an app; its releases and environments stay."""
    with Ledger.open(ledger_url()) as ledger:
        gone = ledger.apps.unregister(name, by=str(require(ledger, Action.ADMIN, name)))
    output.say(f"{gone.name} is no longer registered")
    output.result(gone.model_dump(mode="json"))


@commands.command()
@examples(
    "headway app delete shop",
    "headway app delete shop --env staging --yes",
)
def delete(
    name: AppArgument,
    environment: Annotated[
        str | None,
        typer.Option("--env", help="Only this environment", autocompletion=completion.environments),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for a confirmation")] = False,
    _json: Json = False,
) -> None:
    """Stop an app and delete everything of it, after a confirmation.

    That is its instances, ports, logs and objects on every target, its releases and its registration. Prefect's runs
    stay until their retention ends.
    """
    with Ledger.open(ledger_url()) as ledger:
        require(ledger, Action.ADMIN, name)
    delete_app(name, environment, yes=yes)


@commands.command()
@examples(
    "headway app events shop --limit 5",
)
def events(
    name: AppArgument, limit: Annotated[int, typer.Option(help="Number of events")] = 20, _json: Json = False
) -> None:
    """List the webhook events of an app, newest first, with results."""
    with Ledger.open(ledger_url()) as ledger:
        deliveries = ledger.deliveries.recent(name, limit)
        if not deliveries:
            ledger.apps.get(name)
            output.say(f"no events of {name} yet: check its webhook and its secret")
        releases = [ledger.releases.by_run(one.flow_run_id) if one.flow_run_id else None for one in deliveries]
    output.say(*map(_event_line, deliveries, releases))
    output.result(
        [
            one.model_dump(mode="json") | {"release": release and release.model_dump(mode="json")}
            for one, release in zip(deliveries, releases, strict=True)
        ]
    )


def _event_line(one: DeliveryRecord, release: ReleaseRecord | None) -> str:
    sha = one.sha or one.event.commit or ""
    detail = release.summary if release else one.detail
    return f"{one.received_at:%Y-%m-%d %H:%M:%S} {one.ref:24} {sha[:7]:7} {one.state:10} {detail}".rstrip()


@commands.command()
@examples(
    "headway app hook shop https://headway.example.com > hooks/post-receive",
)
def hook(
    name: AppArgument, url: Annotated[str, typer.Argument(help="URL of Headway")] = "http://127.0.0.1:4300"
) -> None:
    """Print a post-receive hook for your own git server."""
    with Ledger.open(ledger_url()) as ledger:
        app = ledger.apps.get(name)
    if app.host != "generic":
        raise UsageError(
            f"{name} is at {app.host}, which sends webhooks", "a post-receive hook is for a git server without webhooks"
        )
    values = {"{URL}": url.rstrip("/"), "{REPOSITORY}": app.repo}
    text = HOOK.read_text()
    for mark, value in values.items():
        text = text.replace(f'"{mark}"', json.dumps(value))
    print(text, end="")
