"""`headway env`: what each environment tells the app, compared, rendered, and the contract imported."""

from __future__ import annotations

from pathlib import Path

from headway import config
from headway.cli.output import output
from headway.config import env_import
from headway.config.env_export import FORMATS, differences, render
from headway.domain.errors import UsageError

__all__ = ["diff", "import_", "rendered"]


def diff(one: str, other: str, path: Path) -> None:
    """Where two environments are told different things. Raises NotFound for one that there is not."""
    found = config.load(path)
    rows = differences(found.variables(one), found.variables(other))
    if not rows:
        output.say(f"{one} and {other} are told the same")
    else:
        table = [("", one, other), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        for row in table:
            output.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    output.result([{"variable": name, one: here, other: there} for name, here, there in rows])


def rendered(environment: str, path: Path, form: str) -> None:
    """What an environment is told, in another tool's words; secrets as names."""
    known = next((one for one in FORMATS if one == form), None)
    if known is None:
        raise UsageError(f"--format {form}: there is {', '.join(FORMATS)}", "dotenv when left out")
    text = render(config.load(path).variables(environment), known)
    output.say(text)
    output.result({"environment": environment, "format": known, "text": text})


def import_(what: str, path: Path) -> None:
    """The `env` section of headway.yaml that says what an existing schema says."""
    found = env_import.contract(what, path)
    output.say(env_import.written(found))
    output.result({name: one.model_dump(mode="json", exclude_unset=True) for name, one in found.items()})
