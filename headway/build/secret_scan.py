"""Find secrets in the files of a repository, with detect-secrets. Their values are not returned.

What has the form of a secret and is none, such as a placeholder, is left out: see `harmless_secrets`.

A baseline in the repository (`detect-secrets scan > .secrets.baseline`) sets detectors and exceptions. Without one,
only secrets with a known format are found, because entropy detectors report every checksum.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import pathspec

from headway.build.harmless_secrets import is_harmless
from headway.domain.base import Frozen
from headway.domain.errors import SourceError, UsageError
from headway.scm import git

if TYPE_CHECKING:
    from detect_secrets.core.potential_secret import PotentialSecret

__all__ = ["BASELINE", "FoundSecret", "find_secrets"]

log = logging.getLogger(__name__)

BASELINE = ".secrets.baseline"
LARGEST = 1024 * 1024  # bytes; larger files are skipped
GUESSING = ("Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector", "KeywordDetector")
CONTINUED = re.compile(r"\\\r?\n\s*")  # end of a line in a YAML string that goes on in the next one
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
    path = tree / file
    if file == BASELINE or path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
        return
    content = path.read_bytes()
    text = _text(content)
    if text is None or (forms is not None and not _has_form(text, forms)):
        return
    allowed = {one["hashed_secret"] for one in (known or {"results": {}})["results"].get(file, ())}
    for secret in _detected(path, content, text):
        if secret.secret_hash not in allowed and not is_harmless(secret.type, secret.secret_value or "", file, text):
            yield FoundSecret(file=_printable(file), line=secret.line_number, kind=secret.type)


def _text(content: bytes) -> str | None:
    """The text of a file in UTF-8, or else in Latin-1, in which every byte is a character; None for a binary file."""
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _has_form(text: str, forms: list[re.Pattern[str]]) -> bool:
    joined = CONTINUED.sub("", text)
    return any(form.search(text) or (joined != text and form.search(joined)) for form in forms)


def _detected(path: Path, content: bytes, text: str) -> list[PotentialSecret]:
    """What the detectors find, in the file itself, or in a copy when detect-secrets cannot read that."""
    from detect_secrets.core.scan import scan_file

    if content == text.encode() and path.name.isprintable():
        try:
            return list(scan_file(str(path)))
        except Exception:  # noqa: BLE001  # a parser of detect-secrets fails on a file of another format: scan its lines
            log.debug("%s: scanned by lines", path.name)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "copy.txt"
        copy.write_text(text)
        return list(scan_file(str(copy)))


def _files(tree: Path) -> list[str]:
    """Tracked files. Bytes of a name that are not UTF-8 are surrogates, as everywhere in Python."""
    asked = ["git", "-C", str(tree), "ls-files", "-z", "--cached"]
    done = subprocess.run(asked, capture_output=True, timeout=60, check=False, env=git.environment())
    if done.returncode:
        raise SourceError(f"{tree}: {done.stderr.decode(errors='replace').strip()}", "is it a git repository?")
    return [os.fsdecode(file) for file in done.stdout.split(b"\0") if file]


def _printable(name: str) -> str:
    """A file name with its bytes that are not UTF-8 as escapes, such as `bad\\xff.bin`."""
    return os.fsencode(name).decode(errors="backslashreplace")
