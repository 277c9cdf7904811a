"""A service in one environment of a Railway project.

Railway builds, starts, checks and switches in one operation: the old deployment serves until the new one passes its
health check, and is then replaced. So `launch` only records what to deploy, and `route` deploys it. The revision of a
deployment is in its variables, of which Railway keeps a snapshot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from blocks.registries.oci import Registry
from blocks.targets._hosted import Api, Hosted, Token, Unsure
from blocks.targets.railway import deployments
from blocks.targets.railway.client import GOING, SECRETS, SERVING, Deployment, Place, Railway
from blocks.targets.railway.client import Instance as Service
from headway.domain.errors import RegistryError, TargetError, UsageError
from headway.domain.log_lines import LogLine
from headway.domain.plan import Plan
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Capability, Instance, InstanceReadiness, Observation, Traffic

__all__ = ["RailwayTarget"]

ROUNDS = 3  # attempts to deploy after a lost response
WHOLE = 100


class RailwayTarget(Hosted):
    """A service on Railway, deployed at a commit of its repository or at an image digest.

    Traffic switches when the new deployment passes its health check. A service with a volume is interrupted meanwhile:
    only recreate is possible there.
    """

    _block_type_name = "Headway Railway Target"
    _block_type_slug = "railway"
    _description = "Deploys apps to a service on Railway."

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.ATOMIC_SWITCH, Capability.LOGS})

    token: Token = Field(description="project token of the environment, or with `account` another token")
    account: bool = Field(default=False, description="the token is one of an account or a workspace. Needs `project`")
    project: str | None = Field(default=None, description="id of the project. Default: that of the token")
    environment: str | None = Field(
        default=None, description="name or id of the environment. Default: that of the token"
    )
    service: str = Field(min_length=1, description="name or id of the service")
    ephemeral_of: str | None = Field(
        default=None, description="for previews: environment that new, ephemeral ones are copied from"
    )
    domain: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?$",
        description="host name of the app. Default: the first domain of the service",
    )
    overlap: int | None = Field(
        default=None, ge=0, description="seconds that the old deployment keeps running after a switch"
    )
    timeout: float = Field(
        default=1800.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds that build, start and health check may take together",
    )
    username: str | None = Field(default=None, description="user name at the registry that images are pulled from")
    password: SecretStr | None = Field(default=None, description="password or token of that user")
    url: str = Field(
        default="https://backboard.railway.com/graphql/v2", pattern="^https?://", description="URL of the GraphQL API"
    )
    _prepared: dict[str, tuple[Revision, LaunchSpec]] = PrivateAttr(default_factory=dict)
    _located: Place | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _login(self) -> RailwayTarget:
        if bool(self.username) is not bool(self.password):
            raise ValueError("username and password belong together")
        return self

    def destroy(self) -> None:
        """Delete the environment if it is ephemeral."""
        with self._railway() as railway:
            place = self._place_of(railway)
            if self.ephemeral_of and place:
                railway.delete_environment(place.environment)
        self._located = None

    # --- the port ----------------------------------------------------------------------------------------------

    def check(self, app: str, plan: Plan) -> None:  # noqa: ARG002  # one service, whatever the app is called
        with self._railway() as railway:
            place = self._place_of(railway)
            if place is None:
                return  # an ephemeral environment is created when it is needed
            if not self._domain(railway.instance(place)):
                raise UsageError(
                    f"{self._where}: has no domain: nobody could reach it", "generate one in its settings, Networking"
                )
            if (mounted := railway.volume(place)) and plan.strategy != "recreate":
                raise UsageError(
                    f"{self._where}: has a volume at {mounted}, and Railway never runs two deployments on one: "
                    f"{plan.strategy} cannot be without an interruption",
                    "choose recreate, which says so, or keep what is on the volume elsewhere",
                )

    def observe(self, app: str) -> Observation:
        with self._railway() as railway:
            place = self._place_of(railway)
            if place is None:
                return Observation(app=app, url=None, traffic=Traffic(), instances={})
            service = railway.instance(place)
            live, going = deployments.live(service), deployments.going(service)
            seen: dict[str, Deployment] = {}
            for one in (live, going):
                if one and (revision := deployments.revision_of(railway, app, one)):
                    seen.setdefault(revision, one)
        domain = self._domain(service) or ""
        instances = {
            revision: (Instance(name=f"{revision}-{one.id[:8]}", address=domain, ready=one.status in SERVING),)
            for revision, one in seen.items()
        }
        for revision in self._prepared:
            waiting = Instance(name=f"{revision}-prepared", address=domain, ready=True, detail="not deployed yet")
            instances.setdefault(revision, (waiting,))
        serving = next((revision for revision, one in seen.items() if one is live), None)
        return Observation(
            app=app,
            url=f"https://{domain}" if domain and instances else None,
            traffic=Traffic.all_to(serving) if serving else Traffic(),
            instances=instances,
        )

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        """Record what to deploy. `route` deploys it: on Railway a deployment is a switch."""
        self._launchable(spec)
        self._may_write(revision.app)
        with self._railway() as railway:
            place = self._place_of(railway) or self._ephemeral(railway)
            if spec.artifact.kind == "bundle" and not railway.instance(place).repo:
                raise TargetError(
                    f"{self._where}: is connected with no repository, and {spec.environment} has a commit to deploy",
                    "connect it in its settings, or build an image with build/image",
                )
        self._prepared[revision.id] = (revision, spec)

    def missing(self, spec: LaunchSpec) -> Refusal | None:
        """Check that Railway or the registry has the image. Commits are not checked: only the repository has them."""
        location = spec.artifact.location
        if spec.artifact.kind != "image":
            return None
        with self._railway() as railway:
            place = self._place_of(railway)
            if place and any(one.can_roll_back and deployments.is_of(one, spec) for one in railway.deployments(place)):
                return None
        repository, _, digest = location.partition("@")
        registry = Registry(host=repository.partition("/")[0], username=self.username, password=self.password, tries=2)
        try:
            if registry.exists(repository, digest):
                return None
        except RegistryError as error:
            return Refusal(f"Railway has not kept image {location}, and its registry does not say: {error.what}")
        return Refusal(f"image {location} is not in its registry any more")

    def ready(self, revision: Revision) -> InstanceReadiness:
        self._pace()
        seen = self.observe(revision.app)
        found = seen.instances.get(revision.id, ())
        ready = sum(one.ready for one in found)
        detail = "" if ready else "its deployment has not answered its health path" if found else "launch it first"
        return InstanceReadiness(wanted=1, ready=ready, detail=detail)

    def route(self, app: str, traffic: Traffic) -> None:
        serving = self._routable(app, traffic)
        if len(serving) > 1 or traffic.preview:
            raise TargetError(
                f"{app}: Railway sends all traffic to one deployment, and shows none beforehand",
                "choose blue_green or recreate",
            )
        self._may_write(app)
        with self._railway() as railway:
            place = self._place_of(railway)
            if place is None:
                if serving:
                    raise TargetError(f"{app}: {serving[0]} has no ready instance to route to", "launch it first")
                return
            if serving:
                self._switch(railway, place, app, serving[0])
            else:
                self._take_down(railway, place, app)

    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:  # noqa: ARG002
        """Cancel a deployment in progress. Railway itself stops the deployment that it has replaced."""
        app, name = revision.app, revision.id
        self._may_write(app)
        if self.observe(app).traffic.weights.get(name):
            if keep:
                return
            raise TargetError(f"{app}: {name} gets all the traffic and cannot be retired", "route to another one first")
        with self._railway() as railway:
            place = self._place_of(railway)
            going = deployments.going(railway.instance(place)) if place else None
            if going and deployments.revision_of(railway, app, going) == name:
                railway.end(going)
        self._prepared.pop(name, None)

    def logs(
        self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        with self._railway() as railway:
            place = self._place_of(railway)
            service = railway.instance(place) if place else None
            found = [one for one in (deployments.live(service), deployments.going(service)) if one] if service else []
            named = [(name, one) for one in found if (name := deployments.revision_of(railway, app, one))]
            wanted = [(name, one) for name, one in named if revision is None or revision in name]
            maskers = {one.id: railway.masker(one.id) for _, one in wanted}
        since: dict[str, str] = {}
        while True:
            for name, one in wanted:
                with self._railway() as railway:
                    entries = railway.log(one.id, lines, since.get(one.id))
                before = since.get(one.id, "")
                for at, line in entries:
                    if at > before:
                        since[one.id] = at
                        yield LogLine(f"{name}-{one.id[:8]}", maskers[one.id](line), datetime.fromisoformat(at))
            if not follow:
                return
            time.sleep(self.poll)

    # --- switching ---------------------------------------------------------------------------------------------

    def _switch(self, railway: Railway, place: Place, app: str, revision: str) -> None:
        """Switch by a new deployment: a rollback to a kept earlier one, or a deployment of the commit or image."""
        service = railway.instance(place)
        live, going = deployments.live(service), deployments.going(service)
        if live and live.status in SERVING and deployments.revision_of(railway, app, live) == revision:
            return
        if live and deployments.revision_of(railway, app, live) is None:
            with self._writing(app) as state:
                state.others = live.id  # it served before Headway's first deployment
        if going and deployments.revision_of(railway, app, going) == revision:  # its run has died
            self._follow(railway, app, going.id)
            return
        if going:  # of a run that died: it would replace what is deployed now
            railway.end(going)
        for _ in range(ROUNDS):
            try:
                made = self._deploy(railway, place, app, revision)
                break
            except Unsure as unsure:
                failure = unsure
                time.sleep(self.poll)
                after = railway.instance(place).latest
                if after and (not service.latest or after.id != service.latest.id):
                    made = after.id
                    break
        else:
            raise failure
        self._follow(railway, app, made)

    def _deploy(self, railway: Railway, place: Place, app: str, revision: str) -> str:
        """Deploy the revision, and return the id of the deployment."""
        kept = self._kept(railway, place, app, revision)
        if kept:
            before = railway.instance(place).latest
            self._may_write(app)
            railway.roll_back(kept.id)
            return deployments.newer(railway, place, before, self.poll)
        if revision not in self._prepared:
            raise TargetError(
                f"{app}: {revision} has no ready instance to route to: Railway has kept no deployment of it",
                "launch it first",
            )
        prepared, spec = self._prepared[revision]
        self._configure(railway, place, prepared, spec)
        self._may_write(app)
        return railway.deploy(place, prepared.sha if spec.artifact.kind == "bundle" else None)

    def _kept(self, railway: Railway, place: Place, app: str, revision: str) -> Deployment | None:
        """The newest earlier deployment of the revision that Railway can still roll back to."""
        prepared = self._prepared.get(revision)
        for one in railway.deployments(place):
            if not one.can_roll_back or one.status in GOING:
                continue
            if prepared is None:
                if deployments.revision_of(railway, app, one) == revision:
                    return one
            elif deployments.is_of(one, prepared[1], prepared[0].sha) and railway.has(one.id, self._values(*prepared)):
                return one  # with the current secrets
        return None

    def _values(self, revision: Revision, spec: LaunchSpec) -> dict[str, str]:
        values = {name: str(value) for name, value in spec.env.items()} | self._identity(revision, spec)
        # Names of the secrets, whose values are masked in its log.
        return values | ({SECRETS: ",".join(sorted(spec.secrets))} if spec.secrets else {})

    def _configure(self, railway: Railway, place: Place, revision: Revision, spec: LaunchSpec) -> None:
        wanted: dict[str, object] = {
            "healthcheckPath": spec.health.path,
            "healthcheckTimeout": math.ceil(spec.health.startup),
            "drainingSeconds": math.ceil(spec.drain),
        }
        if self.overlap is not None:
            wanted["overlapSeconds"] = self.overlap
        if spec.run:
            wanted["startCommand"] = spec.run
        if spec.artifact.kind == "image":
            wanted["source"] = {"image": spec.artifact.location}
            if self.username and self.password:
                password = self.password.get_secret_value()
                wanted["registryCredentials"] = {"username": self.username, "password": password}
        railway.configure(place, wanted)
        railway.set_variables(place, self._values(revision, spec))

    def _follow(self, railway: Railway, app: str, deployment: str) -> None:
        deployments.follow(railway, app, deployment, timeout=self.timeout, poll=self.poll)

    def _take_down(self, railway: Railway, place: Place, app: str) -> None:
        live = deployments.live(railway.instance(place))
        if live is None or deployments.revision_of(railway, app, live) is None:
            return  # foreign deployments are not changed
        others = self._read(app).others
        before = next((one for one in railway.deployments(place) if one.id == others), None) if others else None
        if before and before.can_roll_back:
            latest = railway.instance(place).latest
            railway.roll_back(before.id)
            self._follow(railway, app, deployments.newer(railway, place, latest, self.poll))
        else:
            railway.end(live)

    # --- where -------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"Railway service {self.service}" + (f" in {self.environment}" if self.environment else "")

    def _railway(self) -> Railway:
        token = self.token.get_secret_value()
        header = {"Authorization": f"Bearer {token}"} if self.account else {"Project-Access-Token": token}
        secrets = [token, *([self.password.get_secret_value()] if self.password else []), *self._secrets]
        return Railway(Api("Railway", self.url, header, secrets), self._where)

    def _place_of(self, railway: Railway) -> Place | None:
        """Ids of service and environment; None if an ephemeral environment does not exist yet. Raises TargetError."""
        if self._located is None:
            project, environment = (self.project, self.environment) if self.account else railway.token()
            if project is None:
                raise TargetError(f"{self._where}: no project: the token is of an account", "give the block `project`")
            if self.project and self.project != project:
                raise TargetError(
                    f"{self._where}: the token is of project {project}, the block of {self.project}",
                    "make a token in that project's settings",
                )
            name = railway.project(project)
            environments = railway.environments(project)
            found = _id(environments, self.environment or environment)
            if found is None and self.ephemeral_of:
                return None
            if found is None or (not self.account and found != environment):
                of = f"; the token is of {environments.get(environment or '', environment)}" if not self.account else ""
                raise TargetError(
                    f"{self._where}: not an environment for it in project {name}, which has: "
                    f"{', '.join(environments.values())}{of}",
                    "correct `environment`, or make a token for that one",
                )
            services = railway.services(project)
            service = _id(services, self.service)
            if service is None:
                raise TargetError(
                    f"{self._where}: project {name} has no such service; it has: {', '.join(services.values())}",
                    "is it the right project?",
                )
            self._located = Place(project, found, service)
        return self._located

    def _ephemeral(self, railway: Railway) -> Place:
        """Create the ephemeral environment."""
        if not (self.account and self.project and self.environment and self.ephemeral_of):
            raise TargetError(
                f"{self._where}: an ephemeral environment needs a token of the account, `project` and `environment`",
                "a project token cannot make environments",
            )
        source = _id(railway.environments(self.project), self.ephemeral_of)
        if source is None:
            raise TargetError(f"{self._where}: no environment {self.ephemeral_of} to copy", "correct `ephemeral_of`")
        railway.create_environment(self.project, self.environment, source)
        place = self._place_of(railway)
        assert place is not None  # it was just created
        return place

    def _domain(self, service: Service) -> str | None:
        return self.domain or next(iter(service.domains), None)


def _id(named: dict[str, str], wanted: str | None) -> str | None:
    """Id of the object with this name or id."""
    return next((one for one, name in named.items() if wanted in (one, name)), None)
