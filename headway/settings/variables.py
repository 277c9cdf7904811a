"""The contract on environment variables: what the app needs to be told, and whether an environment tells it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from pydantic import Field, StrictBool, StrictInt, model_validator

from headway.faults import Fault, nearest, raise_faults
from headway.forms import Text
from headway.model import SecretRef
from headway.settings.section import Section

__all__ = ["Variable", "contract_faults", "is_given"]


class Variable(Section):
    """What the app needs to know of one environment variable."""

    type: Literal["string", "integer", "number", "boolean", "url"] = Field(
        default="string", description="what its value has to look like"
    )
    choices: tuple[Text, ...] = Field(default=(), description="the only values it may have")
    min_length: StrictInt = Field(default=0, ge=0, description="fewest characters it may have")
    default: Text | None = Field(default=None, description="its value where an environment gives none")
    secret: StrictBool = Field(
        default=False,
        description="its value is never written in this file; where an environment does not name it, it is the secret "
        "`APP-ENVIRONMENT/NAME`, NAME in lower case with `-` for `_`, such as `shop-staging/database-url`",
    )
    required: StrictBool = Field(default=True, description="an environment without it is an error")

    @model_validator(mode="after")
    def _default_fits(self) -> Variable:
        faults = [
            Fault(("choices", index), fault)
            for index, choice in enumerate(self.choices)
            if (fault := self._type_fault(choice))
        ]
        if self.default is not None and self.secret:
            faults.append(Fault(("default",), "a secret has no default: it would be written here in clear"))
        elif self.default is not None and not faults and (fault := self.fault(self.default)):
            faults.append(Fault(("default",), fault))
        raise_faults(faults)
        return self

    def fault(self, value: str) -> str | None:
        """Why this value breaks the contract, None when it keeps it. The value of a secret is never repeated."""
        got = "" if self.secret else f", got {value!r}"
        if fault := self._type_fault(value):
            return fault
        if self.choices and value not in self.choices:
            return f"expected one of {', '.join(self.choices)}{got}"
        if len(value) < self.min_length:
            return f"expected at least {self.min_length} characters, got {len(value)}"
        return None

    def _type_fault(self, value: str) -> str | None:
        expected, fits = _VARIABLE_TYPES[self.type]
        if fits(value):
            return None
        return f"expected {expected}" + ("" if self.secret else f", got {value!r}")


def _is_url(value: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", value))


_VARIABLE_TYPES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "string": ("text", lambda _: True),
    "integer": ("an integer", lambda value: bool(re.fullmatch(r"[+-]?\d+", value))),
    "number": ("a number", lambda value: bool(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value))),
    "boolean": ("true or false", lambda value: value in ("true", "false")),
    "url": ("a URL", _is_url),
}


def contract_faults(
    contract: Mapping[str, Variable], environments: Mapping[str, Mapping[str, str | SecretRef]]
) -> Iterator[Fault]:
    """What environments say of their variables that the contract does not allow, or leave out."""
    for name, given in environments.items():
        for variable, value in given.items():
            if fault := _value_fault(contract, variable, value):
                yield Fault((name, "env", variable), fault)
        for variable, wanted in contract.items():
            told = variable in given or wanted.default is not None or wanted.secret or is_given(variable)
            if wanted.required and not told:
                yield Fault((name, "env", variable), f"is missing: give it here, or a default in env/{variable}")


def _value_fault(contract: Mapping[str, Variable], variable: str, value: str | SecretRef) -> str | None:
    if is_given(variable):
        return "is given by Headway and cannot be set"
    if not contract:
        return None
    if variable not in contract:
        return f"not in the contract, the env section at the top{nearest(variable, contract)}"
    if isinstance(value, SecretRef):
        return None
    if contract[variable].secret:
        return "is a secret and must not be written here in clear: use !secret NAME/KEY"
    return contract[variable].fault(value)


def is_given(variable: str) -> bool:
    """Whether Headway itself gives it to every instance."""
    return variable == "PORT" or variable.startswith("HEADWAY_")
