"""headway.yaml: what a repository says about its checks, its build and its environments.

One source: these models validate the file, print the JSON Schema for editors and, through `headway.reference`, the
reference page. Durations are seconds, memory is bytes, cpu is cores, percentages are 0 to 100 throughout.
"""

from __future__ import annotations

import graphlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from headway import model
from headway.document import Document
from headway.errors import NotFound, SettingsError
from headway.faults import Fault, Keys, fault, nearest, raise_faults
from headway.forms import (
    Branch,
    CheckName,
    Command,
    Cpu,
    Duration,
    Freeze,
    Image,
    Label,
    Memory,
    RepoPath,
    TargetName,
    Text,
    TextOrSecret,
    Timeout,
    UrlPath,
    VariableName,
)
from headway.model import SecretRef
from headway.settings.section import Section
from headway.settings.strategies import (
    Analysis,
    BlueGreen,
    Canary,
    CanaryAnalysis,
    CanaryStep,
    Metric,
    Probe,
    Recreate,
    Rolling,
    Strategy,
    StrategySetting,
    Synthetic,
)

__all__ = [
    "FILE_NAME",
    "PREVIEW",
    "Analysis",
    "Approval",
    "BlueGreen",
    "Build",
    "Canary",
    "CanaryAnalysis",
    "CanaryStep",
    "Check",
    "Environment",
    "Health",
    "Inputs",
    "Metric",
    "Migrations",
    "Probe",
    "Recreate",
    "Resources",
    "Rolling",
    "Settings",
    "Strategy",
    "Synthetic",
    "Variable",
    "load",
    "schema",
]

FILE_NAME = "headway.yaml"
PREVIEW = "preview"

_MAX_BYTES = 256 * 1024
_REFERENCE = "docs/reference/headway-yaml.md lists every key"
_MINIMUM_HINT = f"""{_REFERENCE}; the least that works:
app: shop
run: python -m shop
checks:
  unit: pytest
environments:
  production: {{target: process/production}}"""


# --- the sections of the file ----------------------------------------------------------------------------------


class Inputs(Section):
    """What the result of a check depends on, besides its command and env. Only a check that says so is ever cached."""

    paths: tuple[RepoPath, ...] = Field(min_length=1, description="files and directories whose content matters")
    tools: tuple[Command, ...] = Field(
        default=(), description="commands whose output matters, such as `node --version`"
    )


class Check(Section):
    """One command that has to pass before anything is built. Just the command is a check too: `lint: npm run lint`."""

    run: Command = Field(description="the command; exit code 0 is a pass")
    needs: tuple[str, ...] = Field(default=(), description="checks that have to pass first")
    env: dict[VariableName, Text] = Field(default={}, description="environment variables of the command")
    timeout: Timeout = Field(default=600.0, description="after this its whole process group is ended and it has failed")
    retries: StrictInt = Field(default=0, ge=0, le=10, description="how often a failed check is tried again")
    reports: RepoPath | None = Field(default=None, description="JUnit XML report it writes: a path or a glob")
    coverage: RepoPath | None = Field(default=None, description="coverage report it writes: lcov or Cobertura")
    inputs: Inputs | None = Field(default=None, description="what it depends on; left out, the check always runs")


class Build(Section):
    """What is built, once, from the commit: a bundle with `install`, an image with `image`, or the tree as it is."""

    install: Command | None = Field(default=None, description="command that completes a bundle, run in the tree")
    image: Image | None = Field(default=None, description="repository the container image is pushed to, without a tag")
    dockerfile: RepoPath | None = Field(default=None, description="Dockerfile of the image; `Dockerfile` when left out")
    env: dict[VariableName, Text] = Field(default={}, description="environment variables of `install`")
    timeout: Timeout = Field(default=600.0, description="after this the build has failed")

    @model_validator(mode="after")
    def _one_shape(self) -> Build:
        if self.install is not None and self.image is not None:
            raise ValueError("has both install (a bundle) and image (a container): choose one")
        if self.dockerfile is not None and self.image is None:
            raise ValueError("has a dockerfile but no image to push it to")
        if self.env and self.install is None:
            raise ValueError("has an env but no install that would see it")
        return self


class Health(Section):
    """How an instance is asked whether it can serve."""

    path: UrlPath = Field(default="/health", description="answers 200 when the instance can serve")
    detailed: UrlPath | None = Field(default=None, description="answers with the state of what the app depends on")
    startup: Timeout = Field(default=60.0, description="an instance that is not ready after this has failed")
    timeout: Timeout = Field(default=2.0, description="longest wait for one answer")


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


class Resources(Section):
    """What one instance may use."""

    cpu: Cpu | None = Field(default=None, description="processor cores")
    memory: Memory | None = Field(default=None, description="memory")


class Migrations(Section):
    """How the database follows the code."""

    apply: Command = Field(
        description="brings the database to what this version needs; doing it twice is doing it once"
    )
    revert: Command | None = Field(default=None, description="takes back what `apply` did")
    check: Command | None = Field(default=None, description="exit code 0 when there is nothing to apply")


class Approval(Section):
    """Who has to agree before this environment changes. `true` is an approval by anybody."""

    by: tuple[str, ...] = Field(default=(), description="people or groups that may approve; left out: anybody")
    expires: Timeout = Field(default=86400.0, description="without an answer until then the release ends")
    not_author: StrictBool = Field(default=False, description="the author of the change may not approve it")


def _long_approval(value: object) -> object:
    if value is None or isinstance(value, dict | Approval):
        return value
    if isinstance(value, bool):
        return Approval() if value else None
    raise ValueError("expected true, false or a mapping")


class Environment(Section):
    """One place the app runs."""

    target: TargetName = Field(description="where it runs: TYPE/NAME of a target block, such as `process/production`")
    strategy: StrategySetting = Field(
        default=Rolling(), description="how a new version takes over; left out: `rolling`"
    )
    supersede: Literal["queue", "abort"] = Field(
        default="queue",
        description="a newer release that comes during a rollout waits for its end, or `abort`s it and takes its place",
    )
    instances: StrictInt = Field(default=1, ge=1, le=1000, description="copies of the app that run")
    port: StrictInt | None = Field(
        default=None, ge=1, le=65535, description="public port; left out, the target keeps one per app"
    )
    smoke: tuple[Probe, ...] = Field(default=(), description="requests that have to succeed after each rollout")
    approval: Annotated[
        Approval | None, BeforeValidator(_long_approval, json_schema_input_type=StrictBool | Approval)
    ] = Field(default=None, description="who has to agree first; left out or `false`: nobody")
    freeze: tuple[Freeze, ...] = Field(default=(), description="weekly windows in which nothing is released here")
    env: dict[VariableName, TextOrSecret] = Field(default={}, description="values of the variables of the contract")
    ttl: Timeout | None = Field(
        default=None, description="only for `preview`: an environment older than this is removed"
    )
    stop_grace: Duration = Field(default=10.0, description="time between SIGTERM and SIGKILL")
    drain: Duration = Field(default=30.0, description="time that requests in flight may take to finish")
    progress_deadline: Timeout = Field(default=600.0, description="a rollout step that takes longer has failed")
    after_deadline: Literal["rollback", "wait"] = Field(
        default="rollback",
        description="an analysis without a verdict by then is rolled back, or `wait`s until a person decides",
    )


def _long_check(value: object) -> object:
    if isinstance(value, dict | Check):
        return value
    if isinstance(value, str):
        return {"run": value}
    raise ValueError("expected a command or a mapping")


class Settings(Section):
    """A repository's headway.yaml: what it checks, what it builds, where it runs."""

    app: Label = Field(description="name of the app, a DNS label")
    branch: Branch = Field(default="main", description="branch whose commits are released")
    checks: dict[CheckName, Annotated[Check, BeforeValidator(_long_check, json_schema_input_type=Command | Check)]] = (
        Field(default={}, description="commands that have to pass, side by side unless `needs` says otherwise")
    )
    build: Build = Field(default=Build(), description="what is built, once, and promoted through every environment")
    run: Command | None = Field(
        default=None, description="command that starts the app, which listens on `$PORT`; environments need it"
    )
    health: Health = Field(default=Health(), description="how an instance is asked whether it can serve")
    env: dict[VariableName, Variable] = Field(
        default={}, description="the contract: what the app needs to be told, checked before anything is deployed"
    )
    resources: Resources = Field(default=Resources(), description="what one instance may use")
    migrations: Migrations | None = Field(default=None, description="how the database follows the code")
    environments: dict[Label, Environment] = Field(
        default={},
        description="where the app runs, in the order it is promoted; "
        "`preview` is the environment of pull requests and never part of that order",
    )

    @field_validator("checks")
    @classmethod
    def _needs_are_checks(cls, checks: dict[str, Check]) -> dict[str, Check]:
        faults = [
            Fault((name, "needs", index), f"no check {needed!r}{nearest(needed, checks.keys() - {name})}")
            for name, check in checks.items()
            for index, needed in enumerate(check.needs)
            if needed not in checks
        ]
        try:
            graphlib.TopologicalSorter({name: check.needs for name, check in checks.items()}).prepare()
        except graphlib.CycleError as error:
            cycle = error.args[1][::-1]
            faults.append(Fault((cycle[0], "needs"), f"goes round in a circle: {' needs '.join(cycle)}"))
        raise_faults(faults)
        return checks

    @field_validator("environments")
    @classmethod
    def _environments_fit(cls, environments: dict[str, Environment], info: ValidationInfo) -> dict[str, Environment]:
        faults: list[Fault] = []
        if environments and "run" in info.data and info.data["run"] is None:
            faults.append(Fault((), "need `run`, the command that starts the app"))
        faults.extend(_place_faults(environments))
        if "env" in info.data:
            faults.extend(_variable_faults(info.data["env"], environments))
        raise_faults(faults)
        return environments

    def release_path(self, to: str | None = None) -> list[str]:
        """Environments a release goes through, in order, up to and including `to`; never `preview`.

        Raises NotFound, naming the choices, when `to` is not one of them.
        """
        path = [name for name in self.environments if name != PREVIEW]
        if to is None:
            return path
        if to not in path:
            raise NotFound(
                f"environments/{to}: a release of {self.app} does not go there{nearest(to, path)}",
                f"environments of {self.app}: {', '.join(path) or 'none'}",
            )
        return path[: path.index(to) + 1]

    def environment(self, name: str) -> Environment:
        """Raises NotFound, naming the choices, when there is no such environment."""
        if name not in self.environments:
            raise NotFound(
                f"environments/{name}: not in the {FILE_NAME} of {self.app}{nearest(name, self.environments)}",
                f"environments of {self.app}: {', '.join(self.environments) or 'none'}",
            )
        return self.environments[name]

    def variables(self, environment: str) -> dict[str, str | SecretRef]:
        """What an instance is told: the defaults of the contract, then what the environment gives.

        Without those Headway gives itself: PORT and HEADWAY_*. That they keep the contract was checked when the file
        was read; what is behind a SecretRef is for `Variable.fault` to check once it is known. Raises NotFound.
        """
        given = self.environment(environment).env
        told: dict[str, str | SecretRef] = {}
        for name, variable in self.env.items():
            if _is_given(name):
                continue
            if name in given:
                told[name] = given[name]
            elif variable.default is not None:
                told[name] = variable.default
            elif variable.secret and variable.required:
                told[name] = SecretRef(secret=f"{self.app}-{environment}/{name.lower().replace('_', '-')}")
        return told | given

    def launch_spec(self, environment: str, artifact: model.Artifact) -> model.LaunchSpec:
        """All a target needs to run the artifact in this environment. Raises NotFound."""
        place = self.environment(environment)
        assert self.run is not None  # environments without it do not validate
        return model.LaunchSpec(
            environment=environment,
            target=place.target,
            artifact=artifact,
            run=self.run,
            instances=place.instances,
            env=self.variables(environment),
            health=model.Health(path=self.health.path, timeout=self.health.timeout, startup=self.health.startup),
            port=place.port,
            preview_port=place.strategy.preview_port if isinstance(place.strategy, BlueGreen) else None,
            stop_grace=place.stop_grace,
            drain=place.drain,
        )


def _place_faults(environments: Mapping[str, Environment]) -> Iterator[Fault]:
    owners: dict[str, str] = {}
    for name, environment in environments.items():
        if environment.ttl is not None and name != PREVIEW:
            yield Fault((name, "ttl"), f"only {PREVIEW} ends by itself")
        # A target knows one set of revisions an app: two environments on it would retire each other's.
        owner = owners.setdefault(environment.target, name)
        if owner != name:
            yield Fault((name, "target"), f"{environment.target} is {owner}'s already: each environment needs its own")


def _variable_faults(contract: Mapping[str, Variable], environments: Mapping[str, Environment]) -> Iterator[Fault]:
    for name, environment in environments.items():
        for variable, value in environment.env.items():
            if fault := _value_fault(contract, variable, value):
                yield Fault((name, "env", variable), fault)
        for variable, wanted in contract.items():
            told = variable in environment.env or wanted.default is not None or wanted.secret or _is_given(variable)
            if wanted.required and not told:
                yield Fault((name, "env", variable), f"is missing: give it here, or a default in env/{variable}")


def _value_fault(contract: Mapping[str, Variable], variable: str, value: str | SecretRef) -> str | None:
    if _is_given(variable):
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


def _is_given(variable: str) -> bool:
    return variable == "PORT" or variable.startswith("HEADWAY_")


# --- the JSON Schema -------------------------------------------------------------------------------------------


class _EditorSchema(GenerateJsonSchema):
    """Without the noise pydantic adds for its own purposes: a title for each field, null for each optional one."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        json_schema = super().dict_schema(schema)
        if "patternProperties" in json_schema:
            json_schema["additionalProperties"] = False
        return json_schema

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        json_schema = super().default_schema(schema)
        # A section that is left out has the defaults of its own keys.
        if isinstance(json_schema.get("default"), dict | None):
            json_schema.pop("default", None)
        return json_schema


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of headway.yaml for editors, short forms included."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(schema_generator=_EditorSchema),
        "title": FILE_NAME,
    }


# --- reading the file ------------------------------------------------------------------------------------------


def load(path: Path) -> Settings:
    """Read and validate headway.yaml; `path` is the file or the directory that holds it.

    Raises SettingsError with every fault that can be found at once, one a line:
    `headway.yaml:LINE: path/with/slashes: message`.
    """
    file = path if path.suffix in (".yaml", ".yml") and not path.is_dir() else path / FILE_NAME
    document = _parse(file, _read_text(file))
    settings, faults = _validate(document)
    if settings is None or faults:
        lines = sorted((document.line(keys), "/".join(map(str, keys)), message) for keys, message in faults)
        report = (f"{file.name}:{line}: {where}{where and ': '}{message}" for line, where, message in lines)
        raise SettingsError("\n".join(report), _REFERENCE)
    return settings


def _parse(file: Path, text: str) -> Document:
    try:
        document = Document(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file.name}:{mark.line + 1}:{mark.column + 1}" if mark else file.name
        problem = " ".join(str(error.problem or error.context).split())
        raise SettingsError(
            f"{where}: is not YAML: {problem}", "text that begins with > % @ ` & * ! { or [ needs quotes"
        ) from error
    except YAMLError as error:
        raise SettingsError(f"{file.name}: is not YAML: {' '.join(str(error).split())}", _REFERENCE) from error
    except RecursionError as error:
        raise SettingsError(f"{file.name}: is nested too deeply, or its aliases multiply", _REFERENCE) from error
    if document.empty:
        raise SettingsError(f"{file.name}:1: is empty", _MINIMUM_HINT)
    return document


def _validate(document: Document) -> tuple[Settings | None, list[Fault]]:
    """Faults of the YAML first: what pydantic says about the same keys only follows from them."""
    try:
        return Settings.model_validate(document.value), document.faults
    except ValidationError as error:
        known = {keys for keys, _ in document.faults}
        found = (fault(details, _known_keys) for details in error.errors(include_url=False))
        return None, [*document.faults, *(one for one in found if one.keys not in known)]


def _read_text(file: Path) -> str:
    try:
        if not file.parent.is_dir():
            raise SettingsError(f"{file.parent}: no such directory", "name the directory of the repository")
        if not file.exists():
            raise SettingsError(f"{file.parent}: no {file.name}", _MINIMUM_HINT)
        if not file.is_file():
            raise SettingsError(f"{file}: is not a regular file", _REFERENCE)
        if file.stat().st_size > _MAX_BYTES:
            raise SettingsError(f"{file.name}: is larger than {_MAX_BYTES // 1024} KiB", _REFERENCE)
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file.name}:{line}: is not UTF-8 text", "save the file as UTF-8") from error
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}", "check its owner and permissions") from error


def _known_keys(keys: Keys) -> set[str]:
    """What may be written under these keys, read from the schema."""
    whole = schema()
    here = [whole]
    for key in keys:
        here = [form for part in here for form in _forms(_below(part, key), whole["$defs"])]
    return {name for part in here for name in part.get("properties", {})}


def _below(part: JsonSchemaValue, key: str | int) -> JsonSchemaValue:
    if key in part.get("properties", {}):
        return dict(part["properties"][key])
    if isinstance(key, int):
        return dict(part.get("items", {}))
    return dict(next(iter(part.get("patternProperties", {}).values()), {}))


def _forms(part: JsonSchemaValue, definitions: JsonSchemaValue) -> Iterator[JsonSchemaValue]:
    if "$ref" in part:
        yield from _forms(definitions[part["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in part:
        for form in part["anyOf"]:
            yield from _forms(form, definitions)
    else:
        yield part
