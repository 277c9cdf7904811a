"""Find secrets in the files of a repository, with detect-secrets. Their values are not returned.

A baseline in the repository (`detect-secrets scan > .secrets.baseline`) sets detectors and exceptions. Without one,
only secrets with a known format are found, because entropy detectors report every checksum.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import pathspec

from headway.domain.base import Frozen
from headway.domain.errors import SourceError, UsageError

__all__ = ["BASELINE", "FoundSecret", "find_secrets"]

BASELINE = ".secrets.baseline"
LARGEST = 1024 * 1024  # bytes; larger files are skipped
GUESSING = ("Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector", "KeywordDetector")
REWRITTEN = (".yaml", ".yml")  # detect-secrets scans their parsed values
_CONFIGURATION = Lock()  # detect-secrets has one global configuration


class FoundSecret(Frozen):
    """A secret in a tracked file of the repository."""

    file: str
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}"


def find_secrets(tree: Path, exceptions: Iterable[str] = ()) -> list[FoundSecret]:
    """Secrets in tracked files, sorted.

    Secrets in the baseline are skipped, and so are files that match `exceptions`, patterns as in a .gitignore.

    Raises UsageError when the baseline cannot be read, SourceError when git does not answer.
    """
    known = _baseline(tree)
    excluded = pathspec.GitIgnoreSpec.from_lines(exceptions)
    files = [file for file in _files(tree) if not excluded.match_file(file)]
    with _CONFIGURATION, _configured(known):
        forms = _forms()
        return sorted(
            {found for file in files for found in _scan(tree, file, known, forms)},
            key=lambda one: (one.file, one.line),
        )


def _baseline(tree: Path) -> dict[str, Any] | None:
    file = tree / BASELINE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
        for listed in content["results"].values():
            for one in listed:
                one["hashed_secret"]
        content["plugins_used"], content["filters_used"]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UsageError(
            f"{BASELINE}: is not what detect-secrets writes: {type(error).__name__}",
            f"write it again: detect-secrets scan > {BASELINE}",
        ) from error
    return dict(content)


@contextmanager
def _configured(known: dict[str, Any] | None) -> Iterator[None]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.settings import default_settings, transient_settings

    if known is None:
        with default_settings() as settings:
            known_plugins: dict[str, type] = get_mapping_from_secret_type_to_class()
            plugins = {kind.__name__ for kind in known_plugins.values()}
            settings.disable_plugins(*(plugins & set(GUESSING)))
            yield
        return
    with transient_settings({"plugins_used": known["plugins_used"], "filters_used": known["filters_used"]}):
        yield


def _forms() -> list[re.Pattern[str]] | None:
    """Patterns of the configured detectors; None when one of them does not only use patterns."""
    from detect_secrets.plugins.base import RegexBasedDetector
    from detect_secrets.settings import get_plugins

    plugins = get_plugins()
    if not all(isinstance(plugin, RegexBasedDetector) for plugin in plugins):
        return None
    return [re.compile(form.pattern, form.flags | re.MULTILINE) for plugin in plugins for form in plugin.denylist]


def _scan(
    tree: Path, file: str, known: dict[str, Any] | None, forms: list[re.Pattern[str]] | None
) -> Iterator[FoundSecret]:
    """Run the detectors only on files in which a pattern matches: on all, they need a minute for ten thousand files."""
    from detect_secrets.core.scan import scan_file

    path = tree / file
    if file == BASELINE or path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
        return
    if forms is not None and path.suffix not in REWRITTEN:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            return  # detect-secrets does not read binary files either
        if not any(form.search(text) for form in forms):
            return
    allowed = {one["hashed_secret"] for one in (known or {"results": {}})["results"].get(file, ())}
    for secret in scan_file(str(path)):
        if secret.secret_hash not in allowed:
            yield FoundSecret(file=file, line=secret.line_number, kind=secret.type)


def _files(tree: Path) -> list[str]:
    asked = ["git", "-C", str(tree), "ls-files", "-z", "--cached"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise SourceError(f"{tree}: {done.stderr.strip()}", "is it a git repository?")
    return [file for file in done.stdout.split("\0") if file]
