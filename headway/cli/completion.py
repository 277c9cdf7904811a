"""`headway completion`, and the values that the shell completes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.help_text import examples

if TYPE_CHECKING:
    from headway.ledger import Ledger

__all__ = ["COMPLETE", "apps", "completion", "environments", "releases", "tokens"]

COMPLETE = "_HEADWAY_COMPLETE"  # set by the scripts: the shell asks for completions
RELEASES = 20


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@examples(
    'eval "$(headway completion bash)"                                   # in ~/.bashrc',
    'eval "$(headway completion zsh)"                                    # in ~/.zshrc, after compinit',
    "headway completion fish > ~/.config/fish/completions/headway.fish",
)
def completion(shell: Annotated[Shell, typer.Argument(help="Shell: bash, zsh or fish")]) -> None:
    """Print the completion script of a shell.

    It completes commands, options, and the names of apps, environments and releases.
    """
    from typer._completion_shared import get_completion_script

    print(get_completion_script(prog_name="headway", complete_var=COMPLETE, shell=shell.value))


def apps(incomplete: str) -> list[str]:
    with _ledger() as ledger:
        return [name for name in ledger.releases.apps() if name.startswith(incomplete)]


def environments(ctx: typer.Context, incomplete: str) -> list[str]:
    with _ledger() as ledger:
        known = ledger.rollouts.environments(ctx.params.get("app") or "")
    return [name for name in known if name.startswith(incomplete)]


def releases(incomplete: str) -> list[tuple[str, str]]:
    with _ledger() as ledger:
        recent = ledger.releases.recent(limit=RELEASES)
    return [(one.name, f"{one.state} {one.subject or ''}") for one in recent if one.name.startswith(incomplete)]


def tokens(incomplete: str) -> list[str]:
    with _ledger() as ledger:
        return [token.name for token in ledger.tokens.all() if token.name.startswith(incomplete)]


def _ledger() -> Ledger:
    from headway.ledger import Ledger  # imports SQLAlchemy, which `headway --help` does not wait for
    from headway.system.paths import ledger_url

    return Ledger.open(ledger_url())
