"""Types of environment variables: how a value is parsed and compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

from pydantic import EmailStr, TypeAdapter

from headway.config.value_parsers import parse_duration, parse_memory

__all__ = ["VALUES", "Value", "ValueType"]

ValueType: TypeAlias = Literal[
    "string", "integer", "number", "boolean", "url", "email", "duration", "bytes", "json", "enum", "regex"
]
_EMAIL: TypeAdapter[str] = TypeAdapter(EmailStr)


class Value(NamedTuple):
    """One type: its name in messages, and a parser that raises ValueError for an invalid value."""

    expected: str
    read: Callable[[str], object]
    size: Callable[[str], Decimal] | None = None
    """The number that `min` and `max` are compared with; None for types without a size."""


def _matching(pattern: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError("does not match")
        return value

    return read


def _seconds(value: str) -> Decimal:
    return Decimal(value if re.fullmatch(_PLAIN, value) else repr(parse_duration(value)))


def _bytes(value: str) -> Decimal:
    return Decimal(parse_memory(value))


_PLAIN = r"\d+(?:\.\d+)?"

VALUES: dict[ValueType, Value] = {
    "string": Value("text", str),
    "enum": Value("text", str),
    "regex": Value("text", str),
    "integer": Value("an integer", _matching(r"[+-]?\d+"), Decimal),
    "number": Value("a number", _matching(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"), Decimal),
    "boolean": Value("true or false", _matching("true|false")),
    "url": Value("a URL", _matching(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")),
    "email": Value("a mail address", _EMAIL.validate_python),
    "duration": Value("a duration such as 10m", _seconds, _seconds),
    "bytes": Value("a size such as 256Mi", _bytes, _bytes),
    "json": Value("JSON", json.loads),
}
