"""The types of the values in headway.yaml: durations, sizes, percentages, conditions, text and secrets.

Each named type parses the written form, and describes itself in the JSON Schema and on the reference page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from typing_extensions import TypeAliasType

from headway.config.value_parsers import (
    CONDITION,
    CPU,
    DURATION,
    HOST,
    LABEL,
    LABEL_WORDS,
    LIMIT,
    MEMORY,
    PERCENT,
    check_freeze,
    check_repo_path,
    format_condition,
    format_limit,
    parse_memory,
    parse_percent,
    read_condition,
    read_cpu,
    read_duration,
    read_limit,
    read_network,
    read_pause,
    read_portion,
    read_secret,
    read_text,
    read_text_or_secret,
    read_timeout,
    read_weight,
)
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
    "HostName",
    "Image",
    "Label",
    "Limit",
    "Memory",
    "Network",
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
]

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


# Named aliases: the schema defines each form once, and the reference page links to it.
Duration = TypeAliasType(
    "Duration",
    Annotated[
        float,
        *_read(
            read_duration,
            "A time: `500ms`, `150s`, `10m`, `1h30m`, or a plain number of seconds.",
            _NUMBER_FORM,
            _pattern(DURATION),
        ),
    ],
)
Timeout = TypeAliasType(
    "Timeout",
    Annotated[
        float,
        *_read(
            read_timeout,
            "A Duration above zero.",
            {"type": "number", "exclusiveMinimum": 0},
            _pattern(DURATION),
        ),
    ],
)
PauseLength = TypeAliasType(
    "PauseLength",
    Annotated[
        float | Literal["forever"],
        *_read(read_pause, "A duration such as `10m`, or `forever`.", _NUMBER_FORM, _pattern(f"forever|{DURATION}")),
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
            _pattern(MEMORY),
        ),
    ],
)
Cpu = TypeAliasType(
    "Cpu",
    Annotated[
        float,
        *_read(
            read_cpu,
            "Processor cores: `500m` (half a core), `0.5` or `2`.",
            {"type": "number", "exclusiveMinimum": 0},
            _pattern(CPU),
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
            _pattern(PERCENT),
        ),
    ],
)
Weight = TypeAliasType(
    "Weight",
    Annotated[
        int,
        *_read(
            read_weight,
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
            read_portion,
            "A number of instances, or a percentage of them such as `25%`.",
            {"type": "integer", "minimum": 0},
            _pattern(PERCENT),
        ),
    ],
)
Condition = TypeAliasType(
    "Condition",
    Annotated[
        plan.Condition,
        *_read(
            read_condition,
            'A guard-rail, in quotes: `">= 99"` for a rate in percent, `"<= 500ms"` for a latency.',
            _pattern(CONDITION),
        ),
        PlainSerializer(format_condition),
    ],
)
Limit = TypeAliasType(
    "Limit",
    Annotated[
        tuple[Literal[">=", "<="], float],
        *_read(read_limit, 'A limit, in quotes: `">= 5"` or `"<= 0.5"`.', _pattern(LIMIT)),
        PlainSerializer(format_limit),
    ],
)
Text = TypeAliasType(
    "Text",
    Annotated[str, *_read(read_text, "Text; a number, `true` or `false` is taken as it is written.", _TEXT_FORM)],
)
Secret = TypeAliasType(
    "Secret",
    Annotated[
        SecretRef,
        *_read(read_secret, "The name of a secret: `!secret shop-build/npm-token`.", _SECRET_FORM),
    ],
)
TextOrSecret = TypeAliasType(
    "TextOrSecret",
    Annotated[
        str | SecretRef,
        *_read(
            read_text_or_secret,
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
Network = TypeAliasType(
    "Network",
    Annotated[
        Literal["open", "none"] | tuple[str, ...],
        *_read(
            read_network,
            "What a command reaches: `open`, all other hosts; `none`, no server at all; "
            "or a list of the only hosts, such as `[pypi.org, files.pythonhosted.org]`.",
            {"enum": ["open", "none"]},
            {"type": "array", "items": _pattern(HOST)},
        ),
    ],
)
RepoPath = TypeAliasType(
    "RepoPath",
    Annotated[
        str,
        AfterValidator(check_repo_path),
        _described("A path inside the repository, from its root.", {"type": "string", "pattern": r"^\s*[^\s/]"}),
    ],
)

Directory = Annotated[str, *_matching(r"/[^\0]*", "an absolute path of a directory such as /var/cache/headway")]
Label = Annotated[str, *_matching(LABEL, LABEL_WORDS)]
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
HostName = Annotated[
    str,
    *_matching(
        r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", "a host name such as shop.example.com"
    ),
]
SourceName = Annotated[
    str, *_matching("[a-z][a-z0-9-]*/[a-z0-9][a-z0-9-]*", "TYPE/NAME of a metric source such as prometheus/main")
]
TargetName = Annotated[
    str, *_matching("[a-z][a-z0-9-]*/[a-z0-9][a-z0-9-]*", "TYPE/NAME of a target such as process/production")
]
Freeze = Annotated[str, AfterValidator(check_freeze), WithJsonSchema(_pattern(freeze_windows.PATTERN))]
