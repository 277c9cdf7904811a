"""Check the build context: which relevant paths the .dockerignore excludes."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from docker.utils.build import Pattern, PatternMatcher

from headway.build.dockerfiles.findings import Finding, finding
from headway.build.dockerfiles.parser import Dockerfile
from headway.domain.errors import UsageError

__all__ = ["check", "files_of", "is_secret_file"]

_SECRET_FILES = (
    *(".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"),
    *(".npmrc", ".netrc", ".pypirc", ".git-credentials"),
)
_EXAMPLES = ("*.example", "*.sample", "*.template", "*.dist", "*.defaults", "example.env", "sample.env")
_TESTS = ("tests", "test", "__tests__", "spec")
_NOT_OURS = {".git", ".hg", ".mypy_cache", ".tox", ".venv", "__pycache__", "node_modules", "vendor", "venv"}
# Checked even when not committed: a developer's working tree may have them.
_SECRETS = (".env", ".env.local", ".env.production", "server.pem", "id_rsa")


def is_secret_file(name: str) -> bool:
    """Whether the name is that of a secret file: `.env`, `.env*`, `certs/*.pem`, but not `.env.example`."""
    base = posixpath.basename(name.rstrip("/"))
    if any(fnmatchcase(base, example) for example in _EXAMPLES):
        return False
    return any(fnmatchcase(each, pattern) for each in (base, base.rstrip("*?")) for pattern in _SECRET_FILES)


def files_of(tree: Path) -> list[str]:
    """Files of the repository, as relative paths, without installed dependencies."""
    found = []
    for folder, folders, names in os.walk(tree):
        folders[:] = sorted(set(folders) - _NOT_OURS)
        found += [posixpath.normpath(Path(folder, name).relative_to(tree).as_posix()) for name in sorted(names)]
    return found


def check(tree: Path, dockerfile: Dockerfile, files: list[str]) -> list[Finding]:
    """Check that a .dockerignore excludes what an image does not need from what the Dockerfile copies.

    BuildKit sends no other files to the build: a Dockerfile that copies two files needs no .dockerignore.
    """
    own, sources = f"{dockerfile.file}.dockerignore", list(_sources(dockerfile))
    name = own if (tree / own).is_file() else ".dockerignore"

    def is_copied(path: str) -> bool:
        return any(_covers(source, path) for source in sources)

    if not (tree / name).is_file():
        if not any(_let_in(name, lambda path: not is_copied(path), files)):
            return []
        fix = "write one that begins with: .git, **/node_modules, **/.env*, **/*.pem, **/id_rsa, tests"
        return [finding("HW005", ".dockerignore", None, "there is no .dockerignore", fix)]
    lines = (tree / name).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    ignored = _ignored(name, patterns)
    return list(_let_in(name, lambda path: ignored(path) or not is_copied(path), files))


def _sources(dockerfile: Dockerfile) -> Iterator[str]:
    """Paths and patterns of the build context that are copied or mounted, without a slash at either end."""
    for stage in dockerfile.stages:
        for step in stage.own:
            flags = step.instruction.flags
            if step.instruction.name in ("COPY", "ADD") and not step.instruction.flag("from"):
                yield from (posixpath.normpath(word).strip("/") for word in step.words[:-1])
            if any("type=bind" in flag and "from=" not in flag for flag in flags):
                yield "."


def _covers(source: str, path: str) -> bool:
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return source in (".", "") or any(fnmatchcase(one, source) for one in above)


def _let_in(name: str, ignored: Callable[[str], bool], files: list[str]) -> Iterator[Finding]:
    for rule, kind, pattern, paths in (
        ("HW006", "the history", ".git", [".git/HEAD"]),
        ("HW006", "installed packages", "**/node_modules", _node_modules(files)),
        ("HW006", "tests", "", _tests(files)),
        ("HW007", "environment files", "**/.env*", [*_SECRETS[:3], *_real(files, ".env", ".env.*", "*.env")]),
        ("HW007", "keys", "**/*.pem", [_SECRETS[3], *_real(files, "*.pem")]),
        ("HW007", "keys", "**/id_rsa", [_SECRETS[4], *_real(files, "id_rsa")]),
    ):
        seen = next((path for path in paths if not ignored(path)), None)
        if seen:
            keep_out = pattern or _test_pattern(seen)
            yield finding(rule, name, None, f"lets {kind} into the build: {seen}", f"add a line: {keep_out}")


def _node_modules(files: Iterable[str]) -> list[str]:
    roots = [posixpath.dirname(path) for path in files if posixpath.basename(path) == "package.json"]
    return [posixpath.join(root, "node_modules/left-pad/index.js") for root in roots]


def _tests(files: Iterable[str]) -> list[str]:
    return [path for path in files if path.endswith("_test.go") or set(_TESTS) & {*path.split("/")[:-1]}]


def _test_pattern(path: str) -> str:
    folder = next((part for part in path.split("/")[:-1] if part in _TESTS), None)
    return f"**/{folder}" if folder else "**/*_test.go"


def _real(files: Iterable[str], *patterns: str) -> list[str]:
    named = (path for path in files if any(fnmatchcase(posixpath.basename(path), pattern) for pattern in patterns))
    return [path for path in named if is_secret_file(path)]


def _ignored(name: str, patterns: list[str]) -> Callable[[str], bool]:
    known = PatternMatcher(patterns).patterns
    if broken := next((each.cleaned_pattern for each in known if not _works(each)), None):
        raise UsageError(f"{name}: not a pattern: {broken}", "write it like `*.log`, `**/tests` or `!keep`")

    def ignored(path: str) -> bool:
        # As in BuildKit, the last pattern that matches the path or any parent directory decides. `matches` checks
        # only one parent, so `**/node_modules` would not exclude files deep inside.
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        fitting = [each for each in known if any(each.match(part) for part in above)]
        return bool(fitting) and not fitting[-1].exclusion

    return ignored


def _works(pattern: Pattern) -> bool:
    try:
        pattern.match("x")
    except re.error:
        return False
    return True
