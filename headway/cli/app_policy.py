"""`headway app policy`: show or set the rules that no commit of an app can loosen."""

from __future__ import annotations

import difflib
import io
import sys
from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML

from headway.cli.authority import require
from headway.cli.help_text import examples
from headway.cli.options import AppArgument, Json
from headway.cli.output import output
from headway.config import app_policy
from headway.config.app_policy import AppPolicy
from headway.config.value_parsers import format_duration
from headway.domain.access import GROUP, Action, Membership
from headway.domain.errors import HeadwayError, UsageError
from headway.ledger import Ledger, PolicyRecord
from headway.system.paths import ledger_url

__all__ = ["policy"]

STYLES = {"+": "green", "-": "red", "@": "cyan"}


@examples(
    "headway app policy shop                              # show it",
    "headway app policy shop > policy.yaml                # to change it in a file",
    "headway app policy shop --set policy.yaml            # show the difference, ask, and set it",
    "headway app policy shop --set policy.yaml --yes      # in a script",
)
def policy(
    name: AppArgument,
    file: Annotated[Path | None, typer.Option("--set", help="Set the policy in this file; - is standard input")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for a confirmation")] = False,
    _json: Json = False,
) -> None:
    """Show the policy of an app, or set it from a file.

    The policy names the branches, tags, targets and secrets that releases may use, and the least approval and the
    freezes of each environment. headway.yaml can ask for more, never for less.
    """
    with Ledger.open(ledger_url()) as ledger:
        now = ledger.policies.get(name)
        if file is not None:
            now = _set(ledger, name, now, file, yes=yes)
        elif now is None:
            ledger.apps.get(name)
        else:
            require(ledger, Action.READ, name)
    if now is None:
        output.say(
            f"# {name} has no policy: any branch, tag and target, no secrets that are another app's by their name"
        )
    else:
        output.say(f"# version {now.number}, set by {now.set_by} on {now.set_at:%Y-%m-%d %H:%M} UTC", _yaml(now.policy))
    output.result(now and now.model_dump(mode="json"))


def _set(ledger: Ledger, app: str, now: PolicyRecord | None, file: Path, *, yes: bool) -> PolicyRecord:
    who = require(ledger, Action.ADMIN, app)
    ledger.apps.get(app)
    new = _repository_of_this_machine(_read(file))
    _require_approvers(new, ledger.grants.members())
    before, after = (_yaml(one).splitlines() if one else [] for one in (now and now.policy, new))
    changes = list(difflib.unified_diff(before, after, "the policy now", str(file), lineterm=""))
    if not changes and now:
        output.note(f"{app} has this policy already")
        return now
    output.note(*(output.style(line, STYLES.get(line[:1], "dim"), sys.stderr) for line in changes))
    if not yes and not _confirmed(app):
        raise UsageError(f"the policy of {app} was not changed", "confirm it with y, or with --yes")
    return ledger.policies.set(app, new, by=str(who))


def _read(file: Path) -> AppPolicy:
    if str(file) == "-":
        return app_policy.load(sys.stdin.read(), "standard input")
    try:
        return app_policy.load(file.read_text("utf-8"), file.name)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}", "name a YAML file, or - for standard input") from error


def _repository_of_this_machine(new: AppPolicy) -> AppPolicy:
    """The policy with the full path of a repository that is a directory here."""
    if new.repository is None or not Path(new.repository).is_dir():
        return new
    return new.model_copy(update={"repository": str(Path(new.repository).resolve())})


def _require_approvers(new: AppPolicy, members: list[Membership]) -> None:
    """Raise UsageError for an approval that nobody could give: not even an admin could release then."""
    known = {f"{GROUP}{one.group}" for one in members}
    for environment, rules in new.environments.items():
        by = rules.approval.by if rules.approval else ()
        if by and all(one.startswith(GROUP) and one not in known for one in by):
            raise UsageError(
                f"environments/{environment}/approval: nobody is known to be in {', '.join(by)}: nobody could approve",
                "name a user too, or put users into the group: headway role join USER GROUP",
            )


def _confirmed(app: str) -> bool:
    if not sys.stdin.isatty():
        raise HeadwayError(f"the policy of {app} was not changed: nobody can be asked", "add --yes")
    return typer.confirm(f"set this policy of {app}?", err=True)


def _yaml(policy: AppPolicy) -> str:
    """As it is written in a file: durations with their unit, and only the keys that are set."""
    document = policy.model_dump(mode="json", exclude_unset=True)
    for rules in document.get("environments", {}).values():
        if (rules.get("approval") or {}).get("expires"):
            rules["approval"]["expires"] = format_duration(rules["approval"]["expires"])
    text, yaml = io.StringIO(), YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(document, text)
    return text.getvalue().rstrip()
