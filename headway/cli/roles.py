"""Manage the roles of users and groups."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from headway.cli import completion
from headway.cli.authority import require
from headway.cli.help_text import examples
from headway.cli.lazy_group import typer_app
from headway.cli.options import Json
from headway.cli.output import output
from headway.domain.access import GROUP, Action
from headway.domain.errors import UsageError
from headway.domain.principal import Principal, Role
from headway.ledger import Ledger
from headway.system.os_user import home_owner
from headway.system.paths import ledger_url, make_home

__all__ = ["commands"]

commands = typer_app(help=__doc__)

SubjectArgument = Annotated[str, typer.Argument(help="Name of a user, or group:NAME")]
UserArgument = Annotated[str, typer.Argument(help="Name of a user")]
GroupArgument = Annotated[str, typer.Argument(help="Name of a group")]
AppOption = Annotated[
    str | None, typer.Option("--app", help="Only for this app; default: all apps", autocompletion=completion.apps)
]


@commands.command()
@examples(
    "headway role grant ann@example.com developer --app shop",
    "headway role grant group:release-owners approver",
)
def grant(
    subject: SubjectArgument,
    role: Annotated[Role, typer.Argument(help="Role: viewer, developer, approver or admin")],
    app: AppOption = None,
    _json: Json = False,
) -> None:
    """Give a role to a user or group.

    It replaces the role that they have for the app, or for all apps.
    """
    with Ledger.open(ledger_url()) as ledger:
        by = require(ledger, Action.ADMIN, app)
        given = ledger.grants.grant(_subject(subject), role, app, by=str(by))
    output.say(f"{given.subject} is {given.role} of {given.app or 'all apps'}")
    output.result(given.model_dump(mode="json"))


@commands.command()
@examples("headway role revoke ann@example.com --app shop")
def revoke(subject: SubjectArgument, app: AppOption = None, _json: Json = False) -> None:
    """Take the role for an app, or for all apps, from a user or group."""
    with Ledger.open(ledger_url()) as ledger:
        ledger.grants.revoke(subject, app, by=str(require(ledger, Action.ADMIN, app)))
    output.say(f"{subject} has no role of its own for {app or 'all apps'}")
    output.result({"subject": subject, "app": app, "role": None})


@commands.command("list")
@examples("headway role list")
def list_(_json: Json = False) -> None:
    """List the roles, and the known members of groups."""
    with Ledger.open(ledger_url()) as ledger:
        grants, members = ledger.grants.all(), ledger.grants.members()
    owner = home_owner(make_home())
    rows = [(owner, Role.ADMIN.value, "all apps", "owns Headway's home directory")]
    rows += [(one.subject, one.role.value, one.app or "all apps", f"by {one.granted_by}") for one in grants]
    rows += [(one.member, "", "", f"member of {GROUP}{one.group} ({one.source})") for one in members]
    output.table(("WHO", "ROLE", "APP", ""), rows)
    output.result(
        {
            "owner": owner,
            "roles": [one.model_dump(mode="json") for one in grants],
            "members": [one.model_dump(mode="json") for one in members],
        }
    )


@commands.command()
@examples("headway role join ann@example.com release-owners")
def join(user: UserArgument, group: GroupArgument, _json: Json = False) -> None:
    """Put a user into a group.

    This is in addition to the groups that the identity provider names.
    """
    with Ledger.open(ledger_url()) as ledger:
        by = require(ledger, Action.ADMIN, None)
        ledger.grants.add_member(_group(group), _user(user), by=str(by))
    output.say(f"{user} is in {GROUP}{group}")
    output.result({"member": user, "group": group})


@commands.command()
@examples("headway role leave ann@example.com release-owners")
def leave(user: UserArgument, group: GroupArgument, _json: Json = False) -> None:
    """Remove a user from a group that `join` has put them into."""
    with Ledger.open(ledger_url()) as ledger:
        by = require(ledger, Action.ADMIN, None)
        ledger.grants.remove_member(group, user, by=str(by))
    output.say(f"{user} is not in {GROUP}{group} any more")
    output.result({"member": user, "group": None})


@commands.command()
@examples("headway role remove ann@example.com")
def remove(user: UserArgument, _json: Json = False) -> None:
    """Remove a user: every role, every group, all tokens and sessions."""
    with Ledger.open(ledger_url()) as ledger:
        ledger.grants.remove_user(user, by=str(require(ledger, Action.ADMIN, None)))
    output.say(f"{user} has no role, group, valid token or session any more")
    output.result({"user": user, "role": None})


def _subject(text: str) -> str:
    return f"{GROUP}{_group(text.removeprefix(GROUP))}" if text.startswith(GROUP) else _user(text)


def _group(name: str) -> str:
    if not name.strip() or not name.isprintable() or name.startswith(GROUP):
        raise UsageError(
            f"{name!r} is not the name of a group", f"for example release-owners; as a subject {GROUP}NAME"
        )
    return name


def _user(name: str) -> str:
    try:
        return Principal(kind="user", name=name).name
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"{name!r} is not the name of a user: {reason}", "see headway role list") from error
