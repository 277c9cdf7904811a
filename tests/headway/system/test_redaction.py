from __future__ import annotations

import base64
import json
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
