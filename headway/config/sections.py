"""The parts of headway.yaml: checks, the build, health, and the environments."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, StrictBool, StrictInt, field_validator, model_validator

from headway.config.base import Section
from headway.config.migration_tools import files_of
from headway.config.readiness_items import ITEMS
from headway.config.validation import Fault, nearest, raise_faults
from headway.config.value_types import (
    Command,
    Cpu,
    Directory,
    Duration,
    Image,
    Label,
    Memory,
    RepoPath,
    RuleName,
    Secret,
    Text,
    Timeout,
    UrlPath,
    VariableName,
)
from headway.domain import revision

__all__ = [
    "Attestation",
    "Build",
    "Check",
    "Health",
    "Inputs",
    "Lint",
    "Migrations",
    "On",
    "Readiness",
    "Resources",
    "SecretScan",
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


class SecretScan(Section):
    """Exceptions from the scan for secrets in the repository, which runs before every release."""

    exceptions: dict[Text, Text] = Field(
        default={},
        description="files without secrets: a pattern as in .gitignore, and the reason. For a single line, write the "
        "comment `pragma: allowlist secret`, or add it to `.secrets.baseline`",
    )
