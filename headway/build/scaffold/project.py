"""The detected app, and functions to inspect a repository."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.errors import UsageError

__all__ = [
    "Check",
    "GoProject",
    "NodeProject",
    "Project",
    "PythonProject",
    "entry",
    "label",
    "mentions",
    "read",
    "walk",
]

_SKIPPED = {"node_modules", "vendor", "venv", "env", "dist", "build", "docs", "test", "tests", "__tests__", "testdata"}
NEEDS_SOURCE = "installing the dependencies needs the source"
_MOST_FILES = 2000
_MOST_BYTES = 512 * 1024
_ASSIGNMENTS = re.compile(r"""(?:[A-Za-z_]\w*=(?:"[^"]*"|'[^']*'|[^\s"'])*\s+)+""")


class Check(Frozen):
    name: str
    run: str
    needs: tuple[str, ...] = ()


class Project(Frozen):
    """An app that can be packaged as an image, with its start command."""

    kind: Literal["node", "go", "python"]
    name: str = Field(description="a DNS label")
    version: str = Field(description="of the language, as the tag of its image begins")
    run: str = Field(description="shell command that starts the app inside its image")
    checks: tuple[Check, ...] = ()
    ignored: tuple[str, ...] = Field(
        default=(), description="build output of this repository, as .dockerignore says it"
    )
    image: str | None = Field(default=None, description="repository of its image; None: nothing in the repo tells")
    notes: tuple[str, ...] = Field(default=(), description="what was guessed, or is left for a person to do")

    @property
    def exceptions(self) -> dict[str, str]:
        """Dockerfile rules that do not apply to this app, each with the reason."""
        return {}


class NodeProject(Project):
    kind: Literal["node"] = "node"
    copied: tuple[str, ...] = Field(description="files that the dependencies are installed from")
    install: str
    prune: str
    builds: bool = Field(description="package.json has a build script")
    source_first: bool = Field(description="installing needs the source, so that is copied before")
    corepack: bool = False
    berry: bool = Field(default=False, description="Yarn 2 or newer")

    @property
    def exceptions(self) -> dict[str, str]:
        found = {"HW004": NEEDS_SOURCE} if self.source_first else {}
        return found | (
            {"HW012": "only in the stage that builds, and removed there"} if ".npmrc" in self.copied else {}
        )


class GoProject(Project):
    kind: Literal["go"] = "go"
    package: str = Field(description="what is built, such as ./cmd/shop")
    copied: tuple[str, ...]
    vendored: bool = False

    @property
    def exceptions(self) -> dict[str, str]:
        return {"HW004": "the dependencies are in the repository"} if self.vendored else {}


class PythonProject(Project):
    kind: Literal["python"] = "python"
    installer: Literal["uv", "requirements", "pyproject", "none"]
    copied: tuple[str, ...] = ()
    source_first: bool = Field(default=False, description="installing needs the source, so that is copied before")
    installs: bool = Field(default=False, description="the app itself is a package that is installed")
    server: str | None = Field(default=None, description="requirement of a server that the app does not name itself")
    src: bool = Field(default=False, description="its packages are in src/ and not installed")
    scm: bool = Field(default=False, description="its version is read from git, which the image does not have")
    interrupted: bool = Field(default=False, description="ends at SIGINT only")

    @property
    def exceptions(self) -> dict[str, str]:
        return {"HW004": NEEDS_SOURCE} if self.source_first else {}


# --- inspecting a repository -----------------------------------------------------------------------------------


def read(file: Path) -> str:
    """Text of a file. Raises UsageError when it cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.name}: is not UTF-8 text", "save the file as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{file.name}: cannot be read: {error.strerror}", "check its owner and permissions") from error


def walk(tree: Path, *suffixes: str) -> Iterator[Path]:
    """The app's source files, those nearest to the root first, without tests and installed dependencies."""
    level, seen = [tree], 0
    while level:
        deeper: list[Path] = []
        for found in (Path(each) for place in level for each in sorted(os.scandir(place), key=lambda one: one.name)):
            if found.is_symlink() or found.name.startswith(".") or found.name in _SKIPPED:
                continue
            if found.is_dir():
                deeper.append(found)
            elif found.suffix in suffixes and found.stat().st_size <= _MOST_BYTES:
                yield found
                seen += 1
                if seen == _MOST_FILES:
                    return
        level = deeper


def mentions(tree: Path, text: str, *suffixes: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in walk(tree, *suffixes))


def label(text: str) -> str:
    """The name as a DNS label; `app` when no character of it is valid."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub("[^a-z0-9]+", "-", ascii_only).lstrip("-0123456789")
    return name[:63].strip("-") or "app"


# --- start command ---------------------------------------------------------------------------------------------


def entry(run: str) -> list[str]:
    """CMD of an image for a shell command. The app replaces the shell, so that it receives SIGTERM."""
    before, joined, last = run.rpartition("&&") if _outside_quotes(run) else ("", "", run)
    if not joined and not re.search(r"[$`*?~<>|;&()\[\]{}#\\\n]", run):
        words = shlex.split(run)
        return ["env", *words] if _ASSIGNMENTS.match(run) else words
    last = last.strip()
    env = "env " if _ASSIGNMENTS.match(last) else ""
    return ["sh", "-c", f"{before.strip()} && exec {env}{last}" if joined else f"exec {env}{last}"]


def _outside_quotes(run: str) -> bool:
    """Whether the last && of the command is an operator, not quoted text."""
    try:
        return all(shlex.split(part) for part in run.rpartition("&&"))
    except ValueError:
        return False
