"""Detect what kind of app a repository contains, and the name of its image repository."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from headway.build.scaffold import go, node, python
from headway.build.scaffold.project import Project
from headway.domain.errors import NotFound, UsageError

__all__ = ["detect"]


class _Kind(NamedTuple):
    name: str
    marks: tuple[str, ...]
    detect: Callable[[Path], Project]


# Node is last: beside a Go or Python program, package.json is usually for its web pages or tools.
_KINDS = (
    _Kind("Go", ("go.mod",), go.detect),
    _Kind("Python", ("pyproject.toml", "requirements.txt"), python.detect),
    _Kind("Node", ("package.json",), node.detect),
)
_MARKS = [mark for kind in _KINDS for mark in kind.marks]


def detect(tree: Path) -> Project:
    """Detect the app at the root of a repository: the first of Go, Python and Node that has a start command.

    Raises NotFound, listing the files it looks for, when there is no such app, and UsageError when one of these files
    cannot be parsed.
    """
    if not tree.is_dir():
        raise UsageError(f"{tree}: no such directory", "name the directory of the repository")
    present = [kind for kind in _KINDS if any((tree / mark).is_file() for mark in kind.marks)]
    if not present:
        raise NotFound(f"{tree}: no app that Headway recognises", f"it looks for {', '.join(_MARKS)} at the root")
    failures: list[NotFound] = []
    for kind in present:
        try:
            project = kind.detect(tree)
        except NotFound as failure:
            failures.append(failure)
            continue
        taken = (_why(kind, present, failures),) if len(present) > 1 else ()
        return project.model_copy(update={"image": _image(tree), "notes": (*taken, *project.notes)})
    raise failures[0]


def _why(taken: _Kind, present: list[_Kind], failures: list[NotFound]) -> str:
    others = [kind for kind in present if kind is not taken]
    reason = failures[-1].what if failures else "Go comes before Python, and both before Node"
    return f"taken for an app in {taken.name}, not {' or '.join(kind.name for kind in others)}: {reason}"


# --- image repository ------------------------------------------------------------------------------------------


def _image(tree: Path) -> str | None:
    """Image repository at the git host of the remote; None without a remote, or when its host has no known registry."""
    host, path = _remote(tree)
    registry = {"github.com": "ghcr.io", "gitlab.com": "registry.gitlab.com", "codeberg.org": "codeberg.org"}.get(host)
    image = f"{registry}/{path}"
    return (
        image if registry and re.fullmatch(r"[a-z0-9.-]+(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*){2,}", image) else None
    )


def _remote(tree: Path) -> tuple[str, str]:
    """Host and path of the remote `origin`, in lower case as registries require; empty without a remote."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        url = subprocess.run(
            ["git", "remote", "get-url", "origin"],
            cwd=tree,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "", ""
    short = re.fullmatch(r"(?:[^@/:]+@)?([^/:]+):(?!//)(.+)", url)  # git@github.com:acme/shop.git
    try:
        host, path = (short[1], short[2]) if short else ((parts := urlsplit(url)).hostname or "", parts.path)
    except ValueError:
        return "", ""
    return host.lower(), path.strip("/").removesuffix(".git").lower()
