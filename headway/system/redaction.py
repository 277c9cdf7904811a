"""Redaction: output of commands and servers goes through a `Masker` before it is logged or stored."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

__all__ = ["LONGEST_QUOTE", "MASK", "Masker"]

MASK = "********"
SHORTEST = 4
LONGEST_QUOTE = 300  # characters


class Masker:
    """Replaces secrets in text by `********`, in the forms in which programs print them.

    Those are the value itself, JSON-escaped, URL-quoted and base64 (also as a part of something longer that was
    encoded as one, such as `user:password`). A secret of several lines is masked line by line. Values and lines
    shorter than 4 characters are not masked: logs would become unreadable.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for part in _parts(secret) for form in _forms(part)}
        longest_first = sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.longest = len(longest_first[0]) if longest_first else 0

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MASK, text)

    def quote(self, text: str, longest: int = LONGEST_QUOTE) -> str:
        """Foreign text for use in an error or a log: masked, on one line, printable, cut to `longest`."""
        masked = self(text)
        line = " ".join("".join(one if one.isprintable() else " " for one in masked).split())
        return line if len(line) <= longest else line[: longest - 1] + "…"

    def cut(self, text: str, at: int) -> int:
        """Where to cut a text in two near `at` without cutting a secret, which would hide it from both halves.

        The text has to go on for at least `longest` characters after `at`, or end there.
        """
        across = (match for match in self._pattern.finditer(text) if match.start() < at < match.end())
        return next((match.end() for match in across), at)


def _parts(secret: str) -> set[str]:
    lines = {line.strip() for line in secret.splitlines()}
    return {part for part in {secret, secret.strip()} | lines if len(part) >= SHORTEST}


def _forms(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value)
    yield quote(value, safe="")
    yield quote_plus(value)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value.encode()).decode()
        # Three bytes make four characters: what is encoded in front decides on which of three ways a value is spelled.
        for before in range(3):
            encoded = encode(b"\0" * before + value.encode()).decode().rstrip("=")
            whole = (before + len(value.encode())) % 3 == 0
            yield encoded[(0, 2, 3)[before] : None if whole else -1]
