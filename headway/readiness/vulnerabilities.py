"""Known vulnerabilities of what an app depends on, as the scanners that are installed here know them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from headway import commands
from headway.errors import CommandFailed
from headway.readiness.checklist import Finding, failed, passed

__all__ = ["examine"]

TIMEOUT = 120.0  # seconds for one scanner: it downloads what is known


class _Scanner(NamedTuple):
    program: str
    needs: tuple[str, ...]
    """Files one of which the repository has when it means something here."""
    command: str
    count: Callable[[Any], int]
    """Vulnerabilities in what it said, as JSON. Raises LookupError or TypeError when that is no answer."""


def _of_pip_audit(said: Any) -> int:
    return sum(len(one.get("vulns", ())) for one in said["dependencies"])


def _of_npm(said: Any) -> int:
    return int(said["metadata"]["vulnerabilities"]["total"])


def _of_osv(said: Any) -> int:
    return sum(len(package["vulnerabilities"]) for one in said["results"] for package in one["packages"])


def _of_trivy(said: Any) -> int:
    if "SchemaVersion" not in said:
        raise LookupError("not what trivy writes")
    return sum(len(one.get("Vulnerabilities") or ()) for one in said.get("Results") or ())


_SCANNERS = (
    _Scanner("osv-scanner", (), "osv-scanner scan source --format json -r .", _of_osv),
    _Scanner("trivy", (), "trivy fs --quiet --format json --scanners vuln .", _of_trivy),
    _Scanner(
        "pip-audit",
        ("requirements.txt",),
        "pip-audit -f json --progress-spinner off -r requirements.txt",
        _of_pip_audit,
    ),
    _Scanner("npm", ("package-lock.json", "npm-shrinkwrap.json"), "npm audit --json", _of_npm),
)


async def examine(tree: Path) -> Finding | None:
    """What the first scanner says that is installed and means something here; None when none could say anything."""
    for scanner in _SCANNERS:
        here = not scanner.needs or any((tree / file).is_file() for file in scanner.needs)
        if here and shutil.which(scanner.program):
            finding = await _ask(scanner, tree)
            if finding is not None:
                return finding
    if (tree / "go.mod").is_file() and shutil.which("govulncheck"):
        return await _govulncheck(tree)
    return None


async def _ask(scanner: _Scanner, tree: Path) -> Finding | None:
    said: list[str] = []
    try:
        await commands.run(
            f"{scanner.command} 2>/dev/null",
            cwd=tree,
            env=commands.clean_environment(),
            timeout=TIMEOUT,
            on_line=said.append,
            name=scanner.program,
        )
        number = scanner.count(json.loads("\n".join(said)))
    except (CommandFailed, ValueError, LookupError, TypeError, AttributeError):
        return None  # without a network, or in words of another version: it has said nothing
    if number:
        return failed(f"{scanner.program}: {number} known vulnerabilities")
    return passed(f"{scanner.program}: none known")


async def _govulncheck(tree: Path) -> Finding | None:
    """Exit code 3 when it has found some."""
    said: list[str] = []
    try:
        ended = await commands.run(
            "govulncheck ./...", cwd=tree, env=commands.clean_environment(), timeout=TIMEOUT, on_line=said.append
        )
    except CommandFailed:
        return None
    found = failed("govulncheck: vulnerabilities that the code reaches")
    return {0: passed("govulncheck: none that the code reaches"), 3: found}.get(ended.exit_code)
