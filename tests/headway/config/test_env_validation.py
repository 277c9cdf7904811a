"""Validation of all environment variables against the env schema, without showing values."""

from __future__ import annotations

from typing import Any

import pytest

from headway.config import Variable
from headway.config.env_validation import Configured, Entry, examine, table


def told(
    values: dict[str, str] | None = None, *, secrets: tuple[str, ...] = (), missing: dict[str, str] | None = None
) -> Configured:
    values = values or {}
    return Configured(values=values, given=frozenset(values), secrets=frozenset(secrets), missing=missing or {})


def said(contract: dict[str, dict[str, Any]], **environments: Configured) -> list[tuple[str, str, str, str]]:
    variables = {name: Variable.model_validate(body) for name, body in contract.items()}
    return [(one.environment, one.variable, one.level, one.what) for one in examine(variables, environments)]


def test_all_errors_of_all_environments_are_reported_together() -> None:
    contract: dict[str, dict[str, Any]] = {
        "MAIL": {"type": "email"},
        "WORKERS": {"type": "integer", "min": 1},
        "KEY": {"secret": True},
    }
    found = said(
        contract,
        staging=told({"MAIL": "nobody", "WORKERS": "0", "KEY": "kX9-" * 4}, secrets=("KEY",)),
        production=told({"MAIL": "a@example.com", "WORKERS": "many"}, missing={"KEY": "!secret a/key: nobody has it"}),
    )
    assert found == [
        ("staging", "MAIL", "error", "expected a mail address, got 'nobody'"),
        ("staging", "WORKERS", "error", "expected at least 1, got '0'"),
        ("production", "KEY", "error", "!secret a/key: nobody has it"),
        ("production", "WORKERS", "error", "expected an integer, got 'many'"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        "changeme", "change-me-please", "CHANGE_ME", "replace-this", "your-secret-here", "your_api_key", "secret",
        "mysecret", "my-secret-key", "password", "Password123", "admin", "xxxxxxxxxx", "<database password>",
        "${DATABASE_URL}", "example", "test", "12345678", "postgres://shop:password@db/shop", "postgres://shop:change%20me@db/shop",
        "placeholder", "TODO",
    ],
)  # fmt: skip
def test_placeholder_is_refused_as_a_secret(value: str) -> None:
    found = said({"KEY": {"secret": True, "min_length": 0}}, production=told({"KEY": value}, secrets=("KEY",)))
    assert found == [("production", "KEY", "error", "is a placeholder, not a secret")]


@pytest.mark.parametrize(
    "value",
    [
        "9f2c7d1e4b",
        "postgres://shop:9f2c7d1e4b@db/shop",
        "postgres://db/shop",
        "tests-pass-here-9f2c",
        "http://[broken",
    ],
)
def test_real_secret_is_accepted(value: str) -> None:
    assert said({"KEY": {"secret": True}}, production=told({"KEY": value}, secrets=("KEY",))) == []


def test_secret_has_a_minimum_length_unless_the_schema_sets_one() -> None:
    short = told({"PIN": "4711"}, secrets=("PIN",))
    assert said({"PIN": {"secret": True}}, production=short) == [
        ("production", "PIN", "error", "expected at least 8 characters, got 4")
    ]
    assert said({"PIN": {"secret": True, "min_length": 4}}, production=short) == []
    assert said({}, production=short) == [("production", "PIN", "error", "expected at least 8 characters, got 4")]


def test_secret_value_is_never_shown_whatever_its_type() -> None:
    contract: dict[str, dict[str, Any]] = {
        "A": {"type": "url"},
        "B": {"type": "integer", "max": 3},
        "C": {"choices": ["a", "b"]},
        "D": {"type": "regex", "pattern": "[a-z]+"},
        "E": {"type": "json", "secret": True},
        "F": {"type": "email"},
    }
    value = "98765432109"
    found = said(contract, production=told(dict.fromkeys(contract, value), secrets=tuple("ABCDF")))
    assert {variable for _, variable, *_ in found} == set("ABCDF")
    assert value not in str(found)


def test_same_secret_in_two_environments_is_a_warning() -> None:
    both = told({"KEY": "9f2c7d1e4b"}, secrets=("KEY",))
    other = told({"KEY": "another-9f2c"}, secrets=("KEY",))
    assert said({"KEY": {"secret": True}}, staging=both, production=both) == [
        ("production", "KEY", "warning", "the same secret as in staging")
    ]
    assert said({"KEY": {"secret": True}}, staging=both, production=other) == []


def test_variable_missing_from_the_schema_is_a_warning() -> None:
    found = said({"LOG_LEVEL": {}}, production=told({"LOG_LEVEL": "a", "LOG_LEVLE": "b"}))
    assert found == [
        (
            "production",
            "LOG_LEVLE",
            "warning",
            "not in the env schema, the env section at the top (did you mean 'LOG_LEVEL'?)",
        )
    ]
    assert said({}, production=told({"ANY": "thing"})) == []


def test_deprecated_variable_is_a_warning() -> None:
    contract = {"OLD": {"default": "1", "deprecated": "use NEW"}}
    assert said(contract, production=told({"OLD": "2"})) == [("production", "OLD", "warning", "deprecated: use NEW")]
    default = Configured(values={"OLD": "1"}, given=frozenset(), secrets=frozenset(), missing={})
    assert said(contract, production=default) == []


@pytest.mark.parametrize(
    ("body", "good", "bad"),
    [
        ({"type": "email"}, "a@example.com", "a@"),
        ({"type": "duration", "min": "1m", "max": "1h"}, "90s", "2h"),
        ({"type": "duration"}, "90", "soon"),
        ({"type": "bytes", "max": "1Gi"}, "256Mi", "2Gi"),
        ({"type": "bytes"}, "1024", "much"),
        ({"type": "json"}, '{"a": [1]}', "{a: 1}"),
        ({"type": "enum", "choices": ["a", "b"]}, "a", "c"),
        ({"type": "regex", "pattern": "[A-Z]{2}-[0-9]+"}, "AB-12", "AB-12x"),
        ({"type": "integer", "min": -5, "max": 5}, "-5", "6"),
        ({"type": "number", "min": "0.5"}, "0.50", "0.49"),
    ],
)
def test_types(body: dict[str, Any], good: str, bad: str) -> None:
    variable = Variable.model_validate(body)
    assert variable.fault(good) is None
    assert str(variable.fault(bad)).startswith("expected ")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"type": "enum"}, "enum needs it"),
        ({"type": "regex"}, "regex needs it"),
        ({"pattern": "["}, "is not a regular expression"),
        ({"min": 1}, "min\n  means nothing for a string"),
        ({"type": "integer", "max": "many"}, "max\n  expected an integer, got 'many'"),
        ({"type": "duration", "default": "2h", "max": "1h"}, "default\n  expected at most 1h, got '2h'"),
    ],
)
def test_inconsistent_schema_is_refused(body: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=r"(?s).*") as refused:
        Variable.model_validate(body)
    assert fault in str(refused.value)


def test_variable_may_be_required_in_some_environments_only() -> None:
    variable = Variable.model_validate({"required": ["production"]})
    assert variable.required_in("production")
    assert not variable.required_in("staging")


def test_the_table_has_errors_first() -> None:
    entries = [
        Entry(environment="a", variable="X", level="warning", what="careful"),
        Entry(environment="b", variable="Y", level="error", what="wrong"),
    ]
    assert table(entries) == [
        {"environment": "b", "variable": "Y", "error": "wrong"},
        {"environment": "a", "variable": "X", "warning": "careful"},
    ]
