"""Redaction: output of commands and servers goes through a `Masker` before it is logged or stored."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, quote_plus

__all__ = ["LONGEST_QUOTE", "MASK", "Masker"]

MASK = "********"
SHORTEST = 4
PIECE = 8  # characters of a form that was broken into lines
LONGEST_QUOTE = 300  # characters


class Masker:
    """Replaces secrets in text by `********`, in the forms in which programs print them.

    Those are the value itself, JSON-escaped, URL-quoted, shell-quoted, in hex, base32 and base64, in the last two also
    as a part of something longer that was encoded as one, such as `user:password`, and base64 of base64. A secret of
    several lines is masked line by line. Of a form that a program broke into lines, pieces of 8 characters and more
    are masked. Values and lines shorter than 4 characters are not masked: logs would become unreadable.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for part in _parts(secret) for form in _forms(part)}
        self._forms = sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)
        self._broken = [form for form in self._forms if len(form) > PIECE]
        self.longest = len(self._forms[0]) if self._forms else 0

    def __call__(self, text: str) -> str:
        pattern = self._pattern(text)
        masked = pattern.sub(MASK, text) if pattern else text
        return "\n".join(map(self._without_pieces, masked.split("\n"))) if self._broken else masked

    def quote(self, text: str, longest: int = LONGEST_QUOTE) -> str:
        """Foreign text for use in an error or a log: masked, on one line, printable, cut to `longest`."""
        masked = self(text)
        line = " ".join("".join(one if one.isprintable() else " " for one in masked).split())
        return line if len(line) <= longest else line[: longest - 1] + "…"

    def cut(self, text: str, at: int) -> int:
        """Where to cut a text in two near `at` without cutting a secret, which would hide it from both halves.

        The text has to go on for at least `longest` characters after `at`, or end there.
        """
        pattern = self._pattern(text)
        matches = pattern.finditer(text) if pattern else ()
        return next((match.end() for match in matches if match.start() < at < match.end()), at)

    def _pattern(self, text: str) -> re.Pattern[str] | None:
        """The forms that are in the text, the longest first. Nearly every text has none, which `in` finds fast."""
        found = [form for form in self._forms if form in text]
        return re.compile("|".join(map(re.escape, found))) if found else None

    def _without_pieces(self, line: str) -> str:
        """Mask a line that is the middle of a form, and an end or beginning of one at the edges of the line."""
        bare = line.strip()
        for form in self._broken:
            if PIECE <= len(bare) < len(form) and bare in form:
                return line.replace(bare, MASK)
            start = line.rfind(form[:PIECE], max(0, len(line) - len(form)))
            if start >= 0 and form.startswith(line[start:]):
                line = line[:start] + MASK
            end = line.find(form[-PIECE:], 0, len(form)) + PIECE
            if end >= PIECE and form.endswith(line[:end].lstrip()):
                line = MASK + line[end:]
        return line


def _parts(secret: str) -> set[str]:
    lines = {line.strip() for line in secret.splitlines()}
    return {part for part in {secret, secret.strip()} | lines if len(part) >= SHORTEST}


def _forms(value: str) -> Iterator[str]:
    raw = value.encode(errors="surrogatepass")
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(raw)
    yield quote(raw, safe="")
    yield quote_plus(raw)
    yield shlex.quote(value)
    yield shlex.quote(value)[1:-1]
    yield raw.hex()
    yield raw.hex().upper()
    yield from _aligned(raw, base64.b32encode, group=5, characters=8)
    yield from _aligned(raw, base64.urlsafe_b64encode, group=3, characters=4)
    for encoded in _aligned(raw, base64.b64encode, group=3, characters=4):
        yield encoded
        yield from _aligned(encoded.encode(), base64.b64encode, group=3, characters=4)


def _aligned(value: bytes, encode: Callable[[bytes], bytes], group: int, characters: int) -> Iterator[str]:
    """How a value is spelled, alone and inside something longer.

    A group of bytes makes a group of characters: how many bytes are in front decides on which of `group` ways the value
    is spelled. Characters that have bits of a neighbour are left out.
    """
    yield encode(value).decode()
    for before in range(group):
        encoded = encode(b"\0" * before + value).decode().rstrip("=")
        first = -(-before * characters // group)  # the first character without bits of what is in front
        whole = (before + len(value)) % group == 0
        yield encoded[first : None if whole else -1]
