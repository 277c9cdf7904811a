"""Sections of headway.yaml: triggers, checks, the build, health, resources, migrations, readiness."""

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
    HostName,
    Image,
    Label,
    Memory,
    Network,
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
    "Http",
    "Inputs",
    "Lint",
    "Migrations",
    "On",
    "Readiness",
    "Resources",
    "SecretScan",
]


class On(Section):
    """What starts a release automatically, in addition to a push to `branch`.

    A push or pull request whose newest commit has `[skip headway]` in its message starts nothing.
    """

    tags: tuple[Text, ...] = Field(
        default=(), description="patterns of tags whose push also starts a release, such as `v*`"
    )
    paths: tuple[Text, ...] = Field(
        default=(),
        description="a push or pull request counts only if it changes one of these paths or headway.yaml: .gitignore "
        "patterns, with `!` to exclude. Default: any change",
    )


class Inputs(Section):
    """Inputs of a check, in addition to its command and env. A check with unchanged inputs is not run again."""

    paths: tuple[RepoPath, ...] = Field(
        min_length=1, description="files and directories on whose content the result depends"
    )
    tools: tuple[Command, ...] = Field(
        default=(), description="commands on whose output the result depends, such as `node --version`"
    )


class Check(Section):
    """A command that must pass before anything is built. Short form: `lint: npm run lint`."""

    run: Command = Field(description="the command. Exit code 0 is a pass")
    needs: tuple[str, ...] = Field(default=(), description="checks that must pass first")
    env: dict[VariableName, Text] = Field(default={}, description="environment variables of the command")
    timeout: Timeout = Field(default=600.0, description="time after which the check fails and its processes are killed")
    retries: StrictInt = Field(default=0, ge=0, le=10, description="number of retries of a failed check")
    reports: RepoPath | None = Field(
        default=None, description="path or glob of the JUnit XML report that the command writes"
    )
    coverage: RepoPath | None = Field(
        default=None, description="path of the coverage report that the command writes: lcov or Cobertura"
    )
    network: Network = Field(
        default="open", description="what the check reaches. All but `open` fail without a runner that isolates"
    )
    inputs: Inputs | None = Field(default=None, description="inputs of the check. Default: the check always runs")


class Lint(Section):
    """How the Dockerfile is linted before the build."""

    fails: Literal["error", "warning", "info", "never"] = Field(
        default="error", description="lowest level of findings that stop a release"
    )
    exceptions: dict[RuleName, Text] = Field(
        default={}, description="ignored rules, such as `DL3008` or `HW008`, each with the reason"
    )


class Build(Section):
    """What is built: a bundle with `install`, a container image with `image`, otherwise the plain files."""

    install: Command | None = Field(
        default=None, description="command that completes a bundle, such as `npm ci`; run in the checked-out files"
    )
    image: Image | None = Field(default=None, description="image repository to push to, without a tag")
    dockerfile: RepoPath | None = Field(default=None, description="path of the Dockerfile. Default: `Dockerfile`")
    registry: Label | None = Field(
        default=None,
        description="block with registry credentials. Default: anonymous access",
    )
    args: dict[VariableName, Text] = Field(default={}, description="build arguments. They are visible in the image")
    secrets: dict[VariableName, Secret] = Field(
        default={}, description="secrets for the build, mounted by BuildKit. They are not in the image"
    )
    platform: Text | None = Field(
        default=None, description="platform of the image, such as `linux/arm64`. Default: that of the Docker Engine"
    )
    lint: Lint = Field(default=Lint(), description="how the Dockerfile is linted")
    cache: StrictBool | Directory = Field(
        default=True,
        description="reuse layers of the branch's last image in the registry. A path: keep the cache in that directory "
        "of the worker",
    )
    env: dict[VariableName, Text] = Field(default={}, description="environment variables of `install`")
    timeout: Timeout = Field(default=600.0, description="time after which the build fails")

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
    """Interval of a startup probe. It may fail until `health.startup` is over."""

    period: Timeout | None = Field(default=None, description="interval between two probes, in whole seconds")

    def over(self, usual: revision.ProbeSettings) -> revision.ProbeSettings:
        """The default probe with the settings given here."""
        return usual.model_copy(update=self.model_dump(exclude_none=True))


class Probing(Asking):
    """Interval and thresholds of a probe."""

    failures: StrictInt | None = Field(
        default=None, ge=1, description="consecutive failures after which the probe has failed"
    )
    delay: Duration | None = Field(default=None, description="delay after the start of an instance, in whole seconds")


class Probes(Section):
    """Kubernetes probes of an instance."""

    startup: Asking = Field(default=Asking(), description="startup probe. Default: every 5 s")
    readiness: Probing = Field(default=Probing(), description="readiness probe. Default: every 10 s, 2 failures")
    liveness: Probing = Field(
        default=Probing(), description="liveness probe. Default: every 30 s, 3 failures, after 10 s"
    )


class Health(Section):
    """Health check of an instance."""

    path: UrlPath = Field(default="/health", description="path that returns 200 when the instance can serve requests")
    detailed: UrlPath | None = Field(
        default=None,
        description="path that reports the health of the app's dependencies. A dependency that a release degrades "
        "causes a rollback",
    )
    startup: Timeout = Field(default=60.0, description="time after which an instance that is not ready has failed")
    host: HostName | None = Field(
        default=None,
        description="header `Host` of a health check, for an app that answers only to its own host names. Default: "
        "`127.0.0.1`; on Kubernetes the address of the pod",
    )
    timeout: Timeout = Field(default=2.0, description="timeout of one health check")
    probes: Probes = Field(default=Probes(), description="probes on Kubernetes; other platforms ignore them")

    @property
    def data(self) -> revision.Health:
        """As a spec keeps it."""
        usual = revision.Health()
        return revision.Health(
            path=self.path,
            host=self.host,
            timeout=self.timeout,
            startup=self.startup,
            startup_probe=self.probes.startup.over(usual.startup_probe),
            readiness_probe=self.probes.readiness.over(usual.readiness_probe),
            liveness_probe=self.probes.liveness.over(usual.liveness_probe),
        )


class Http(Section):
    """How the proxy of the process and docker targets passes requests on. Other platforms ignore it.

    A request is executed once: it is sent again only when it never reached an instance, unless `retry` says more.
    """

    timeout: Timeout | None = Field(
        default=None,
        description="time from a request to the end of its response, after which the proxy answers 504. Not for "
        "websockets. Default: no limit",
    )
    idle_timeout: Timeout | None = Field(
        default=None,
        description="time without a byte of a request or response, also of a websocket, after which the proxy ends it. "
        "Default: no limit",
    )
    retry: StrictInt = Field(
        default=0,
        ge=0,
        le=10,
        description="how often a GET, HEAD, OPTIONS, PUT or DELETE request that got no response, 502, 503 or 504 is "
        "sent again. Default: never",
    )
    max_body: Memory | None = Field(
        default=None, description="size of a request body above which the proxy answers 413. Default: no limit"
    )
    h2c: StrictBool = Field(
        default=False,
        description="pass requests that arrive by HTTP/2, such as gRPC, on by HTTP/2 without TLS. Default: by HTTP/1.1",
    )

    @property
    def data(self) -> revision.Http:
        """As a spec keeps it."""
        return revision.Http(**self.model_dump())


class Resources(Section):
    """Limits of one instance."""

    cpu: Cpu | None = Field(default=None, description="CPU cores")
    memory: Memory | None = Field(default=None, description="memory")


class Migrations(Section):
    """Schema migrations of the database. The commands run where the app runs, with its files and variables.

    Expand migrations run before the rollout, contract migrations after the old version is retired and `rollback_window`
    is over.
    """

    apply: Command = Field(description="command that migrates the database to this version. It must be idempotent")
    check: Command | None = Field(
        default=None, description="dry run before `apply`. If its exit code is not 0, nothing is changed"
    )
    revert: Command | None = Field(
        default=None,
        description="command that undoes `apply`, for `headway rollback --revert`. `$HEADWAY_MIGRATIONS` is the number "
        "of migrations to undo",
    )
    kind: Literal["detect", "expand", "contract"] = Field(
        default="detect",
        description="effect of the migrations on the live version. `detect` reads it from the files, and refuses a "
        "release that does both",
    )
    files: tuple[Text, ...] = Field(
        default=(),
        description="migration files, as .gitignore patterns. Default: the usual place of the tool that `apply` calls: "
        "Alembic, Django, Flyway, Prisma or Rails",
    )
    timeout: Timeout = Field(default=600.0, description="time after which a command is killed and has failed")
    rollback_window: Duration = Field(
        default=86400.0,
        description="time after a rollout in which a rollback stays possible. Contract migrations run after it",
    )

    @model_validator(mode="after")
    def _files_are_known(self) -> Migrations:
        if self.kind == "detect" and not (self.files or files_of(self.apply)):
            raise ValueError(
                "cannot tell which files are migrations: name them with `files`, or say which `kind` they are"
            )
        return self

    def commands(self) -> revision.Migrations:
        """The commands that are stored with a revision, for migrations that run later."""
        return revision.Migrations(**{**self.model_dump(), "files": self.files or files_of(self.apply)})


class Attestation(Section):
    """A person's statement about an item that cannot be verified automatically, such as an on-call rota. It expires."""

    by: Text = Field(description="person who attests")
    on: date = Field(description="date of the attestation, such as 2026-11-02")
    until: date = Field(description="last day on which it is valid")
    note: Text = Field(default="", description="where to find the evidence")

    @model_validator(mode="after")
    def _lasts(self) -> Attestation:
        if self.until < self.on:
            raise_faults([Fault(("until",), f"is before {self.on}, when it begins")])
        return self


class Readiness(Section):
    """Production readiness items that cannot be verified automatically."""

    attest: dict[str, Attestation] = Field(default={}, description="checklist items that a person attests")
    protected: tuple[UrlPath, ...] = Field(
        default=(), description="paths that require authentication. The checklist requests them to verify that"
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
