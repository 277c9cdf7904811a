"""Known vulnerabilities of what an app depends on, as the scanners that are installed here know them.

Each is asked in its own words for JSON, and believed only when it has looked at everything: pip-audit 2, npm 11 as
they are; osv-scanner 2, trivy 0.50 and govulncheck 1 as their documentation has it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headway import commands
from headway.errors import CommandFailed
from headway.readiness.checklist import Finding, failed, passed, unknown

__all__ = ["examine"]

TIMEOUT = 120.0  # seconds for one scanner: it downloads what is known
EXCERPT = 200  # of what a scanner says that could not look


class _NoAnswer(Exception):
    """Why a scanner has not looked at everything."""


class _Scanner(NamedTuple):
    program: str
    needs: tuple[str, ...]
    """Files one of which the repository has when it means something here."""
    command: str
    read: Callable[[Any], Sequence[str]]
    """The vulnerabilities in what it said, as JSON. Raises _NoAnswer, LookupError, TypeError, AttributeError when that
    is none."""
    without: tuple[str, ...] = ()
    """Files that say better what is installed."""


def _of_pip_audit(said: Any) -> list[str]:
    """One that its service does not know, or that is away, it skips, and ends with 0."""
    skipped = [one for one in said["dependencies"] if "skip_reason" in one]
    found = [f"{one['name']} {vuln['id']}" for one in said["dependencies"] for vuln in one.get("vulns", ())]
    if skipped and not found:
        raise _NoAnswer(f"{len(skipped)} of {len(said['dependencies'])} not looked at: {skipped[0]['skip_reason']}")
    return found


def _of_npm(said: Any) -> list[str]:
    if "vulnerabilities" not in said:
        raise _NoAnswer(said.get("message") or said["error"]["summary"])
    return [f"{name} ({one['severity']})" for name, one in said["vulnerabilities"].items()]


def _of_osv(said: Any) -> list[str]:
    return [
        f"{package['package']['name']} {one['id']}"
        for result in said["results"]
        for package in result["packages"]
        for one in package["vulnerabilities"]
    ]


def _of_trivy(said: Any) -> list[str]:
    if "SchemaVersion" not in said:
        raise LookupError("not what trivy writes")
    found = (one for result in said.get("Results") or () for one in result.get("Vulnerabilities") or ())
    return [f"{one['PkgName']} {one['VulnerabilityID']}" for one in found]


# The first of these that answers has looked at whatever there is.
_WHOLE = (
    _Scanner("osv-scanner", (), "osv-scanner scan source --format json -r .", _of_osv),
    _Scanner("trivy", (), "trivy fs --quiet --format json --scanners vuln .", _of_trivy),
)
_PIP_AUDIT = "pip-audit -f json --desc off --progress-spinner off"
_PYTHON_LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock")
# What only those read.
_THEIRS = (*_PYTHON_LOCKS, "yarn.lock", "pnpm-lock.yaml", "Gemfile.lock", "Cargo.lock", "composer.lock")
# Each of these knows one language.
_EACH = (
    _Scanner("pip-audit", ("requirements.txt",), f"{_PIP_AUDIT} -r requirements.txt", _of_pip_audit),
    _Scanner(
        "pip-audit", ("pyproject.toml",), f"{_PIP_AUDIT} .", _of_pip_audit, without=("requirements.txt", *_PYTHON_LOCKS)
    ),
    _Scanner("npm", ("package-lock.json", "npm-shrinkwrap.json"), "npm audit --json", _of_npm),
)


async def examine(tree: Path) -> Finding | None:
    """What the scanners say that are installed and mean something here; None when there is nothing to look at.

    Of those that look at one language each, the worst counts: what one of them could not find out is unknown.
    """
    silent = []
    for scanner in _WHOLE:
        if shutil.which(scanner.program):
            finding = await _ask(scanner, tree)
            if finding.passes is not None:
                return finding
            silent.append(finding)
    found = [await _ask(one, tree) for one in _EACH if _means_something(one, tree)]
    if (tree / "go.mod").is_file():
        found.append(await _govulncheck(tree))
    found += [unknown(f"{file}: osv-scanner or trivy would read it") for file in _THEIRS if (tree / file).is_file()]
    return _worst(found or silent)


def _means_something(scanner: _Scanner, tree: Path) -> bool:
    there = {file for file in (*scanner.needs, *scanner.without) if (tree / file).is_file()}
    return bool(there & set(scanner.needs)) and not there & set(scanner.without)


def _worst(found: Sequence[Finding]) -> Finding | None:
    if not found:
        return None
    worst = next((passes for passes in (False, None) if any(one.passes is passes for one in found)), True)
    return Finding(worst, "; ".join(one.evidence for one in found if one.passes is worst))


async def _ask(scanner: _Scanner, tree: Path) -> Finding:
    if not shutil.which(scanner.program):
        return unknown(f"{scanner.program} is not installed")
    ended, said, complaint = await _run(scanner.program, scanner.command, tree)
    try:
        found = scanner.read(json.loads(said))
    except _NoAnswer as why:
        return unknown(f"{scanner.program}: {str(why)[:EXCERPT]}")
    except (ValueError, LookupError, TypeError, AttributeError):
        return unknown(f"{scanner.program}: {complaint or f'exit code {ended}, and no answer that can be read'}")
    if not found:
        return passed(f"{scanner.program}: none known")
    shown, more = ", ".join(found[:3]), len(found) - 3
    return failed(f"{scanner.program}: {len(found)} known: {shown}" + (f" and {more} more" if more > 0 else ""))


async def _govulncheck(tree: Path) -> Finding:
    """Exit code 3 when it has found some."""
    if not shutil.which("govulncheck"):
        return unknown("govulncheck is not installed")
    ended, _, complaint = await _run("govulncheck", "govulncheck ./...", tree)
    if ended == 3:
        return failed("govulncheck: vulnerabilities that the code reaches")
    if ended == 0:
        return passed("govulncheck: none that the code reaches")
    return unknown(f"govulncheck: {complaint or f'exit code {ended}'}")


async def _run(program: str, command: str, tree: Path) -> tuple[int | None, str, str]:
    """Its exit code, None when it was ended; what it said; and the last line that it complained with."""
    said: list[str] = []
    with tempfile.NamedTemporaryFile("r", prefix="headway-scanner-", errors="replace") as complaints:
        try:
            ended = await commands.run(
                f"{command} 2>{shlex.quote(complaints.name)}",
                cwd=tree,
                env=commands.clean_environment(),
                timeout=TIMEOUT,
                on_line=said.append,
                name=program,
            )
        except CommandFailed as failure:
            return None, "", failure.what
        lines = [line.strip() for line in complaints if line.strip()]
    return ended.exit_code, "\n".join(said), lines[-1][:EXCERPT] if lines else ""
