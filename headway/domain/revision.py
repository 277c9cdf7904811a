"""A revision of an app, and everything that a target needs to run it."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field, JsonValue

from headway.domain.base import Frozen
from headway.domain.git import OBJECT_ID

__all__ = [
    "REVISION_HEADER",
    "Artifact",
    "Autoscale",
    "Health",
    "Http",
    "LaunchSpec",
    "Manifest",
    "Migrations",
    "ProbeSettings",
    "Revision",
    "SecretRef",
]

REVISION_HEADER = "x-headway-revision"  # of responses: the proxy names the revision that answered


class Artifact(Frozen):
    """A build result, identified by its digest. It is built once and promoted through the environments."""

    kind: Literal["bundle", "image"] = "bundle"
    digest: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    location: str = Field(description="bundle: absolute path of the unpacked, read-only tree; image: repository@digest")
    size: int = Field(ge=0, description="bytes")
    sealed: bool = Field(
        default=False,
        description="bundle: compared with its digest at each launch. Those of 0.1.0 are not: apps could write to them",
    )


class SecretRef(Frozen):
    """The name of a secret, as `!secret shop-prod/database-url` in headway.yaml.

    Its value is never part of the model.
    """

    secret: str


class ProbeSettings(Frozen):
    """Frequency of a probe of the platform. Times in seconds."""

    period: float
    failures: int = Field(ge=1, description="answers in a row that have to be wrong before it counts")
    delay: float = Field(default=0.0, description="after the start of an instance")


class Health(Frozen):
    """Health check of an instance. Times in seconds."""

    path: str = "/health"
    host: str | None = Field(default=None, description="header Host of a check; None: the platform's")
    timeout: float = 2.0
    startup: float = Field(default=60.0, description="an instance that is not ready after this many seconds failed")
    startup_probe: ProbeSettings = Field(
        default=ProbeSettings(period=5, failures=1), description="`failures` follow from `startup`"
    )
    readiness_probe: ProbeSettings = ProbeSettings(period=10, failures=2)
    liveness_probe: ProbeSettings = ProbeSettings(period=30, failures=3, delay=10)


class Http(Frozen):
    """How the proxy passes requests on. Times in seconds; None: no limit."""

    timeout: float | None = Field(default=None, description="from a request to the end of its response")
    idle_timeout: float | None = Field(default=None, description="without a byte in either direction")
    retry: int = Field(default=0, ge=0, description="times that an idempotent request which failed is sent again")
    max_body: int | None = Field(default=None, ge=1, description="bytes of a request body")
    h2c: bool = Field(default=False, description="requests by HTTP/2 are passed on by HTTP/2, without TLS")


class Migrations(Frozen):
    """Schema migrations: commands that run in the app's environment. Times in seconds."""

    apply: str
    check: str | None = None
    revert: str | None = None
    kind: Literal["detect", "expand", "contract"] = "detect"
    files: tuple[str, ...] = Field(default=(), description="patterns of the migrations in the repository")
    timeout: float = 600.0
    rollback_window: float = 86400.0


class Manifest(Frozen):
    """A Kubernetes object of the app's repository, unchanged."""

    source: str = Field(description="file and document, such as `k8s/web.yaml#2`")
    content: dict[str, JsonValue]


class Autoscale(Frozen):
    """Limits and metric of autoscaling."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)
    cpu: int = Field(ge=1, description="percent of the requested processor time that instances use on average")


class LaunchSpec(Frozen):
    """Everything that a target needs to run a revision. It is stored in the ledger for later rollbacks."""

    environment: str
    target: str = Field(default="", description="the target block it runs on, as type/name")
    artifact: Artifact
    run: str = Field(
        default="", description="shell command; gets PORT and its identity as HEADWAY_*; empty: the image's own"
    )
    release: str = Field(default="", description="name of the release that launched it")
    cpu: float | None = Field(default=None, gt=0, description="processor cores an instance may use")
    memory: int | None = Field(default=None, gt=0, description="bytes an instance may use")
    instances: int = Field(default=1, ge=1)
    autoscale: Autoscale | None = Field(default=None, description="None: as many as `instances`, always")
    env: dict[str, str | SecretRef] = Field(default_factory=dict)
    secrets: tuple[str, ...] = Field(default=(), description="variables of `env` that were a SecretRef, now resolved")
    health: Health = Health()
    http: Http = Http()
    port: int | None = Field(default=None, description="public port of the proxy; None: the target keeps one per app")
    preview_port: int | None = Field(default=None, description="port of the preview route")
    stop_grace: float = Field(default=10.0, description="seconds between SIGTERM and SIGKILL")
    drain: float = Field(default=30.0, description="seconds that requests in flight may take to finish")
    detailed: str | None = Field(default=None, description="path of the app's detailed health")
    migrations: Migrations | None = None
    manifests: tuple[Manifest, ...] = Field(default=(), description="what the app has for Kubernetes, to be completed")
    require: Literal["receipt"] | None = Field(default=None, description="what it takes to be launched")

    def configuration_hash(self) -> str:
        """First 12 hex digits of the SHA-256 of what an instance is started with, but the number of instances.

        That is the command, environment, health check, http settings, limits and manifests.
        """
        # A later setting that is not used leaves the hash as it is: an upgrade makes no new revisions.
        fields = dict.fromkeys(("environment", "run", "env", "health", "cpu", "memory"), True)
        unused = {"health": {"host"}} if self.health.host is None else {}
        seen = self.model_dump_json(include=fields, exclude=unused)
        seen += "" if self.http == Http() else self.http.model_dump_json()
        seen += "".join(one.model_dump_json(include={"content"}) for one in self.manifests)
        return hashlib.sha256(seen.encode()).hexdigest()[:12]

    def revision(self, app: str, sha: str) -> Revision:
        """The revision of `app` that this is when it was built from commit `sha`."""
        return Revision(app=app, sha=sha, digest=self.artifact.digest, configuration=self.configuration_hash())


class Revision(Frozen):
    """A version of an app in an environment: what is launched, routed to and retired."""

    app: str
    sha: str = Field(pattern=OBJECT_ID)
    digest: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    configuration: str = Field(description="configuration hash, see LaunchSpec.configuration_hash")

    @property
    def id(self) -> str:
        """Short and unique within an app, such as `3f2a9c1-5be01f`: commit, then artifact and configuration."""
        mixed = hashlib.sha256(f"{self.digest}{self.configuration}".encode()).hexdigest()
        return f"{self.sha[:7]}-{mixed[:6]}"

    def __str__(self) -> str:
        return self.id
