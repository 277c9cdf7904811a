"""Parsers of the values in headway.yaml, and the functions that write a value back.

`parse_*` reads text. `read_*` and `check_*` are pydantic validators: they take what YAML has made of the text. All of
them raise ValueError, with the expected form and an example. Durations become seconds, memory bytes, cpu cores;
percentages are 0 to 100. Constants are the regular expressions, for the JSON Schema.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Literal, cast

from pydantic import ValidationInfo

from headway.domain import freeze_windows, plan
from headway.domain.revision import SecretRef

__all__ = [
    "CONDITION",
    "CPU",
    "DURATION",
    "LABEL",
    "LABEL_WORDS",
    "LIMIT",
    "MEMORY",
    "PERCENT",
    "check_freeze",
    "check_repo_path",
    "format_condition",
    "format_duration",
    "format_limit",
    "parse_duration",
    "parse_label",
    "parse_memory",
    "parse_percent",
    "parse_secret",
    "read_condition",
    "read_cpu",
    "read_duration",
    "read_limit",
    "read_pause",
    "read_portion",
    "read_secret",
    "read_text",
    "read_text_or_secret",
    "read_timeout",
    "read_weight",
]

_NUMBER = r"[0-9]{1,9}(?:\.[0-9]+)?"
DURATION = rf"(?=[0-9])(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?"
_DURATION_UNITS = (Decimal(3600), Decimal(60), Decimal(1), Decimal("0.001"))
MEMORY = rf"({_NUMBER})(Ki|Mi|Gi|Ti|k|M|G|T)?"
_MEMORY_UNITS = {
    None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
LABEL = "[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
LABEL_WORDS = "a name of lower-case letters, digits and '-' such as shop-api"
HOST = "[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
CPU = rf"({_NUMBER})(m)?"
PERCENT = rf"({_NUMBER})\s*%"
LIMIT = r"(>=|<=)\s*(-?[0-9]+(?:\.[0-9]+)?)"
CONDITION = r"(>=|<=)\s*(\S+(?:\s+%)?)"


def parse_duration(text: str) -> float:
    """Seconds of `10m`, `1h30m`, `150s`, `1.5s` or `500ms`. Raises ValueError for anything else."""
    match = re.fullmatch(DURATION, text)
    if not match:
        raise ValueError("expected a duration such as 10m, 1h30m, 150s or 500ms")
    amounts = zip(match.groups(), _DURATION_UNITS, strict=True)
    return float(sum((Decimal(amount) * unit for amount, unit in amounts if amount), Decimal()))


def format_duration(seconds: float) -> str:
    """The usual way to write it, such as `1h30m`; `parse_duration` gives exactly the same number back.

    `seconds` is from 0 to 1e9.
    """
    total = Decimal(repr(seconds))
    milliseconds = total * 1000
    if 0 < total < 1 and milliseconds == milliseconds.to_integral_value():
        return f"{milliseconds:.0f}ms"
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{amount:.0f}{unit}" for amount, unit in ((hours, "h"), (minutes, "m")) if amount]
    if rest or not parts:
        parts.append(f"{rest.normalize():f}s")
    return "".join(parts)


def parse_percent(value: object) -> float:
    """0 to 100 of `5%`, `0.5 %` or a plain number. Raises ValueError for anything else."""
    match = re.fullmatch(PERCENT, value) if isinstance(value, str) else None
    percent = float(match[1]) if match else _number(value)
    if percent is None or not 0 <= percent <= 100:
        raise ValueError("expected a percentage such as 5%")
    return percent


def parse_secret(name: object) -> SecretRef:
    """The reference behind `!secret NAME/KEY` or `!secret NAME`. Raises ValueError for anything else."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?", name):
        raise ValueError("expected the name of a secret such as !secret shop-prod/database-url")
    return SecretRef(secret=name)


def parse_label(name: str) -> str:
    """The name of an app or environment, a DNS label. Raises ValueError for anything else."""
    if not re.fullmatch(LABEL, name):
        raise ValueError(f"expected {LABEL_WORDS}")
    return name


def _number(value: object) -> float | None:
    """Parse a number of plausible size; a larger one would overflow."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value)


def read_duration(value: object) -> float:
    seconds = parse_duration(value) if isinstance(value, str) else _number(value)
    if seconds is None or not 0 <= seconds < 1e9:
        raise ValueError("expected a duration such as 10m, from 0 to 30 years")
    return seconds


def read_timeout(value: object) -> float:
    seconds = read_duration(value)
    if seconds == 0:
        raise ValueError("expected a duration above zero (nothing waits for ever)")
    return seconds


def read_pause(value: object) -> float | Literal["forever"]:
    if value == "forever":
        return "forever"
    try:
        return read_duration(value)
    except ValueError:
        raise ValueError("expected a duration such as 10m, or forever") from None


def parse_memory(value: object) -> int:
    """Bytes of `256Mi`, `1Gi`, `500M` or a plain number. Raises ValueError for anything else."""
    match = re.fullmatch(MEMORY, value) if isinstance(value, str) else None
    size = float(match[1]) * _MEMORY_UNITS[match[2]] if match else _number(value)
    if size is None or size < 1:
        raise ValueError("expected a size such as 256Mi or 1Gi")
    return int(size)


def read_cpu(value: object) -> float:
    match = re.fullmatch(CPU, value) if isinstance(value, str) else None
    cores = float(match[1]) / (1000 if match[2] else 1) if match else _number(value)
    if cores is None or cores <= 0:
        raise ValueError("expected processor cores such as 500m, 0.5 or 2")
    return cores


def read_weight(value: object) -> int:
    percent = parse_percent(value)
    if percent < 1 or percent != int(percent):
        raise ValueError("expected a whole percentage from 1% to 100%")
    return int(percent)


def read_portion(value: object) -> int | str:
    if isinstance(value, str) and value.endswith("%"):
        parse_percent(value)
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise ValueError("expected a number of instances or a percentage such as 25%")


def read_condition(value: object, info: ValidationInfo) -> plan.Condition:
    if isinstance(value, plan.Condition):
        return value
    metric = cast('Literal["success_rate", "p50", "p99"]', info.field_name)
    higher_is_better = metric == "success_rate"
    example = '">= 99"' if higher_is_better else '"<= 500ms"'
    match = re.fullmatch(CONDITION, value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"expected a condition such as {example}, in quotes")
    op, limit = cast('Literal[">=", "<="]', match[1]), match[2]
    if (op == ">=") is not higher_is_better:
        better = "higher" if higher_is_better else "lower"
        raise ValueError(f"expected a condition such as {example} ({better} is better)")
    if higher_is_better:
        return plan.Condition(metric=metric, op=op, limit=parse_percent(limit if limit.endswith("%") else f"{limit}%"))
    return plan.Condition(metric=metric, op=op, limit=parse_duration(limit))


def read_limit(value: object) -> tuple[Literal[">=", "<="], float]:
    if isinstance(value, tuple):
        return cast('tuple[Literal[">=", "<="], float]', value)
    match = re.fullmatch(LIMIT, value) if isinstance(value, str) else None
    if not match:
        raise ValueError('expected a limit such as ">= 5", in quotes')
    return cast('Literal[">=", "<="]', match[1]), float(match[2])


def format_limit(limit: tuple[str, float]) -> str:
    return f"{limit[0]} {Decimal(repr(limit[1])):f}"


def format_condition(condition: plan.Condition) -> str:
    if condition.metric == "success_rate":
        return f"{condition.op} {Decimal(repr(condition.limit)):f}"
    return f"{condition.op} {format_duration(condition.limit)}"


def read_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("expected text")


def read_text_or_secret(value: object) -> str | SecretRef:
    if isinstance(value, SecretRef):
        return value
    if isinstance(value, dict):
        return parse_secret(value.get("secret") if value.keys() == {"secret"} else None)
    return read_text(value)


def read_secret(value: object) -> SecretRef:
    found = read_text_or_secret(value)
    return found if isinstance(found, SecretRef) else parse_secret(None)


def read_network(value: object) -> str | tuple[str, ...]:
    if value in ("open", "none"):
        return str(value)
    if not isinstance(value, list | tuple) or not all(
        isinstance(host, str) and re.fullmatch(HOST, host) for host in value
    ):
        raise ValueError("expected open, none or a list of host names such as [pypi.org]")
    return tuple(value)


def check_freeze(value: str) -> str:
    return freeze_windows.parse(value).text


def check_repo_path(value: str) -> str:
    path = PurePosixPath(value)
    if not value.strip() or "\0" in value or path.is_absolute() or ".." in path.parts:
        raise ValueError("expected a path inside the repository")
    return value
