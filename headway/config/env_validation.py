"""The whole configuration of an app, all environments at once, held to its contract. Pure; values are never shown."""

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

# What stands in examples until somebody writes the real thing.
_PLACEHOLDER = re.compile(
    r"(change|replace|insert|set|fill|enter)[-_ ]?(me|this|it|here|in).*|your[-_ ].*"
    r"|((my|the|a|an|some|super|very|top)[-_ ]?)?(secret|password|passw0rd|token|key|api[-_ ]?key)"
    r"([-_ ]?(here|value|key))?\d*"
    r"|(example|sample|dummy|fake|test|testing|todo|tbd|fixme|placeholder|default|none|null|undefined|foo|bar|foobar)\d*"
    r"|admin\d*|root|letmein|qwerty\w*|hunter2|0?123456\d*|x+|\*+|\.+|-+|<.*>|\$\{.*\}|\{\{.*\}\}",
    re.IGNORECASE,
)


class Entry(Frozen):
    """One thing that is wrong with one variable, or may be."""

    environment: str
    variable: str
    level: Literal["error", "warning"]
    what: str


class Configured(Frozen):
    """What an environment tells the app, its secrets resolved."""

    values: dict[str, str]
    given: frozenset[str]
    """Variables that the environment itself gives, not the contract's defaults."""
    secrets: frozenset[str]
    missing: dict[str, str]
    """Variable -> why its secret cannot be had."""


def examine(contract: Mapping[str, Variable], environments: Mapping[str, Configured]) -> list[Entry]:
    """All faults and warnings of all environments."""
    entries: list[Entry] = []
    for environment, told in environments.items():
        for name, level, what in _of(contract, told):
            entries.append(Entry(environment=environment, variable=name, level=level, what=what))
    return [*entries, *_shared(environments)]


def table(entries: list[Entry]) -> list[dict[str, str]]:
    """Rows for people, errors first."""
    ordered = sorted(entries, key=lambda one: (one.level, one.environment, one.variable))
    return [{"environment": one.environment, "variable": one.variable, one.level: one.what} for one in ordered]


def _of(contract: Mapping[str, Variable], told: Configured) -> Iterator[tuple[str, Literal["error", "warning"], str]]:
    for name, why in told.missing.items():
        yield name, "error", why
    for name, value in told.values.items():
        variable = contract.get(name)
        secret = name in told.secrets
        if variable is None:
            if contract:
                yield name, "warning", f"not in the contract, the env section at the top{nearest(name, contract)}"
            variable = Variable(secret=secret)
        if variable.deprecated and name in told.given:
            yield name, "warning", f"deprecated: {variable.deprecated}"
        if (secret or variable.secret) and _is_placeholder(value):
            yield name, "error", "is a placeholder, not a secret"
        elif fault := variable.fault(value, secret=secret):
            yield name, "error", fault


def _is_placeholder(value: str) -> bool:
    """Of a URL, its password."""
    secret: str | None = value
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        try:
            secret = urlsplit(value).password
        except ValueError:
            return False  # no URL after all: its type says so
    return secret is not None and bool(_PLACEHOLDER.fullmatch(unquote(secret)))


def _shared(environments: Mapping[str, Configured]) -> Iterator[Entry]:
    """Who gets at one environment gets at the other as well."""
    for (one, here), (other, there) in combinations(environments.items(), 2):
        for name in sorted(here.secrets & there.secrets):
            value = here.values.get(name)
            if value is not None and value == there.values.get(name):
                what = f"the same secret as in {one}"
                yield Entry(environment=other, variable=name, level="warning", what=what)
