"""The policy of an app: rules that an admin sets outside the repository, and that no commit can loosen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, ValidationError, model_validator

from headway.config.base import Section
from headway.config.environment import Approval, ChecklistName, long_approval
from headway.config.validation import fault
from headway.config.value_types import Freeze, Label
from headway.config.yaml_document import parse, report
from headway.domain.errors import SettingsError
from headway.domain.principal import RESERVED

__all__ = ["AppPolicy", "EnvironmentPolicy", "load"]

HINT = "docs/guides/set-the-policy-of-an-app.md lists every key"


def _glob(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("expected a name or a pattern such as release/*")
    return value


def _person(value: str) -> str:
    if value.startswith(tuple(kind for kind in RESERVED if kind != "group:")):
        raise ValueError("expected a user, or a group as group:NAME")
    return _glob(value)


Glob = Annotated[str, AfterValidator(_glob)]
Person = Annotated[str, AfterValidator(_person)]


class EnvironmentPolicy(Section):
    """What a release needs before it changes this environment, whatever headway.yaml says."""

    targets: tuple[Glob, ...] = Field(
        default=(),
        description="patterns of targets that are of this environment. Its rules hold for every environment of the app "
        "on such a target, under whatever name. Default: any",
    )
    approval: Annotated[
        Approval | None, BeforeValidator(long_approval, json_schema_input_type=StrictBool | Approval)
    ] = Field(default=None, description="the least approval. Default: none")
    freeze: tuple[Freeze, ...] = Field(default=(), description="windows in which nothing is released")
    freeze_override: tuple[Person, ...] = Field(
        default=(),
        description="users and groups that may release in spite of a freeze. Default: those who may approve",
    )
    readiness: tuple[ChecklistName, ...] = Field(
        default=(), description="production readiness items and groups that must pass or be attested"
    )
    require: Literal["receipt"] | None = Field(
        default=None,
        description="`receipt`: nothing is launched, rollbacks included, without a valid receipt of its release",
    )


class AppPolicy(Section):
    """The keys at the top of a policy."""

    repository: str | None = Field(
        default=None, description="URL or path that releases must come from. Default: the one that is registered"
    )
    branches: tuple[Glob, ...] = Field(
        default=("*",), description="patterns of branches; a release must be in the history of one, or of a tag"
    )
    tags: tuple[Glob, ...] = Field(default=("*",), description="patterns of tags that may be released")
    targets: tuple[Glob, ...] = Field(default=("*",), description="patterns of targets that the app may use")
    secrets: tuple[Glob, ...] | None = Field(
        default=None,
        description="patterns of secrets that headway.yaml may name, such as `shop-*`. Default: all but those that "
        "begin with the name of another registered app",
    )
    environments: dict[Label, EnvironmentPolicy] = Field(default={}, description="rules of an environment, by its name")

    @model_validator(mode="after")
    def _something_can_be_released(self) -> AppPolicy:
        if not self.branches and not self.tags:
            raise ValueError("branches and tags are empty: nothing could be released")
        if not self.targets:
            raise ValueError("targets is empty: nothing could be released")
        return self


def load(text: str, name: str) -> AppPolicy:
    """Read and validate a policy. Raises SettingsError with every fault, one a line: `NAME:LINE: key: message`."""
    document = parse(name, text, HINT)
    faults = list(document.faults)
    try:
        policy = AppPolicy.model_validate({} if document.empty else document.value)
    except ValidationError as error:
        policy = AppPolicy()
        faults += [fault(details, _known_keys) for details in error.errors(include_url=False)]
    if faults:
        raise SettingsError(report(name, document, faults), HINT)
    return policy


def _known_keys(keys: tuple[str | int, ...]) -> set[str]:
    sections: dict[int, Any] = {0: AppPolicy, 2: EnvironmentPolicy, 3: Approval}
    section = sections.get(len(keys))
    return set(section.model_fields) if section else set()
