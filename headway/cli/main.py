"""`headway`: the commands and how they end.

Exit codes: 0 done, 1 failed (and rolled back), 2 wrong usage or configuration, 3 waiting for a person, 130 interrupted.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from headway.cli.output import output
from headway.domain.errors import HeadwayError

__all__ = ["main"]

app = typer.Typer(
    name="headway",
    help="Takes every merge to main to production, and backs off by itself when it must.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

PathArgument = Annotated[Path, typer.Argument(help="the app's repository")]
App = Annotated[str, typer.Argument(help="name of the app")]
Environment = Annotated[str, typer.Argument(help="staging, production ...")]
Run = Annotated[str, typer.Argument(help="a release such as shop#14, or its id")]
By = Annotated[str, typer.Option("--by", help="who decides; the git user when left out")]
Reason = Annotated[str, typer.Option("--reason", help="kept in the record")]
AppName = Annotated[str, typer.Argument(help="name of the app, as in its headway.yaml")]
Json = Annotated[bool, typer.Option("--json", help="one JSON document instead of words")]


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"headway {importlib.metadata.version('headway')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="say which Headway this is")
    ] = False,
) -> None:
    output.debug = debug


@app.command()
def up(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port of Headway's own page")] = 4300,
    prefect_port: Annotated[int, typer.Option(help="port of the Prefect server")] = 4200,
) -> None:
    """Prefect server, worker and Headway's page, all on this machine. Ctrl-C stops it all."""
    from headway.cli.up import up

    up(host, port, prefect_port)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 4300,
) -> None:
    """Headway's page and its webhooks alone: for a Prefect server (PREFECT_API_URL) and workers that run elsewhere."""
    from headway.cli.up import serve

    serve(host, port)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="leave it running until Ctrl-C")] = False,
) -> None:
    """The whole story on a bundled app: a release, one under load, a bad one that goes back by itself."""
    from headway.service import demo as story

    story.run(keep=keep)


@app.command()
def init(
    path: PathArgument = Path(),
    force: Annotated[bool, typer.Option("--force", help="replace the files that are there")] = False,
    json: Json = False,
) -> None:
    """Write a Dockerfile, a .dockerignore and a headway.yaml for a Node, Go or Python app."""
    from headway.cli.plan import init

    output.json = json
    init(path, force=force)


@app.command()
def check(path: PathArgument = Path(), json: Json = False) -> None:
    """Everything that can be known without deploying."""
    from headway.cli.plan import check

    output.json = json
    check(path)


env_app = typer.Typer(
    name="env", help="What each environment tells the app.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(env_app)


@env_app.command("diff")
def env_diff(one: Environment, other: Environment, path: PathArgument = Path(), json: Json = False) -> None:
    """Where two environments are told different things; secrets by name."""
    from headway.cli.env import diff

    output.json = json
    diff(one, other, path)


@env_app.command("render")
def env_render(
    environment: Environment,
    path: PathArgument = Path(),
    form: Annotated[str, typer.Option("--format", help="dotenv, docker or k8s")] = "dotenv",
    json: Json = False,
) -> None:
    """What an environment is told, for another tool; secrets stay names."""
    from headway.cli.env import rendered

    output.json = json
    rendered(environment, path, form)


@env_app.command("import")
def env_import(
    what: Annotated[str, typer.Argument(help=".env.example, a JSON Schema, or module:Class of pydantic-settings")],
    path: PathArgument = Path(),
    json: Json = False,
) -> None:
    """The contract that an existing schema makes, to be put into headway.yaml."""
    from headway.cli.env import import_

    output.json = json
    import_(what, path)


@app.command()
def plan(
    environment: Environment,
    path: PathArgument = Path(),
    diff: Annotated[
        bool, typer.Option("--diff", help="and what would change on the platform, as it says itself")
    ] = False,
    json: Json = False,
) -> None:
    """The steps a release would take there now, touching nothing."""
    from headway.cli.plan import plan

    output.json = json
    plan(environment, path, diff=diff)


@app.command()
def release(
    path: PathArgument = Path(),
    ref: Annotated[str | None, typer.Option(help="branch, tag or commit; what is checked out when left out")] = None,
    to: Annotated[str | None, typer.Option(help="the last environment to go to")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not wait for approval; the record says so")] = False,
    follow: Annotated[bool, typer.Option(help="wait and show how it goes")] = True,
    json: Json = False,
) -> None:
    """Release a commit, and follow it."""
    from headway.cli.releases import release

    output.json = json
    sys.exit(release(path, ref, to, yes=yes, follow=follow))


@app.command()
def approve(run: Run, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Let a release that waits go on."""
    from headway.cli.releases import decide

    output.json = json
    decide(run, "approved", by, reason)


@app.command()
def reject(run: Run, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """End a release that waits; what it did before stays."""
    from headway.cli.releases import decide

    output.json = json
    decide(run, "rejected", by, reason)


@app.command()
def rollback(
    app: App,
    environment: Environment,
    to: Annotated[str | None, typer.Option(help="revision or commit; the one before when left out")] = None,
    reason: Reason = "",
    by: By = "",
    revert: Annotated[bool, typer.Option("--revert", help="take contracts of the database back first")] = False,
    force: Annotated[bool, typer.Option("--force", help="go past such a contract; needs a --reason")] = False,
    json: Json = False,
) -> None:
    """Bring an environment back to an earlier revision."""
    from headway.cli.releases import roll_back

    output.json = json
    sys.exit(roll_back(app, environment, to, reason, by, force=force, revert=revert))


@app.command()
def adopt(
    app: App,
    target: Annotated[str, typer.Argument(help="the target it runs on, such as kubernetes/production")],
    json: Json = False,
) -> None:
    """Enter what a platform knows of an app into a ledger that is new, or was lost."""
    from headway.cli.adopt import adopt

    output.json = json
    adopt(app, target)


@app.command()
def promote(app: App, environment: Environment, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Take the rollout under way to 100 %: every pause, wait and analysis from now on is left out."""
    _steer("promote", app, environment, by, reason, json=json)


@app.command()
def skip(app: App, environment: Environment, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Leave out the step that the rollout under way is at: a pause, a wait for a person, an analysis."""
    _steer("skip", app, environment, by, reason, json=json)


@app.command()
def abort(app: App, environment: Environment, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """End the rollout under way, and bring the old version back."""
    _steer("abort", app, environment, by, reason, json=json)


def _steer(
    kind: Literal["promote", "skip", "abort"], app: str, environment: str, by: str, reason: str, *, json: bool
) -> None:
    from headway.cli.identity import me
    from headway.cli.rollout_commands import steer

    output.json = json
    steer(app, environment, kind, by or me(Path()), reason)


@app.command()
def status(
    app: Annotated[str | None, typer.Argument(help="one app only")] = None,
    live: Annotated[bool, typer.Option("--live", help="ask the platforms too: instances, objects, events")] = False,
    json: Json = False,
) -> None:
    """What is live where, what is going on, and who is waited for."""
    from headway.cli.status import status

    output.json = json
    status(app, live=live)


@app.command()
def previews(
    app: Annotated[str | None, typer.Argument(help="one app only")] = None,
    json: Json = False,
) -> None:
    """The previews of pull requests that stand: where, since when, until when."""
    from headway.cli.previews import show

    output.json = json
    show(app)


@app.command()
def preview(
    app: App,
    number: Annotated[int, typer.Argument(help="of the pull request")],
    teardown: Annotated[bool, typer.Option("--teardown", help="take it away, whatever the pull request is")] = False,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Have the preview of a pull request made, or torn down."""
    from headway.cli.previews import start
    from headway.cli.previews import teardown as take_away

    output.json = json
    take_away(app, number, reason) if teardown else start(app, number)


@app.command()
def history(app: App, limit: Annotated[int, typer.Option(help="how many releases")] = 20, json: Json = False) -> None:
    """The releases of an app, the newest first."""
    from headway.cli.status import history

    output.json = json
    history(app, limit)


registrations = typer.Typer(no_args_is_help=True, help="The apps whose git hosts may tell Headway of pushes.")
app.add_typer(registrations, name="app")


@registrations.command()
def add(
    repo: Annotated[str, typer.Argument(help="URL or path it is fetched from")],
    name: Annotated[str | None, typer.Option(help="as in its headway.yaml; the repository's when left out")] = None,
    host: Annotated[str | None, typer.Option(help="github, gitlab, gitea, bitbucket or generic; guessed")] = None,
    secret: Annotated[str | None, typer.Option(help="secret that signs its webhooks; NAME-webhook if left out")] = None,
    reports: Annotated[
        str | None, typer.Option(help="block of the host that is told how its commits do, such as github/acme")
    ] = None,
    json: Json = False,
) -> None:
    """Listen to a repository; again, with other words, changes how."""
    from headway.cli.apps import add

    output.json = json
    add(repo, name, host, secret, reports)


@registrations.command("list")
def list_(json: Json = False) -> None:
    """Every app that is listened to."""
    from headway.cli.apps import show

    output.json = json
    show()


@registrations.command()
def remove(name: AppName, json: Json = False) -> None:
    """Listen no more; what was released stays."""
    from headway.cli.apps import remove

    output.json = json
    remove(name)


@registrations.command()
def events(
    name: AppName, limit: Annotated[int, typer.Option(help="how many of them")] = 20, json: Json = False
) -> None:
    """What its host sent, and what became of it, the newest first."""
    from headway.cli.apps import events

    output.json = json
    events(name, limit)


@registrations.command()
def hook(
    name: AppName, url: Annotated[str, typer.Argument(help="where Headway listens")] = "http://127.0.0.1:4300"
) -> None:
    """Print a post-receive hook, for a git server of one's own."""
    from headway.cli.apps import hook

    hook(name, url)


@app.command()
def judge(
    run: Run,
    success_rate: Annotated[str, typer.Option(help='instead of the limits of then, such as ">= 99.5"')] = "",
    p50: Annotated[str, typer.Option(help='such as "<= 100ms"')] = "",
    p99: Annotated[str, typer.Option(help='such as "<= 500ms"')] = "",
    false_rollback: Annotated[str, typer.Option(help="compare with the stable version; such as 1%")] = "",
    ignore_below: Annotated[str, typer.Option(help="an error rate below this is never worse; such as 0.1%")] = "",
    ignore_slower: Annotated[str, typer.Option(help="a version slower by no more is not worse; such as 25%")] = "",
    json: Json = False,
) -> None:
    """The verdicts of a release once more, from its readings; with other limits, what they would have been."""
    from headway.cli.judge import judge

    output.json = json
    limits = {
        "success_rate": success_rate,
        "p50": p50,
        "p99": p99,
        "false_rollback": false_rollback,
        "ignore_below": ignore_below,
        "ignore_slower": ignore_slower,
    }
    judge(run, {name: limit for name, limit in limits.items() if limit})


@app.command()
def logs(
    app: App,
    environment: Environment,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as new lines come")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="how many of the last lines of each instance")] = 100,
    revision: Annotated[str | None, typer.Option(help="one revision only")] = None,
    json: Json = False,
) -> None:
    """What the app's instances say."""
    from headway.cli.status import logs

    output.json = json
    logs(app, environment, follow=follow, lines=lines, revision=revision)


def main() -> None:
    """Run the command line; every error is one line and a hint."""
    try:
        app()
    except HeadwayError as error:
        if output.debug:
            raise
        output.error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads us any more, as with `| head`: nothing is left to say
        sys.exit(141)
    except Exception as error:
        if output.debug:
            raise
        word = f"{type(error).__name__}: {error}"
        output.error(
            HeadwayError(f"a bug in Headway: {word}", "run it again with `headway --debug` and report what it says")
        )
        sys.exit(1)
