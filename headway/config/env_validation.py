"""Validation of the variables of all environments against the env schema. Messages never contain values of secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Literal
from urllib.parse import unquote, urlsplit

from headway.config import Variable
from headway.config.validation import nearest
from headway.domain.base import Frozen

__all__ = ["Configured", "Entry", "examine", "table"]

# Placeholders in examples that were not replaced by a real secret.
_PLACEHOLDER = re.compile(
    r"(change|replace|insert|set|fill|enter)[-_ ]?(me|this|it|here|in).*|your[-_ ].*"
    r"|((my|the|a|an|some|super|very|top)[-_ ]?)?(secret|password|passw0rd|token|key|api[-_ ]?key)"
    r"([-_ ]?(here|value|key))?\d*"
    r"|(example|sample|dummy|fake|test|testing|todo|tbd|fixme|placeholder|default|none|null|undefined|foo|bar|foobar)\d*"
    r"|admin\d*|root|letmein|qwerty\w*|hunter2|0?123456\d*|x+|\*+|\.+|-+|<.*>|\$\{.*\}|\{\{.*\}\}",
    re.IGNORECASE,
)


class Entry(Frozen):
    """An error or a warning about one variable."""

    environment: str
    variable: str
    level: Literal["error", "warning"]
    what: str


class Configured(Frozen):
    """The variables of an environment, with its secrets resolved."""

    values: dict[str, str]
    given: frozenset[str]
    """Variables that the environment sets, without the defaults of the schema."""
    secrets: frozenset[str]
    missing: dict[str, str]
    """Variable -> error of its secret."""


def examine(schema: Mapping[str, Variable], environments: Mapping[str, Configured]) -> list[Entry]:
    """Errors and warnings of all environments."""
    entries: list[Entry] = []
    for environment, found in environments.items():
        for name, level, what in _entries(schema, found):
            entries.append(Entry(environment=environment, variable=name, level=level, what=what))
    return [*entries, *_shared(environments)]


def table(entries: list[Entry]) -> list[dict[str, str]]:
    """Rows of a table, errors first."""
    ordered = sorted(entries, key=lambda one: (one.level, one.environment, one.variable))
    return [{"environment": one.environment, "variable": one.variable, one.level: one.what} for one in ordered]


def _entries(
    schema: Mapping[str, Variable], found: Configured
) -> Iterator[tuple[str, Literal["error", "warning"], str]]:
    for name, why in found.missing.items():
        yield name, "error", why
    for name, value in found.values.items():
        variable = schema.get(name)
        secret = name in found.secrets
        if variable is None:
            if schema:
                yield name, "warning", f"not in the env schema, the env section at the top{nearest(name, schema)}"
            variable = Variable(secret=secret)
        if variable.deprecated and name in found.given:
            yield name, "warning", f"deprecated: {variable.deprecated}"
        if (secret or variable.secret) and _is_placeholder(value):
            yield name, "error", "is a placeholder, not a secret"
        elif fault := variable.fault(value, secret=secret):
            yield name, "error", fault


def _is_placeholder(value: str) -> bool:
    """Whether the value, or the password of a URL, is a placeholder."""
    secret: str | None = value
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        try:
            secret = urlsplit(value).password
        except ValueError:
            return False  # not a valid URL: the validation of its type reports it
    return secret is not None and bool(_PLACEHOLDER.fullmatch(unquote(secret)))


def _shared(environments: Mapping[str, Configured]) -> Iterator[Entry]:
    """Warnings about secrets that two environments share: access to one environment is access to the other."""
    for (one, here), (other, there) in combinations(environments.items(), 2):
        for name in sorted(here.secrets & there.secrets):
            value = here.values.get(name)
            if value is not None and value == there.values.get(name):
                what = f"the same secret as in {one}"
                yield Entry(environment=other, variable=name, level="warning", what=what)
