"""Run the `git` program with a timeout and without prompts. Errors show no credentials."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from headway.domain.errors import SourceError

__all__ = [
    "FULL_SHA",
    "LOCAL_TIMEOUT",
    "commit_of",
    "environment",
    "failure",
    "git",
    "object_format",
    "run",
    "without_credentials",
]

LOCAL_TIMEOUT = 120.0  # seconds
FULL_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# A git hook sets these. They would redirect every git command to the repository of the hook.
_HOOK_VARIABLES = re.compile(
    "GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|COMMON_DIR|NAMESPACE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES"
    "|SHALLOW_FILE|GRAFT_FILE|QUARANTINE_PATH)"
)

# What the configuration of a user or machine must not change. Credentials, proxies and URL rewrites stay theirs.
_FIXED = {
    "color.ui": "false",
    "commit.gpgSign": "false",
    "core.attributesFile": os.devnull,  # its filters would change files
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "i18n.logOutputEncoding": "UTF-8",
    "log.mailmap": "false",
    "log.showSignature": "false",
    "status.showUntrackedFiles": "normal",
    "submodule.recurse": "false",
}

_HINTS = {
    "dubious ownership": "it is of another user; to trust it: git config --global --add safe.directory {where}",
    "not a git repository": "make it one (git init), or name the directory or URL of one",
    "does not appear to be a git repository": "name the directory or URL of a git repository",
    "must be run in a work tree": "name the directory of a work tree",
    "Authentication failed|could not read (Username|Password)|Permission denied|access rights|prompts disabled": (
        "give this machine access: a deploy key, or a git credential helper"
    ),
    "Could not resolve host|unable to access|Connection (refused|timed out|reset)|Could not connect": (
        "check the host name, and that the host is reachable from here"
    ),
    "No space left on device|Disk quota exceeded": "free disk space and try again",
    r"\.lock': File exists": "a git process died there: if none is running, remove that file",
    "unable to read|bad object|missing blob|corrupt": "a git object is missing or damaged: run git fsck",
}


def git(*arguments: str, cwd: Path | None = None, timeout: float = LOCAL_TIMEOUT, stdin: str = "") -> str:
    """Return the output of a git command. Raises SourceError when it fails."""
    finished = run(list(arguments), cwd, timeout, stdin)
    if finished.returncode:
        raise failure(finished, cwd or arguments[-1])
    return finished.stdout


def run(arguments: list[str], cwd: Path | None, timeout: float, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a git command. Raises SourceError when git is not installed or takes longer than `timeout` seconds.

    At the timeout the whole process group is killed.
    """
    program = shutil.which("git")
    if program is None:
        raise SourceError("git: not installed, or not on PATH", "install it: apt-get install git")
    process = subprocess.Popen(
        [program, *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise SourceError(
            f"{without_credentials(str(cwd or arguments[-1]))}: git {arguments[0]} did not end within {timeout:g} s",
            "check that this machine can reach the repository",
        ) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def commit_of(repo: Path, ref: str) -> str | None:
    """The sha of the commit that a local repository has under this name; None if there is none."""
    result = run(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"], repo, LOCAL_TIMEOUT)
    # With --quiet an unknown name has exit code 1 and no output. Any other output is another error.
    if result.returncode and "fatal" in result.stderr and "Needed a single revision" not in result.stderr:
        raise failure(result, repo)
    return None if result.returncode else result.stdout.strip()


def object_format(sha: str) -> str:
    """Option of `git init` for a repository whose ids have the length of this one."""
    return f"--object-format={'sha256' if len(sha) == 64 else 'sha1'}"


def environment() -> dict[str, str]:
    """Environment variables of a git command."""
    inherited = {name: value for name, value in os.environ.items() if not _HOOK_VARIABLES.fullmatch(name)}
    return {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        **inherited,
        **_fixed_configuration(int(inherited.get("GIT_CONFIG_COUNT") or 0)),
        # No prompts, and messages in English: `failure` matches their text.
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GCM_INTERACTIVE": "never",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        # A replacement would make a commit another one under its hash.
        "GIT_NO_REPLACE_OBJECTS": "1",
        # No ext:: URLs, which run any program, and no unencrypted git://.
        "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
        "LC_ALL": "C",
    }


def _fixed_configuration(first: int) -> dict[str, str]:
    """Environment variables that override git's configuration files, numbered from `first` on."""
    variables = {"GIT_CONFIG_COUNT": str(first + len(_FIXED))}
    for number, (key, value) in enumerate(_FIXED.items(), first):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def failure(finished: subprocess.CompletedProcess[str], where: object) -> SourceError:
    """The error of a git command, with its output in one line and a hint."""
    output = without_credentials(finished.stderr.strip()) or f"exit code {finished.returncode}"
    hint = next(
        (hint for pattern, hint in _HINTS.items() if re.search(pattern, output)), "see the message of git above"
    )
    lines = [
        re.sub(r"^(fatal|error): ", "", line)
        for line in output.splitlines()
        if not line.startswith(("hint:", "warning:"))
    ]
    subject = without_credentials(str(where))
    return SourceError(f"{subject}: {'; '.join(lines[:2])}", hint.format(where=subject))


def without_credentials(text: str) -> str:
    """Remove the credentials from all URLs in a text."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)
