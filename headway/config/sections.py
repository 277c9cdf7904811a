"""The parts of headway.yaml: checks, the build, health, and the environments."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, field_validator, model_validator

from headway.config.base import Section
from headway.config.migration_tools import files_of
from headway.config.readiness_items import GROUPS, ITEMS, expand
from headway.config.strategy import Probe, Rolling, StrategySetting
from headway.config.validation import Fault, nearest, raise_faults
from headway.config.value_types import (
    Command,
    Cpu,
    Directory,
    Duration,
    Freeze,
    Image,
    Label,
    Memory,
    Percent,
    RepoPath,
    RuleName,
    Secret,
    TargetName,
    Text,
    TextOrSecret,
    Timeout,
    UrlPath,
    VariableName,
)
from headway.domain import revision

__all__ = [
    "Approval",
    "Build",
    "Check",
    "Environment",
    "Health",
    "Inputs",
    "Instances",
    "Leaks",
    "Lint",
    "Migrations",
    "On",
    "Probes",
    "Probing",
    "Resources",
]


class On(Section):
    """What starts a release besides people: a push to `branch`, and what is said here.

    A push whose newest commit has `[skip headway]` in its message starts nothing; nor does a pull request.
    """

    tags: tuple[Text, ...] = Field(default=(), description="tags that are released too, such as `v*`")
    paths: tuple[Text, ...] = Field(
        default=(),
        description="a push to `branch`, or a pull request for it, counts only when it changes one of these, or "
        "headway.yaml: patterns as in "
        ".gitignore, with `!` for those that do not count; left out: whatever it changes",
    )


MOST_INSTANCES = 1000


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


class Lint(Section):
    """What is asked of the Dockerfile before anything is built."""

    fails: Literal["error", "warning", "info", "never"] = Field(
        default="error", description="findings of this level, and worse ones, stop a release"
    )
    exceptions: dict[RuleName, Text] = Field(
        default={}, description="rules that do not count here, such as `DL3008` or `HW008`, each with the reason"
    )


class Build(Section):
    """What is built, once, from the commit: a bundle with `install`, an image with `image`, or the tree as it is."""

    install: Command | None = Field(default=None, description="command that completes a bundle, run in the tree")
    image: Image | None = Field(default=None, description="repository the container image is pushed to, without a tag")
    dockerfile: RepoPath | None = Field(default=None, description="Dockerfile of the image; `Dockerfile` when left out")
    registry: Label | None = Field(
        default=None,
        description="registry block that knows how to get into the image's registry; left out: nobody asks",
    )
    args: dict[VariableName, Text] = Field(default={}, description="build arguments; they end up in the image")
    secrets: dict[VariableName, Secret] = Field(
        default={}, description="secrets that the build may read and that stay out of the image; BuildKit mounts them"
    )
    platform: Text | None = Field(default=None, description="such as `linux/arm64`; the engine's own when left out")
    lint: Lint = Field(default=Lint(), description="what is asked of the Dockerfile")
    cache: StrictBool | Directory = Field(
        default=True,
        description="take layers from the image that the branch had last, which is in the registry, or, with the path "
        "of a directory of the worker's machine, kept there",
    )
    env: dict[VariableName, Text] = Field(default={}, description="environment variables of `install`")
    timeout: Timeout = Field(default=600.0, description="after this the build has failed")

    @model_validator(mode="after")
    def _one_shape(self) -> Build:
        if self.install is not None and self.image is not None:
            raise ValueError("has both install (a bundle) and image (a container): choose one")
        about_images = [
            name for name in ("dockerfile", "registry", "args", "secrets", "platform") if getattr(self, name)
        ]
        if about_images and self.image is None:
            raise ValueError(f"has {' and '.join(about_images)} but no image to push anywhere")
        if self.env and self.install is None:
            raise ValueError("has an env but no install that would see it")
        return self


class Asking(Section):
    """How often a platform that asks by itself does it. A start may fail until `health.startup` is over."""

    period: Timeout | None = Field(default=None, description="between two questions, in whole seconds")

    def over(self, usual: revision.ProbeSettings) -> revision.ProbeSettings:
        """With what is said here instead of the usual."""
        return usual.model_copy(update=self.model_dump(exclude_none=True))


class Probing(Asking):
    """How often it asks, and what it makes of the answers."""

    failures: StrictInt | None = Field(default=None, ge=1, description="wrong answers in a row before it counts")
    delay: Duration | None = Field(default=None, description="after the start of an instance, in whole seconds")


class Probes(Section):
    """What Kubernetes asks an instance: is it up, may it have requests, is it to be started again."""

    startup: Asking = Field(default=Asking(), description="is it up; every 5 s when left out")
    readiness: Probing = Field(default=Probing(), description="may it have requests; every 10 s, 2 failures")
    liveness: Probing = Field(
        default=Probing(), description="is it to be started again; every 30 s, 3 failures, from 10 s on"
    )


class Health(Section):
    """How an instance is asked whether it can serve."""

    path: UrlPath = Field(default="/health", description="answers 200 when the instance can serve")
    detailed: UrlPath | None = Field(
        default=None,
        description="answers with status (ok or degraded), version and checks, the state of what the app depends on; "
        "what a release has degraded brings the old version back",
    )
    startup: Timeout = Field(default=60.0, description="an instance that is not ready after this has failed")
    timeout: Timeout = Field(default=2.0, description="longest wait for one answer")
    probes: Probes = Field(
        default=Probes(), description="how often Kubernetes asks; other platforms have their own way"
    )

    @property
    def data(self) -> revision.Health:
        """As a spec keeps it."""
        usual = revision.Health()
        return revision.Health(
            path=self.path,
            timeout=self.timeout,
            startup=self.startup,
            startup_probe=self.probes.startup.over(usual.startup_probe),
            readiness_probe=self.probes.readiness.over(usual.readiness_probe),
            liveness_probe=self.probes.liveness.over(usual.liveness_probe),
        )


class Resources(Section):
    """What one instance may use."""

    cpu: Cpu | None = Field(default=None, description="processor cores")
    memory: Memory | None = Field(default=None, description="memory")


class Migrations(Section):
    """How the database follows the code. The commands run where the app runs, as it does: its files, its variables.

    What adds (an expand) is done before the rollout; what takes away (a contract) when the old version is retired and
    its `rollback_window` is over.
    """

    apply: Command = Field(
        description="brings the database to what this version needs; doing it twice is doing it once"
    )
    check: Command | None = Field(
        default=None, description="a dry run before `apply`: when it does not end with 0, nothing is changed"
    )
    revert: Command | None = Field(
        default=None,
        description="takes back what `apply` did, for `headway rollback --revert`; only where that is possible. "
        "`$HEADWAY_MIGRATIONS` is how many migrations that were",
    )
    kind: Literal["detect", "expand", "contract"] = Field(
        default="detect",
        description="what migrations do to the version that is live; `detect` reads it from their files, and refuses a "
        "release that does both",
    )
    files: tuple[Text, ...] = Field(
        default=(),
        description="patterns of these files, as in a .gitignore; left out: where Alembic, Django, Flyway, Prisma or "
        "Rails keep them, whichever `apply` calls",
    )
    timeout: Timeout = Field(default=600.0, description="a command that takes longer is ended, and has failed")
    rollback_window: Duration = Field(
        default=86400.0, description="time after a rollout in which the way back is open: no contract is done before"
    )

    @model_validator(mode="after")
    def _files_are_known(self) -> Migrations:
        if self.kind == "detect" and not (self.files or files_of(self.apply)):
            raise ValueError(
                "cannot tell which files are migrations: name them with `files`, or say which `kind` they are"
            )
        return self

    def commands(self) -> revision.Migrations:
        """What is kept with a revision, so that its database can be seen to later."""
        return revision.Migrations(**{**self.model_dump(), "files": self.files or files_of(self.apply)})


class Attestation(Section):
    """A person's word for what nobody can verify, such as that somebody is on call. It expires."""

    by: Text = Field(description="who says so")
    on: date = Field(description="since when, such as 2026-11-02")
    until: date = Field(description="the last day on which it counts")
    note: Text = Field(default="", description="where one can see it")

    @model_validator(mode="after")
    def _lasts(self) -> Attestation:
        if self.until < self.on:
            raise_faults([Fault(("until",), f"is before {self.on}, when it begins")])
        return self


class Readiness(Section):
    """What the checklist of readiness for production cannot find out by itself."""

    attest: dict[str, Attestation] = Field(default={}, description="items of the checklist that a person attests")
    protected: tuple[UrlPath, ...] = Field(
        default=(), description="paths that nobody may read without saying who they are; asked for where it is staged"
    )

    @field_validator("attest")
    @classmethod
    def _are_items(cls, attest: dict[str, Attestation]) -> dict[str, Attestation]:
        raise_faults(Fault((name,), f"no item {name!r}{nearest(name, ITEMS)}") for name in attest if name not in ITEMS)
        return attest


def _item_or_group(value: str) -> str:
    if value not in {*ITEMS, *GROUPS}:
        raise ValueError(f"no item or group {value!r}{nearest(value, {*ITEMS, *GROUPS})}")
    return value


ChecklistName = Annotated[str, AfterValidator(_item_or_group)]


class Leaks(Section):
    """What looks like a secret in the repository and is none."""

    exceptions: dict[Text, Text] = Field(
        default={},
        description="files in which nothing is a secret, as patterns of a .gitignore, each with the reason; single "
        "lines get a comment `pragma: allowlist secret`, or into `.secrets.baseline`",
    )


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


class Instances(Section):
    """How many copies of the app run: a number, or on Kubernetes a range in which an autoscaler decides."""

    min: StrictInt = Field(ge=1, le=MOST_INSTANCES, description="the fewest")
    max: StrictInt = Field(ge=1, le=MOST_INSTANCES, description="the most")
    cpu: Percent = Field(default=70.0, ge=1, description="share of the requested processor time that they are to use")

    @model_validator(mode="after")
    def _is_a_range(self) -> Instances:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, less than min, {self.min}")
        return self

    @property
    def autoscale(self) -> revision.Autoscale | None:
        """None where there is nothing to decide."""
        return revision.Autoscale(min=self.min, max=self.max, cpu=round(self.cpu)) if self.max > self.min else None


def _long_instances(value: object) -> object:
    if isinstance(value, dict | Instances):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_INSTANCES:
        return {"min": int(value), "max": int(value)}
    raise ValueError(f"expected a number from 1 to {MOST_INSTANCES}, or a range such as {{min: 2, max: 10, cpu: 70%}}")


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
    instances: Annotated[
        Instances,
        BeforeValidator(_long_instances, json_schema_input_type=Annotated[StrictInt, Field(ge=1)] | Instances),
    ] = Field(default=Instances(min=1, max=1), description="copies of the app that run; `1` when left out")
    port: StrictInt | None = Field(
        default=None, ge=1, le=65535, description="public port; left out, the target keeps one per app"
    )
    smoke: tuple[Probe, ...] = Field(default=(), description="requests that have to succeed after each rollout")
    approval: Annotated[
        Approval | None, BeforeValidator(_long_approval, json_schema_input_type=StrictBool | Approval)
    ] = Field(
        default=None,
        description="who has to agree first; left out or `false`: nobody. Of `preview`: who lets pull requests from "
        "forks run, which always wait for somebody",
    )
    freeze: tuple[Freeze, ...] = Field(
        default=(),
        description="when nothing is released here: weekly or dated windows, and `holidays` of a country or region",
    )
    readiness: tuple[ChecklistName, ...] = Field(
        default=(),
        description="items of the checklist, and groups of them, that have to pass or be attested before anything "
        "changes here; otherwise a person accepts that, by name: "
        + "; ".join(f"`{group}` ({', '.join(expand([group]))})" for group in GROUPS),
    )
    env: dict[VariableName, TextOrSecret] = Field(default={}, description="values of the variables of the contract")
    manifests: RepoPath | None = Field(
        default=None, description="Kubernetes manifests of this environment, such as a kustomize overlay"
    )
    ttl: Timeout | None = Field(
        default=None,
        description="only for `preview`: it is torn down so long after its last deploy, however open its pull request",
    )
    stop_grace: Duration = Field(default=10.0, description="time between SIGTERM and SIGKILL")
    drain: Duration = Field(default=30.0, description="time that requests in flight may take to finish")
    progress_deadline: Timeout = Field(default=600.0, description="a rollout step that takes longer has failed")
    after_deadline: Literal["rollback", "wait"] = Field(
        default="rollback",
        description="an analysis without a verdict by then is rolled back, or `wait`s until a person decides",
    )

    @property
    def kind(self) -> str:
        """Of the target."""
        return self.target.partition("/")[0]
