"""The env schema: the environment variables of an app, and whether each environment has valid values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pydantic import Field, StrictBool, StrictInt, model_validator

from headway.config.base import Section
from headway.config.env_types import VALUES, ValueType
from headway.config.validation import Fault, raise_faults
from headway.config.value_types import Label, Text
from headway.domain.revision import SecretRef

SECRET_LENGTH = 8  # characters: a shorter secret can be guessed

__all__ = ["Variable", "env_faults", "is_given"]


class Variable(Section):
    """Schema of one environment variable."""

    type: ValueType = Field(default="string", description="type of the value")
    choices: tuple[Text, ...] = Field(default=(), description="allowed values; required for `enum`")
    pattern: Text | None = Field(
        default=None, description="regular expression that the whole value must match; required for `regex`"
    )
    min: Text | None = Field(default=None, description="minimum: a number, a duration or a size")
    max: Text | None = Field(default=None, description="maximum")
    min_length: StrictInt = Field(
        default=0, ge=0, description=f"minimum number of characters. Default for secrets: {SECRET_LENGTH}"
    )
    default: Text | None = Field(default=None, description="value in environments that set none")
    secret: StrictBool = Field(
        default=False,
        description="the value is a secret and is never in this file. Default name of the secret: "
        "`APP-ENVIRONMENT/NAME`, with NAME in lower case and `-` for `_`, such as "
        "`shop-staging/database-url`",
    )
    required: StrictBool | tuple[Label, ...] = Field(
        default=True, description="whether it must be set; or a list of the environments in which it must be set"
    )
    deprecated: Text | None = Field(
        default=None, description="reason why it should not be set any more; a warning is shown"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Variable:
        faults = list(self._own_faults())
        if self.default is not None and self.secret:
            faults.append(Fault(("default",), "a secret has no default: it would be written here in clear"))
        elif self.default is not None and not faults and (fault := self.fault(self.default)):
            faults.append(Fault(("default",), fault))
        raise_faults(faults)
        return self

    def _own_faults(self) -> Iterator[Fault]:
        for key, wanted in (("choices", "enum"), ("pattern", "regex")):
            if self.type == wanted and not getattr(self, key):
                yield Fault((key,), f"is missing: {wanted} needs it")
        if self.pattern is not None and (fault := _pattern_fault(self.pattern)):
            yield Fault(("pattern",), fault)
        for key, limit in (("min", self.min), ("max", self.max)):
            if limit is not None and VALUES[self.type].size is None:
                yield Fault((key,), f"means nothing for a {self.type}: only for numbers, durations and bytes")
            elif limit is not None and (fault := self._type_fault(limit)):
                yield Fault((key,), fault)
        for index, choice in enumerate(self.choices):
            if fault := self._type_fault(choice):
                yield Fault(("choices", index), fault)

    def required_in(self, environment: str) -> bool:
        return self.required if isinstance(self.required, bool) else environment in self.required

    @property
    def least_length(self) -> int:
        """Shortest length of the value; the default for secrets is SECRET_LENGTH."""
        short = self.secret and "min_length" not in self.model_fields_set
        return SECRET_LENGTH if short else self.min_length

    def fault(self, value: str, *, secret: bool = False) -> str | None:
        """Error of this value, None when it is valid. The value of a secret is never repeated."""
        hidden = secret or self.secret
        got = "" if hidden else f", got {value!r}"
        if fault := self._type_fault(value, hidden=hidden):
            return fault
        if self.choices and value not in self.choices:
            return f"expected one of {', '.join(self.choices)}{got}"
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            return f"expected something like {self.pattern}{got}"
        if len(value) < self.least_length:
            return f"expected at least {self.least_length} characters, got {len(value)}"
        return self._limit_fault(value, got)

    def _type_fault(self, value: str, *, hidden: bool = False) -> str | None:
        wanted = VALUES[self.type]
        try:
            wanted.read(value)
        except ValueError:
            return f"expected {wanted.expected}" + ("" if hidden or self.secret else f", got {value!r}")
        return None

    def _limit_fault(self, value: str, got: str) -> str | None:
        size = VALUES[self.type].size
        if size is not None and self.min is not None and size(value) < size(self.min):
            return f"expected at least {self.min}{got}"
        if size is not None and self.max is not None and size(value) > size(self.max):
            return f"expected at most {self.max}{got}"
        return None


def _pattern_fault(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"is not a regular expression: {error}"
    return None


def env_faults(
    schema: Mapping[str, Variable], environments: Mapping[str, Mapping[str, str | SecretRef]]
) -> Iterator[Fault]:
    """Values of environments that are invalid or missing."""
    for name, given in environments.items():
        for variable, value in given.items():
            if fault := _value_fault(schema, variable, value):
                yield Fault((name, "env", variable), fault)
        for variable, wanted in schema.items():
            has_value = variable in given or wanted.default is not None or wanted.secret or is_given(variable)
            if wanted.required_in(name) and not has_value:
                yield Fault((name, "env", variable), f"is missing: give it here, or a default in env/{variable}")


def _value_fault(schema: Mapping[str, Variable], variable: str, value: str | SecretRef) -> str | None:
    if is_given(variable):
        return "is given by Headway and cannot be set"
    if variable not in schema or isinstance(value, SecretRef):
        return None  # a variable outside of the schema is a warning of `headway check` and of every release
    if schema[variable].secret:
        return "is a secret and must not be written here in clear: use !secret NAME/KEY"
    return schema[variable].fault(value)


def is_given(variable: str) -> bool:
    """Whether Headway sets the variable itself, for every instance."""
    return variable == "PORT" or variable.startswith("HEADWAY_")
