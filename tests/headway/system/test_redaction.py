from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.system.redaction import MASK, Masker

SECRET = 'p&ss "wörd"/\\+1'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps({"password": SECRET}),
        json.dumps({"password": SECRET}, ensure_ascii=False),
        f"postgres://u:{quote(SECRET, safe='')}@db",
        f"https://db/{quote(SECRET)}",
        f"a=1&p={quote_plus(SECRET)}",
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b32encode(SECRET.encode()).decode(),
        base64.b64encode(base64.b64encode(SECRET.encode())).decode(),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        shlex.quote(SECRET),
    ],
)
def test_every_form_is_masked(form: str) -> None:
    masked = Masker([SECRET])(form)
    assert MASK in masked
    assert "ss" not in masked.replace("pass", "")


@given(st.binary(max_size=7), st.text("abcXYZ0189+/", min_size=8), st.binary(max_size=7))
def test_base64_of_something_longer_keeps_none_of_the_secret(before: bytes, secret: str, after: bytes) -> None:
    encoded = base64.b64encode(before + secret.encode() + after).decode()
    masked = Masker([secret])(encoded)
    assert MASK in masked
    # What is left around the mask is what was there around the secret: at most its first and last byte's bits.
    assert len(masked.replace(MASK, "")) <= (len(before) + len(after)) * 4 / 3 + 8


def test_lines_of_a_secret_are_masked_one_by_one() -> None:
    masker = Masker(["-----BEGIN KEY-----\n  c2VjcmV0\nab\n-----END KEY-----\n"])
    assert masker("c2VjcmV0") == MASK
    assert masker("ab") == "ab"


@pytest.mark.parametrize("short", ["", "a", "abc", "ab\ncd"[:2]])
def test_short_values_are_not_masked(short: str) -> None:
    assert Masker([short])("abc a ab") == "abc a ab"


def test_the_longest_secret_wins() -> None:
    assert Masker(["hunter2", "hunter2-and-more"])("x hunter2-and-more y") == f"x {MASK} y"


@given(st.text("ab", max_size=60), st.integers(0, 60))
def test_a_cut_never_goes_through_a_secret(text: str, at: int) -> None:
    masker = Masker(["aabba"])
    cut = masker.cut(text, at)
    assert masker(text[:cut]) + masker(text[cut:]) == masker(text) or cut != at


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "hex": lambda text: text.hex().encode(),
    "base32": base64.b32encode,
    "base64": base64.b64encode,
    "urlsafe base64": base64.urlsafe_b64encode,
    "base64 of base64": lambda text: base64.b64encode(base64.b64encode(text)),
}


@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.binary(max_size=9),
    st.text("abcXYZ0189+/'$ ", min_size=12, max_size=60).filter(lambda text: len(text.strip()) > 11),
    st.binary(max_size=9),
)
def test_nothing_of_a_secret_is_left_of_what_it_was_encoded_with(
    name: str, before: bytes, secret: str, after: bytes
) -> None:
    encode = ENCODINGS[name]
    encoded = encode(before + secret.encode() + after).decode()
    masked = Masker([secret])(encoded)
    assert MASK in masked, (encoded, masked)
    # Around the mask: what was there around the secret, and bits of the secret's first and last bytes.
    around = len(encode(before).decode()) + len(encode(after).decode()) + 24
    assert len(masked.replace(MASK, "")) <= around, (encoded, masked)


@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.text("abcdefXYZ0189", min_size=40, max_size=200),
    st.integers(20, 76),
)
def test_a_secret_that_is_broken_into_lines_is_masked(name: str, secret: str, width: int) -> None:
    """As `base64` of the shell prints it, and YAML."""
    encoded = ENCODINGS[name](secret.encode()).decode()
    lines = [encoded[start : start + width] for start in range(0, len(encoded), width)]
    masker = Masker([secret])
    for line in (masker(one) for one in lines):  # each line by itself, as a log gets them
        kept = line.replace(MASK, "")
        assert len(kept) < 16, (lines, line)


def test_other_lines_are_not_changed() -> None:
    masker = Masker(["hunter2-and-much-more-than-that"])
    for line in ("much more than that", "hunter", "x" * 500, "", "  indented", "a\nb"):
        assert masker(line) == line
