"""`headway open`: sign in to the pages of the running service."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.options import Json
from headway.cli.output import output
from headway.domain.errors import ServiceUnavailable
from headway.ledger import Ledger
from headway.service.up_record import UpRecord
from headway.system.os_user import os_user
from headway.system.paths import ledger_url

__all__ = ["open_pages", "sign_in_link"]


@examples(
    "headway open             # signed in, in the browser",
    "headway open --print     # print the link, for a browser elsewhere",
)
def open_pages(
    only_print: Annotated[bool, typer.Option("--print", help="Print the link, for a browser elsewhere")] = False,
    _json: Json = False,
) -> None:
    """Sign in to the pages of the running `headway up`.

    The link signs in as your user of this machine, once, within ten minutes. Whoever can read HEADWAY_HOME can make
    one.
    """
    up = UpRecord.read()
    if up is None:
        raise ServiceUnavailable("headway is not running here", "start it: headway up")
    link = sign_in_link(up.web_url)
    output.result({"url": link})
    output.say(link)
    if not only_print and not output.json and not webbrowser.open(link):
        output.say("no browser was found here: open the link in one that reaches this machine")


def sign_in_link(url: str) -> str:
    """A link that begins a session of the OS user, once."""
    with Ledger.open(ledger_url()) as ledger:
        return f"{url}/sign-in?code={ledger.sessions.offer(os_user())}"
