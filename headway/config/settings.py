"""The root of headway.yaml: the app, its checks, its build and its environments."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator

from headway.config.base import Section
from headway.config.env_schema import Variable, env_faults, is_given
from headway.config.environment import Environment
from headway.config.platforms import platform, platforms
from headway.config.sections import (
    Build,
    Check,
    Health,
    Http,
    Migrations,
    On,
    Readiness,
    Resources,
    SecretScan,
)
from headway.config.strategy import BlueGreen
from headway.config.validation import Fault, nearest, raise_faults
from headway.config.value_types import Branch, CheckName, Command, Label, RepoPath, VariableName
from headway.domain.errors import NotFound
from headway.domain.refusal import Refusal
from headway.domain.revision import Artifact, LaunchSpec, Manifest, SecretRef

__all__ = ["FILE_NAME", "PREVIEW", "Settings"]

FILE_NAME = "headway.yaml"
PREVIEW = "preview"


def _long_check(value: object) -> object:
    if isinstance(value, dict | Check):
        return value
    if isinstance(value, str):
        return {"run": value}
    raise ValueError("expected a command or a mapping")


class Settings(Section):
    """The keys at the top of headway.yaml."""

    app: Label = Field(description="name of the app, a DNS label")
    branch: Branch = Field(default="main", description="branch whose commits are released")
    on: On = Field(default=On(), description="what starts a release in addition to a push to `branch`")
    checks: dict[CheckName, Annotated[Check, BeforeValidator(_long_check, json_schema_input_type=Command | Check)]] = (
        Field(default={}, description="commands that must pass, in parallel unless `needs` orders them")
    )
    build: Build = Field(default=Build(), description="how the commit is built")
    run: Command | None = Field(
        default=None,
        description="command that starts an instance, which listens on `$PORT`. Optional if the image has a command, "
        "or on Vercel and Railway",
    )
    health: Health = Field(default=Health(), description="health check of an instance")
    http: Http = Field(default=Http(), description="how the proxy passes requests on to the app")
    env: dict[VariableName, Variable] = Field(
        default={}, description="schema of the app's environment variables, validated before anything is deployed"
    )
    resources: Resources = Field(default=Resources(), description="limits of one instance")
    manifests: RepoPath | None = Field(
        default=None,
        description="your own Kubernetes manifests: a YAML file, a folder, or a kustomize folder. Default: Headway "
        "creates the objects",
    )
    migrations: Migrations | None = Field(default=None, description="schema migrations of the database")
    readiness: Readiness = Field(
        default=Readiness(), description="production readiness items that cannot be verified automatically"
    )
    secret_scan: SecretScan = Field(default=SecretScan(), description="files without secrets, for the secret scan")
    environments: dict[Label, Environment] = Field(
        default={},
        description="environments, in the order of promotion. `preview` is not part of that order: it is for pull "
        "requests, each as an app `APP-pr-NUMBER`",
    )
    _manifests: dict[str, tuple[Manifest, ...]] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def manifests_read(self) -> dict[str, tuple[Manifest, ...]]:
        """Kubernetes objects of the repository, by environment."""
        return dict(self._manifests)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Old names that the file uses, each with its file and line. Known where the file was just read."""
        return self._warnings

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
        image = info.data["build"].image if "build" in info.data else None
        known = platforms()
        used = [known[one.kind] for one in environments.values() if one.kind in known]
        if any(one.runs_command for one in used) and "run" in info.data and info.data["run"] is None and image is None:
            faults.append(Fault((), "need `run`, the command that starts the app"))
        faults.extend(_place_faults(environments))
        if "build" in info.data:
            faults.extend(_kind_faults(environments, image))
        if info.data.get("manifests") and not any(one.manifests for one in used):
            takers = ", ".join(kind for kind, one in known.items() if one.manifests)
            faults.append(Fault((), f"none of them takes the manifests: only targets of {takers} do"))
        if "env" in info.data:
            values = {name: environment.env for name, environment in environments.items()}
            faults.extend(env_faults(info.data["env"], values))
        raise_faults(faults)
        return environments

    def preview(self, app: str, *, secrets: bool) -> tuple[Settings, Refusal | None]:
        """Settings for a pull request as an app of this name, and why it gets no preview environment.

        Its only environment is `preview`. Without `secrets` the app gets no secret; if it requires one, there is no
        preview environment.
        """
        if PREVIEW not in self.environments:
            without = self.model_copy(update={"app": app, "environments": {}})
            return without, Refusal(f"{FILE_NAME} has no environment {PREVIEW}")
        variables = self.variables(PREVIEW)  # secrets are named after this app, not after the pull request's
        hidden = () if secrets else tuple(name for name, value in variables.items() if isinstance(value, SecretRef))
        env = {name: value for name, value in variables.items() if name not in hidden}
        place = self.environments[PREVIEW].model_copy(update={"env": env})
        env_schema = {name: variable for name, variable in self.env.items() if name not in hidden}
        required = [name for name in hidden if self.env.get(name, Variable()).required_in(PREVIEW)]
        required += [] if secrets else self.build.secrets
        refusal = Refusal(f"it is from a fork, which gets no secrets: {', '.join(required)}") if required else None
        return self.model_copy(update={"app": app, "env": env_schema, "environments": {PREVIEW: place}}), refusal

    def manifests_of(self, environment: str) -> str | None:
        """Where in the repository this environment's Kubernetes manifests are; None: Headway makes what is needed.

        As it does for a preview: the names in manifests are those of one app.
        """
        place = self.environment(environment)
        if environment == PREVIEW:
            return None
        return (place.manifests or self.manifests) if platform(place.kind).manifests else None

    def with_manifests(self, manifests: Mapping[str, tuple[Manifest, ...]]) -> Settings:
        """The same, with the objects that were read of some environments."""
        made = self.model_copy()
        made._manifests = dict(manifests)  # noqa: SLF001  # its own
        return made

    def with_warnings(self, warnings: tuple[str, ...]) -> Settings:
        """These settings with the warnings about the file that they are from."""
        made = self.model_copy()
        made._warnings = warnings  # noqa: SLF001  # its own
        return made

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
        """Environment variables of an instance: the defaults of the env schema, then the values of the environment.

        Without PORT and HEADWAY_*, which Headway sets. Values were validated when the file was read; secrets are
        validated by `Variable.fault` once they are looked up. Raises NotFound.
        """
        given = self.environment(environment).env
        defaults: dict[str, str | SecretRef] = {}
        for name, variable in self.env.items():
            if is_given(name):
                continue
            if name in given:
                defaults[name] = given[name]
            elif variable.default is not None:
                defaults[name] = variable.default
            elif variable.secret and variable.required_in(environment):
                defaults[name] = SecretRef(secret=f"{self.app}-{environment}/{name.lower().replace('_', '-')}")
        return defaults | given

    def launch_spec(self, environment: str, artifact: Artifact, release: str = "") -> LaunchSpec:
        """All a target needs to run the artifact of this release in this environment. Raises NotFound."""
        place = self.environment(environment)
        return LaunchSpec(
            environment=environment,
            target=place.target,
            artifact=artifact,
            release=release,
            run=self.run or "",
            cpu=self.resources.cpu,
            memory=self.resources.memory,
            instances=self._instances(environment),
            autoscale=place.instances.autoscale,
            env=self.variables(environment),
            health=self.health.data,
            http=self.http.data,
            port=place.port,
            preview_port=place.strategy.preview_port if isinstance(place.strategy, BlueGreen) else None,
            stop_grace=place.stop_grace,
            drain=place.drain,
            detailed=self.health.detailed,
            migrations=self.migrations and self.migrations.commands(),
            manifests=self._manifests.get(environment, ()),
            require=place.require,
        )

    def _instances(self, environment: str) -> int:
        """Number of instances, from headway.yaml or from the app's own Deployment."""
        place, manifests = self.environment(environment), self._manifests.get(environment)
        form = platform(place.kind).manifests
        if manifests and form and "instances" not in place.model_fields_set:
            return form.replicas(self.app, manifests)
        return place.instances.min


def _kind_faults(environments: Mapping[str, Environment], image: str | None) -> Iterator[Fault]:
    """Faults of environments whose platform is unknown or cannot run the artifact."""
    known = platforms()
    for name, environment in environments.items():
        kind, its = environment.kind, known.get(environment.kind)
        if its is None:
            yield Fault(
                (name, "target"), f"no platform is called {kind!r}{nearest(kind, known)}; there are: {', '.join(known)}"
            )
            continue
        if environment.instances.autoscale and not its.autoscaling:
            scaling = " or ".join(one.kind for one in known.values() if one.autoscaling)
            yield Fault((name, "instances"), f"{kind} has no autoscaler: say one number, or choose a {scaling} target")
        if environment.manifests is not None and its.manifests is None:
            yield Fault((name, "manifests"), f"{kind} has no use for manifests")
        if "bundle" not in its.artifacts and image is None:
            yield Fault((name, "target"), f"{kind} runs images: build one with build/image, or choose another target")
        if "image" not in its.artifacts and image is not None:
            yield Fault((name, "target"), f"{kind} runs bundles, and build/image makes an image: choose another target")


def _place_faults(environments: Mapping[str, Environment]) -> Iterator[Fault]:
    owners: dict[str, str] = {}
    for name, environment in environments.items():
        if name == PREVIEW:
            yield from _preview_faults(environment)
        if environment.ttl is not None and name != PREVIEW:
            yield Fault((name, "ttl"), f"only {PREVIEW} ends by itself")
        # A target has one set of revisions per app: two environments on it would retire each other's.
        owner = owners.setdefault(environment.target, name)
        if owner != name:
            yield Fault((name, "target"), f"{environment.target} is {owner}'s already: each environment needs its own")


def _preview_faults(environment: Environment) -> Iterator[Fault]:
    """Faults of settings that many previews on one target cannot share."""
    known = platforms()
    if environment.kind in known and known[environment.kind].single_app:
        choices = ", ".join(kind for kind, one in known.items() if not one.single_app)
        yield Fault((PREVIEW, "target"), f"{environment.kind} runs one app a target: choose {choices}")
    if environment.port is not None:
        yield Fault((PREVIEW, "port"), "each preview has a port of its own: leave it out")
    if isinstance(environment.strategy, BlueGreen) and environment.strategy.preview_port is not None:
        yield Fault((PREVIEW, "strategy"), "each preview has ports of its own: leave preview_port out")
    if environment.manifests is not None:
        yield Fault((PREVIEW, "manifests"), f"their names are those of one app: of a {PREVIEW} Headway makes its own")
