"""A Go app: go.mod and a main package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from headway.build.scaffold.project import Check, GoProject, label, mentions, read
from headway.domain.errors import NotFound, UsageError

__all__ = ["detect"]

_NEWEST = (1, 27)
# Older Go versions have no image on this Debian release. A newer Go also builds older modules.
_OLDEST = (1, 21)
_DIRECTIVE = re.compile(r"^(go|toolchain)\s+(?:go)?(\d+)\.(\d+)", re.MULTILINE)
_MODULE = re.compile(r"""^module\s+["`]?([^\s"`]+)""", re.MULTILINE)


def detect(tree: Path) -> GoProject:
    """Detect a Go app. Raises NotFound without a main package, UsageError for an invalid go.mod."""
    text = read(tree / "go.mod")
    module = _MODULE.search(text)
    if module is None:
        raise UsageError("go.mod: names no module", "make one: go mod init example.com/shop")
    name = label(re.sub(r"/v\d+$", "", module[1]).rpartition("/")[2])
    programs = list(_programs(tree))
    package = _choose(programs, name)
    notes = [f"of {', '.join(programs)} it is {package} that is built"] if len(programs) > 1 else []
    if re.search(r"=>\s*\.", text) or (tree / "go.work").is_file():
        notes.append("modules beside this one are used: the Dockerfile has to copy them before go mod download")
    if not mentions(tree, "/health", ".go"):
        notes.append("nothing in the source mentions /health, which has to answer 200 when the app can serve")
    return GoProject(
        name=name,
        version=_version(text),
        run=f"/usr/local/bin/{name}",
        checks=(Check(name="vet", run="go vet ./..."), Check(name="test", run="go test ./...")),
        package=package,
        copied=tuple(file for file in ("go.mod", "go.sum") if (tree / file).is_file()),
        vendored=(tree / "vendor").is_dir(),
        notes=tuple(notes),
    )


def _version(text: str) -> str:
    asked = [(int(major), int(minor)) for _, major, minor in _DIRECTIVE.findall(text)]
    major, minor = max([_OLDEST, *asked]) if asked else _NEWEST
    return f"{major}.{minor}"


def _programs(tree: Path) -> Iterator[str]:
    """Main packages at the root and in cmd/, as arguments of `go build`."""
    if _is_main(tree):
        yield "."
    for place in sorted((tree / "cmd").glob("*/")):
        if re.fullmatch(r"\w[\w.-]*", place.name, re.ASCII) and _is_main(place):
            yield f"./cmd/{place.name}"


def _is_main(place: Path) -> bool:
    sources = (file for file in place.glob("*.go") if not file.name.endswith("_test.go") and file.is_file())
    return any(
        re.search(r"^package main\b", text, re.MULTILINE) and "func main()" in text for text in map(read, sources)
    )


def _choose(programs: list[str], name: str) -> str:
    if not programs:
        raise NotFound("go.mod: no main package at the root or in cmd/", f"put the program into cmd/{name}")
    usual = ["./cmd/" + each for each in (name, "server", "api", "web", "app")]
    return next((each for each in [".", *usual] if each in programs), programs[0])
