"""Manage API tokens, for programs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from headway.cli import completion
from headway.cli.authority import require
from headway.cli.help_text import examples
from headway.cli.lazy_group import typer_app
from headway.cli.options import Json
from headway.cli.output import output
from headway.config.value_parsers import parse_duration, parse_label
from headway.domain.access import Action, Scope, Token
from headway.domain.errors import UsageError
from headway.ledger import Ledger
from headway.system.os_user import os_user
from headway.system.paths import ledger_url

__all__ = ["commands"]

commands = typer_app(help=__doc__)

ACTIONS = ", ".join(Action)
HEADS = ("TOKEN", "OWNER", "MAY", "EXPIRES", "LAST USE", "")
TokenArgument = Annotated[str, typer.Argument(help="Name of the token", autocompletion=completion.tokens)]


@commands.command()
@examples(
    "headway token create nightly-build --for shop",
    "headway token create deployer --for shop,blog --may release,rollback --in staging --expires 30d",
)
def create(
    name: Annotated[str, typer.Argument(help="Name, which the records of its releases show as token:NAME")],
    apps: Annotated[str, typer.Option("--for", help="Apps, separated by commas; default: all apps of its owner")] = "",
    actions: Annotated[str, typer.Option("--may", help=f"Actions, separated by commas: {ACTIONS}")] = "release",
    environments: Annotated[
        str, typer.Option("--in", help="Environments, separated by commas; default: every environment")
    ] = "",
    expires: Annotated[str, typer.Option(help="When it ends, such as 90d or 12h; `never` for no end")] = "90d",
    _json: Json = False,
) -> None:
    """Create a token of your own and print its secret, once.

    It may do what its scope names, and never more than you may. Standard output has the secret alone.
    """
    scope = Scope(actions=_actions(actions), apps=_labels("--for", apps), environments=_labels("--in", environments))
    _labels("NAME", name)
    until = _until(expires)
    with Ledger.open(ledger_url()) as ledger:
        for action in scope.actions:
            for app in scope.apps:
                require(ledger, action, app)
        token, secret = ledger.tokens.create(name, owner=os_user(), scope=scope, expires_at=until)
    output.note(f"token {token.name}: {token.scope}, {_end(token)}", "its secret is shown only now:")
    output.say(secret)
    output.result(token.model_dump(mode="json") | {"secret": secret})


@commands.command("list")
@examples("headway token list")
def list_(_json: Json = False) -> None:
    """List all tokens, those that have ended included.

    Secrets are not shown: Headway stores only hashes of them.
    """
    with Ledger.open(ledger_url()) as ledger:
        tokens = ledger.tokens.all()
    output.table(HEADS, [_row(token) for token in tokens])
    output.result([token.model_dump(mode="json") for token in tokens])


@commands.command()
@examples("headway token revoke nightly-build")
def revoke(name: TokenArgument, _json: Json = False) -> None:
    """Revoke a token now: your own, or as an admin any."""
    with Ledger.open(ledger_url()) as ledger:
        who = os_user()
        if ledger.tokens.get(name).owner != who.name:
            require(ledger, Action.ADMIN, None)
        token = ledger.tokens.revoke(name, by=str(who))
    output.say(f"token {name} is revoked")
    output.result(token.model_dump(mode="json"))


def _actions(text: str) -> tuple[Action, ...]:
    words = _words(text)
    if unknown := [word for word in words if word not in set(Action)]:
        raise UsageError(f"--may {text}: no such action: {', '.join(unknown)}", f"actions: {ACTIONS}")
    if not words:
        raise UsageError("--may names no action", f"actions: {ACTIONS}")
    return tuple(Action(word) for word in words)


def _labels(option: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(parse_label(word) for word in _words(text))
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error}", "see headway token create --help") from error


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _until(text: str) -> datetime | None:
    if text == "never":
        return None
    days = re.fullmatch("([0-9]{1,4})d", text)
    try:
        seconds = int(days[1]) * 86400.0 if days else parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--expires {text}: {error}", "for example: 90d, 12h or never") from error
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _row(token: Token) -> tuple[str, ...]:
    used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
    return token.name, token.owner, str(token.scope), _end(token), used, token.ended(datetime.now(UTC)) or ""


def _end(token: Token) -> str:
    return f"until {token.expires_at:%Y-%m-%d %H:%M} UTC" if token.expires_at else "without an end"
