"""What is wrong with a headway.yaml, in words a person can act on, and under which keys."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from headway.domain.revision import SecretRef

__all__ = ["Fault", "Keys", "fault", "nearest", "raise_faults", "shorten"]

Keys: TypeAlias = tuple[str | int, ...]

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "greater_than_equal": "at least {ge}",
    "int_type": "an integer",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}


class Fault(NamedTuple):
    keys: Keys
    message: str


def raise_faults(faults: Iterable[Fault]) -> None:
    """In a validator: report each fault under its own keys, beside whatever pydantic finds elsewhere.

    Raises pydantic.ValidationError unless there are none.
    """
    details = [
        InitErrorDetails(type=PydanticCustomError("fault", "{message}", {"message": message}), loc=keys, input=None)
        for keys, message in faults
    ]
    if details:
        raise ValidationError.from_exception_data("headway.yaml", details)


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or what there is when nothing is near."""
    choices = sorted(known)
    if near := difflib.get_close_matches(name, choices, n=1):
        return f" (did you mean {near[0]!r}?)"
    return f" (there is {', '.join(choices)})" if choices else ""


def shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def fault(details: ErrorDetails, known_keys: Callable[[Keys], set[str]]) -> Fault:
    """Text of an error of pydantic; `known_keys` has the allowed keys of some sections."""
    keys = tuple(key for key in details["loc"] if key != "[key]")
    return Fault(keys, _in_words(keys, details, known_keys))


def _in_words(keys: Keys, details: ErrorDetails, known_keys: Callable[[Keys], set[str]]) -> str:
    kind, value = details["type"], details["input"]
    if isinstance(value, SecretRef):
        return "a secret cannot be used here"
    if kind == "missing":
        return "is missing"
    if kind == "too_short":
        return "must not be empty"
    if kind == "extra_forbidden":
        key = str(keys[-1])
        return f"unknown key {shorten(key)!r}{nearest(key, known_keys(keys[:-1]))}"
    message = _message(details)
    return f"{message}{_got(keys, value)}" if kind != "fault" and message.startswith("expected") else message


def _message(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind not in _EXPECTED:
        return details["msg"]
    message = f"expected {_EXPECTED[kind].format(**context)}"
    if kind == "literal_error" and isinstance(details["input"], str):
        near = difflib.get_close_matches(details["input"], re.findall("'([^']+)'", context["expected"]), n=1)
        return message + (f" (did you mean {near[0]!r}?)" if near else "")
    return message


def _got(keys: Keys, value: object) -> str:
    if value is None:
        return ", got nothing"
    if isinstance(value, dict | list | tuple):
        return ", got a mapping" if isinstance(value, dict) else ", got a list"
    if isinstance(value, bool):
        return f", got {str(value).lower()}"
    if not isinstance(value, str):
        return f", got {shorten(str(value))}"
    # In an env section it may be a secret in the wrong place: not to be repeated in a log.
    return "" if {"env", "secrets"} & set(keys) else f", got {shorten(value)!r}"
