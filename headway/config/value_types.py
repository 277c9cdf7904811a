"""How values are written in headway.yaml: durations, sizes, percentages, conditions, text and secrets.

Each named type reads what a person writes, says in plain words what it expected instead, and describes itself in the
JSON Schema. Durations become seconds, memory bytes, cpu cores; percentages are 0 to 100.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from typing_extensions import TypeAliasType

from headway.domain import freeze_windows, plan
from headway.domain.revision import SecretRef

__all__ = [
    "Branch",
    "CheckName",
    "Command",
    "Condition",
    "Cpu",
    "Directory",
    "Duration",
    "Freeze",
    "HeaderName",
    "Image",
    "Label",
    "Limit",
    "Memory",
    "PauseLength",
    "Percent",
    "Portion",
    "RepoPath",
    "RuleName",
    "Secret",
    "SourceName",
    "TargetName",
    "Text",
    "TextOrSecret",
    "Timeout",
    "UrlPath",
    "VariableName",
    "Weight",
    "format_duration",
    "parse_duration",
    "parse_label",
    "parse_memory",
    "parse_percent",
    "parse_secret",
]

_NUMBER = r"[0-9]{1,9}(?:\.[0-9]+)?"
_DURATION = rf"(?=[0-9])(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?"
_DURATION_UNITS = (Decimal(3600), Decimal(60), Decimal(1), Decimal("0.001"))
_MEMORY = rf"({_NUMBER})(Ki|Mi|Gi|Ti|k|M|G|T)?"
_MEMORY_UNITS = {
    None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_LABEL = "[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LABEL_WORDS = "a name of lower-case letters, digits and '-' such as shop-api"
_CPU = rf"({_NUMBER})(m)?"
_PERCENT = rf"({_NUMBER})\s*%"
_LIMIT = r"(>=|<=)\s*(-?[0-9]+(?:\.[0-9]+)?)"
_CONDITION = r"(>=|<=)\s*(\S+(?:\s+%)?)"


# --- reading and writing ---------------------------------------------------------------------------------------


def parse_duration(text: str) -> float:
    """Seconds of `10m`, `1h30m`, `150s`, `1.5s` or `500ms`. Raises ValueError for anything else."""
    match = re.fullmatch(_DURATION, text)
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
    match = re.fullmatch(_PERCENT, value) if isinstance(value, str) else None
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
    if not re.fullmatch(_LABEL, name):
        raise ValueError(f"expected {_LABEL_WORDS}")
    return name


def _number(value: object) -> float | None:
    """Of a number within reason; what is larger would overflow and means nothing here anyway."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value)


def _duration(value: object) -> float:
    seconds = parse_duration(value) if isinstance(value, str) else _number(value)
    if seconds is None or not 0 <= seconds < 1e9:
        raise ValueError("expected a duration such as 10m, from 0 to 30 years")
    return seconds


def _timeout(value: object) -> float:
    seconds = _duration(value)
    if seconds == 0:
        raise ValueError("expected a duration above zero (nothing waits for ever)")
    return seconds


def _pause(value: object) -> float | Literal["forever"]:
    if value == "forever":
        return "forever"
    try:
        return _duration(value)
    except ValueError:
        raise ValueError("expected a duration such as 10m, or forever") from None


def parse_memory(value: object) -> int:
    """Bytes of `256Mi`, `1Gi`, `500M` or a plain number. Raises ValueError for anything else."""
    match = re.fullmatch(_MEMORY, value) if isinstance(value, str) else None
    size = float(match[1]) * _MEMORY_UNITS[match[2]] if match else _number(value)
    if size is None or size < 1:
        raise ValueError("expected a size such as 256Mi or 1Gi")
    return int(size)


def _cpu(value: object) -> float:
    match = re.fullmatch(_CPU, value) if isinstance(value, str) else None
    cores = float(match[1]) / (1000 if match[2] else 1) if match else _number(value)
    if cores is None or cores <= 0:
        raise ValueError("expected processor cores such as 500m, 0.5 or 2")
    return cores


def _weight(value: object) -> int:
    percent = parse_percent(value)
    if percent < 1 or percent != int(percent):
        raise ValueError("expected a whole percentage from 1% to 100%")
    return int(percent)


def _portion(value: object) -> int | str:
    if isinstance(value, str) and value.endswith("%"):
        parse_percent(value)
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise ValueError("expected a number of instances or a percentage such as 25%")


def _condition(value: object, info: ValidationInfo) -> plan.Condition:
    if isinstance(value, plan.Condition):
        return value
    metric = cast('Literal["success_rate", "p50", "p99"]', info.field_name)
    higher_is_better = metric == "success_rate"
    example = '">= 99"' if higher_is_better else '"<= 500ms"'
    match = re.fullmatch(_CONDITION, value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"expected a condition such as {example}, in quotes")
    op, limit = cast('Literal[">=", "<="]', match[1]), match[2]
    if (op == ">=") is not higher_is_better:
        better = "higher" if higher_is_better else "lower"
        raise ValueError(f"expected a condition such as {example} ({better} is better)")
    if higher_is_better:
        return plan.Condition(metric=metric, op=op, limit=parse_percent(limit if limit.endswith("%") else f"{limit}%"))
    return plan.Condition(metric=metric, op=op, limit=parse_duration(limit))


def _limit(value: object) -> tuple[Literal[">=", "<="], float]:
    if isinstance(value, tuple):
        return cast('tuple[Literal[">=", "<="], float]', value)
    match = re.fullmatch(_LIMIT, value) if isinstance(value, str) else None
    if not match:
        raise ValueError('expected a limit such as ">= 5", in quotes')
    return cast('Literal[">=", "<="]', match[1]), float(match[2])


def _write_limit(limit: tuple[str, float]) -> str:
    return f"{limit[0]} {Decimal(repr(limit[1])):f}"


def _write_condition(condition: plan.Condition) -> str:
    if condition.metric == "success_rate":
        return f"{condition.op} {Decimal(repr(condition.limit)):f}"
    return f"{condition.op} {format_duration(condition.limit)}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("expected text")


def _text_or_secret(value: object) -> str | SecretRef:
    if isinstance(value, SecretRef):
        return value
    if isinstance(value, dict):
        return parse_secret(value.get("secret") if value.keys() == {"secret"} else None)
    return _text(value)


def _secret(value: object) -> SecretRef:
    found = _text_or_secret(value)
    return found if isinstance(found, SecretRef) else parse_secret(None)


def _freeze(value: str) -> str:
    return freeze_windows.parse(value).text


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if not value.strip() or "\0" in value or path.is_absolute() or ".." in path.parts:
        raise ValueError("expected a path inside the repository")
    return value


# --- named types -----------------------------------------------------------------------------------------------

_NUMBER_FORM: JsonSchemaValue = {"type": "number", "minimum": 0}
_TEXT_FORM: JsonSchemaValue = {"type": ["string", "number", "boolean"]}
_SECRET_FORM: JsonSchemaValue = {
    "type": "object",
    "properties": {"secret": {"type": "string"}},
    "required": ["secret"],
    "additionalProperties": False,
}


def _pattern(pattern: str) -> JsonSchemaValue:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _described(description: str, *forms: JsonSchemaValue) -> WithJsonSchema:
    form = forms[0] if len(forms) == 1 else {"anyOf": list(forms)}
    return WithJsonSchema({**form, "description": description})


def _read(reader: Callable[..., Any], description: str, *forms: JsonSchemaValue) -> tuple[Any, ...]:
    return BeforeValidator(reader), _described(description, *forms)


def _matching(pattern: str, expected: str) -> tuple[Any, ...]:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check), WithJsonSchema(_pattern(pattern))


# Aliases with a name: the schema says each form once, and the reference page can link to it.
Duration = TypeAliasType(
    "Duration",
    Annotated[
        float,
        *_read(
            _duration,
            "A time: `500ms`, `150s`, `10m`, `1h30m`, or a plain number of seconds.",
            _NUMBER_FORM,
            _pattern(_DURATION),
        ),
    ],
)
Timeout = TypeAliasType(
    "Timeout",
    Annotated[
        float,
        *_read(
            _timeout,
            "A time above zero, written like a Duration. Nothing waits for ever.",
            {"type": "number", "exclusiveMinimum": 0},
            _pattern(_DURATION),
        ),
    ],
)
PauseLength = TypeAliasType(
    "PauseLength",
    Annotated[
        float | Literal["forever"],
        *_read(_pause, "A duration such as `10m`, or `forever`.", _NUMBER_FORM, _pattern(f"forever|{_DURATION}")),
    ],
)
Memory = TypeAliasType(
    "Memory",
    Annotated[
        int,
        *_read(
            parse_memory,
            "A size: `256Mi`, `1Gi`, `500M`, or a plain number of bytes.",
            {"type": "integer", "minimum": 1},
            _pattern(_MEMORY),
        ),
    ],
)
Cpu = TypeAliasType(
    "Cpu",
    Annotated[
        float,
        *_read(
            _cpu,
            "Processor cores: `500m` (half a core), `0.5` or `2`.",
            {"type": "number", "exclusiveMinimum": 0},
            _pattern(_CPU),
        ),
    ],
)
Percent = TypeAliasType(
    "Percent",
    Annotated[
        float,
        *_read(
            parse_percent,
            "A percentage: `5%`, `0.5%` or the plain number.",
            {**_NUMBER_FORM, "maximum": 100},
            _pattern(_PERCENT),
        ),
    ],
)
Weight = TypeAliasType(
    "Weight",
    Annotated[
        int,
        *_read(
            _weight,
            "A whole percentage of the traffic, `1%` to `100%`, or the plain number.",
            {"type": "integer", "minimum": 1, "maximum": 100},
            _pattern("(?:[1-9][0-9]?|100)%"),
        ),
    ],
)
Portion = TypeAliasType(
    "Portion",
    Annotated[
        int | str,
        *_read(
            _portion,
            "A number of instances, or a percentage of them such as `25%`.",
            {"type": "integer", "minimum": 0},
            _pattern(_PERCENT),
        ),
    ],
)
Condition = TypeAliasType(
    "Condition",
    Annotated[
        plan.Condition,
        *_read(
            _condition,
            'A guard-rail, in quotes: `">= 99"` for a rate in percent, `"<= 500ms"` for a latency.',
            _pattern(_CONDITION),
        ),
        PlainSerializer(_write_condition),
    ],
)
Limit = TypeAliasType(
    "Limit",
    Annotated[
        tuple[Literal[">=", "<="], float],
        *_read(_limit, 'A limit, in quotes: `">= 5"` or `"<= 0.5"`.', _pattern(_LIMIT)),
        PlainSerializer(_write_limit),
    ],
)
Text = TypeAliasType(
    "Text",
    Annotated[str, *_read(_text, "Text; a number, `true` or `false` is taken as it is written.", _TEXT_FORM)],
)
Secret = TypeAliasType(
    "Secret",
    Annotated[
        SecretRef,
        *_read(_secret, "The name of a secret: `!secret shop-build/npm-token`.", _SECRET_FORM),
    ],
)
TextOrSecret = TypeAliasType(
    "TextOrSecret",
    Annotated[
        str | SecretRef,
        *_read(
            _text_or_secret,
            "Text, or the name of a secret: `!secret shop-prod/database-url`; "
            "a tool that cannot write YAML tags writes `{secret: shop-prod/database-url}`.",
            _TEXT_FORM,
            _SECRET_FORM,
        ),
    ],
)
Command = TypeAliasType(
    "Command",
    Annotated[
        str,
        *_matching(r"[\s\S]*\S[\s\S]*", "a command"),
        _described("A shell command, run by `/bin/sh -c`.", {"type": "string", "pattern": r"\S"}),
    ],
)
RepoPath = TypeAliasType(
    "RepoPath",
    Annotated[
        str,
        AfterValidator(_inside),
        _described("A path inside the repository, from its root.", {"type": "string", "pattern": r"^\s*[^\s/]"}),
    ],
)

Directory = Annotated[str, *_matching(r"/[^\0]*", "an absolute path of a directory such as /var/cache/headway")]
Label = Annotated[str, *_matching(_LABEL, _LABEL_WORDS)]
CheckName = Annotated[str, *_matching("[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "a name of letters, digits, '.', '_' and '-'")]
VariableName = Annotated[str, *_matching("[A-Za-z_][A-Za-z0-9_]*", "the name of a variable: letters, digits and '_'")]
UrlPath = Annotated[str, *_matching(r"/\S*", "a URL path such as /health")]
Branch = Annotated[str, *_matching(r"[^\s~^:?*\[\\-][^\s~^:?*\[\\]*", "the name of a branch")]
Image = Annotated[
    str,
    *_matching(
        "[a-z0-9.-]+(?::[0-9]+(?=/))?(?:/[a-z0-9._-]+)*",
        "an image repository without a tag such as ghcr.io/acme/shop (what is built is named by its digest)",
    ),
]
RuleName = Annotated[str, *_matching("[A-Z]+[0-9]+", "the name of a rule such as DL3008")]
HeaderName = Annotated[str, *_matching("[A-Za-z0-9-]+", "the name of a header such as x-beta")]
SourceName = Annotated[
    str, *_matching("[a-z][a-z0-9-]*/[a-z0-9][a-z0-9-]*", "TYPE/NAME of a metric source such as prometheus/main")
]
TargetName = Annotated[
    str, *_matching("[a-z][a-z0-9-]*/[a-z0-9][a-z0-9-]*", "TYPE/NAME of a target such as process/production")
]
Freeze = Annotated[str, AfterValidator(_freeze), WithJsonSchema(_pattern(freeze_windows.PATTERN))]
