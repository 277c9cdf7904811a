"""Deployments of one Vercel project.

Production is a deployment built for production and *staged*: built once, smoke-tested at its own URL, then promoted
without another build. Other environments (staging, previews) are preview deployments with an alias. The revision of a
deployment is in its `meta`, the serving deployment in the domain's alias: all state is read from Vercel.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from blocks.targets._hosted import LAST_LINES, Api, Hosted, Token, Unsure, sendable
from blocks.targets.vercel import source
from blocks.targets.vercel.client import WAITING, Deployment, Vercel
from blocks.targets.vercel.traffic_switch import TrafficSwitch
from headway.build import bundles
from headway.domain.errors import TargetError, UsageError
from headway.domain.log_lines import LogLine
from headway.domain.plan import Plan, Rehearse, Route
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Capability, Instance, InstanceReadiness, Observation, Traffic

__all__ = ["VercelTarget"]

ROUNDS = 3  # attempts to create a deployment after a lost response
BYPASS = "x-vercel-protection-bypass"
WHOLE = 100


class VercelTarget(Hosted):
    """A Vercel project: its production domains, or an alias on preview deployments.

    Weighted routing needs rolling releases (Pro and Enterprise), and uses the percentages of their stages.
    """

    _block_type_name = "Headway Vercel Target"
    _block_type_slug = "vercel"
    _description = "Deploys apps to a Vercel project."

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.ATOMIC_SWITCH,
            Capability.WEIGHTED_ROUTING,
            Capability.SESSIONS,
            Capability.PREVIEW,
            Capability.LOGS,
        }
    )

    token: Token = Field(description="access token. Its scope may be the project's team")
    project: str = Field(min_length=1, description="name or id of the project")
    domain: str = Field(
        pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?$",
        description="host name of the app: a production domain of the project, or the alias for previews",
    )
    environment: Literal["production", "preview"] = Field(
        default="production", description="environment of the project whose variables are used"
    )
    team: str | None = Field(default=None, description="slug or id (team_...) of the team. Default: the token's user")
    from_git: bool = Field(
        default=False,
        description="let Vercel fetch the commit from its linked repository, instead of uploading the files",
    )
    # Prefect does not detect a secret in a union with a Token, and would store the mask instead of the value.
    bypass: SecretStr | None = Field(
        default=None, description="secret with which smoke tests bypass Deployment Protection (for automation)"
    )
    url: str = Field(default="https://api.vercel.com", pattern="^https?://", description="URL of the API")

    @field_validator("bypass")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        """An empty field of a form is an empty string."""
        return sendable(value) if value and value.get_secret_value().strip() else None

    @property
    def request_headers(self) -> dict[str, str]:
        return {BYPASS: self.bypass.get_secret_value()} if self.bypass else {}

    # --- the port ----------------------------------------------------------------------------------------------

    def check(self, app: str, plan: Plan) -> None:  # noqa: ARG002  # one project, whatever the app is called
        with self._vercel() as vercel:
            project = vercel.project()
            if self._production:
                vercel.has_domain(project, self.domain)
                if project.get("autoAssignCustomDomains", True):
                    raise UsageError(
                        f"{vercel.where}: gives its domains to every new production deployment, before it is tested",
                        "in its settings, Environments, Production: turn off auto-assigning of production domains",
                    )
            elif vercel.is_production(project, self.domain):
                raise UsageError(
                    f"{vercel.where}: {self.domain} is a production domain, and a preview would get it",
                    "give previews an alias of their own",
                )
            if wanted := _shares(plan):
                self._switch(vercel, project).stages(wanted, plan.strategy)

    def observe(self, app: str) -> Observation:
        state = self._read(app)
        with self._vercel() as vercel:
            project = vercel.project()
            share = vercel.share(project) if self._production else None
            serving = (
                {share.base: WHOLE - share.percent, share.canary: share.percent}
                if share
                else {live: WHOLE}
                if (live := vercel.alias(self.domain))
                else {}
            )
            known: dict[str, Deployment] = {}
            weights: dict[str, int] = {}
            for deployment_id, weight in serving.items():
                found = vercel.deployment(deployment_id)
                if found and found.meta.get("headwayApp") == app:  # foreign deployments are no rollback targets
                    known[found.meta["headwayRevision"]] = found
                    weights[found.meta["headwayRevision"]] = weight
            for revision, deployment_id in state.launched.items():
                if revision not in known and (found := vercel.deployment(deployment_id)):
                    known[revision] = found
        if sum(weights.values()) != WHOLE:  # a foreign deployment has a share
            weights = {}
        shown = state.preview if state.preview in known else None
        return Observation(
            app=app,
            url=f"https://{self.domain}" if known else None,
            preview_url=known[shown].url if shown else None,
            traffic=Traffic(weights=weights, preview=shown, sticky=share is not None),
            instances={
                revision: (Instance(name=f"{revision}-{one.id}", address=_host(one.url), ready=one.state == "READY"),)
                for revision, one in known.items()
            },
        )

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        self._launchable(spec)
        self._may_write(revision.app)
        with self._vercel() as vercel:
            project = vercel.project()
            made = self._found(vercel, project, revision, spec)
            if made is None:
                self._tell(vercel, project, revision, spec)
                made = self._made(vercel, project, revision, spec)
        with self._writing(revision.app) as state:
            state.launched[revision.id] = made.id

    def missing(self, spec: LaunchSpec) -> Refusal | None:
        return None if self.from_git else bundles.refusal(spec.artifact)

    def ready(self, revision: Revision) -> InstanceReadiness:
        self._pace()
        with self._vercel() as vercel:
            found = self._of(vercel, revision.app, revision.id)
            if found is None:
                return InstanceReadiness(wanted=1, ready=0, detail="there is no deployment of it: launch it first")
            if found.state in WAITING:
                return InstanceReadiness(wanted=1, ready=0, detail=f"{found.id} is {found.state}")
            if found.state != "READY":
                log = " | ".join(vercel.log(found.id, LAST_LINES)) or "its build log is empty"
                why = f"{found.id} is {found.state}: {found.why or 'no reason given'}: {log}"
                return InstanceReadiness(wanted=1, ready=0, failed=True, detail=vercel.api.words(why))
        path, timeout = found.meta.get("headwayHealth", "/"), float(found.meta.get("headwayTimeout", "5"))
        refusal = self._unhealthy(found.url + path, timeout, (revision.sha, revision.id))
        detail = refusal.what if refusal else ""
        if not self.bypass and "answers 401" in detail:
            detail += ": protected; give the target a `bypass`"
        return InstanceReadiness(wanted=1, ready=0 if refusal else 1, detail=detail)

    def route(self, app: str, traffic: Traffic) -> None:
        serving = self._routable(app, traffic)
        self._may_write(app)
        with self._vercel() as vercel:
            project = vercel.project()
            found = {revision: self._ready_one(vercel, app, revision) for revision in serving}
            shown = traffic.preview and self._ready_one(vercel, app, traffic.preview)
            self._remember_others(vercel, app)
            switch = self._switch(vercel, project)
            match serving:
                case []:
                    switch.take_down(self._read(app).others)
                case [one]:
                    switch.to(found[one])
                case [first, second]:
                    weights = {found[one].id: traffic.weights[one] for one in (first, second)}
                    switch.split(weights)
                case _:
                    raise TargetError(f"{app}: Vercel splits traffic between two deployments, not {len(serving)}")
        with self._writing(app) as state:
            state.preview = traffic.preview if shown else None
            state.launched |= {revision: one.id for revision, one in found.items()}

    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:  # noqa: ARG002
        """Cancel a build in progress. A finished deployment stays: it costs nothing and is a rollback target."""
        app, name = revision.app, revision.id
        self._may_write(app)
        weight = self.observe(app).traffic.weights.get(name)
        if keep:
            return
        if weight:
            raise TargetError(
                f"{app}: {name} gets {weight} % of the traffic and cannot be retired", "route to another revision first"
            )
        with self._vercel() as vercel:
            launched = self._read(app).launched.get(name)
            found = vercel.deployment(launched) if launched else None
            if found and found.state in WAITING:
                vercel.cancel(found.id)
        with self._writing(app) as state:
            state.launched.pop(name, None)
            state.preview = None if state.preview == name else state.preview

    def logs(
        self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        seen = self.observe(app).instances
        names = [one.name for name, ours in seen.items() for one in ours if revision is None or revision in name]
        since: dict[str, int] = {}
        while True:
            for name in names:
                with self._vercel() as vercel:
                    events = vercel.events(name.rpartition("-")[2], lines, since.get(name))
                for at, line in events:
                    since[name] = max(since.get(name, 0), at + 1)
                    yield LogLine(name, line, datetime.fromtimestamp(at / 1000, UTC))
            if not follow:
                return
            time.sleep(self.poll)

    # --- launching ---------------------------------------------------------------------------------------------

    @property
    def _production(self) -> bool:
        return self.environment == "production"

    def _vercel(self) -> Vercel:
        secrets = [*(one.get_secret_value() for one in (self.token, self.bypass) if one), *self._secrets]
        api = Api("Vercel", self.url, {"Authorization": f"Bearer {self.token.get_secret_value()}"}, secrets)
        return Vercel(api, self.project, self.team)

    def _found(
        self, vercel: Vercel, project: dict[str, Any], revision: Revision, spec: LaunchSpec
    ) -> Deployment | None:
        """The newest deployment of the revision that has not failed and was built with the current secrets."""
        made = (one for one in self._listed(vercel, project, revision.app, revision.id) if self._fits(one, spec))
        return next((one for one in made if one.state == "READY" or one.state in WAITING), None)

    def _listed(self, vercel: Vercel, project: dict[str, Any], app: str, revision: str) -> Iterator[Deployment]:
        """Deployments of the revision, newest first."""
        for one, target in vercel.deployments(project):
            if one.is_of(app, revision) and (target == "production") is self._production:
                yield one

    def _fits(self, deployment: Deployment, spec: LaunchSpec) -> bool:
        return deployment.meta.get("headwaySecrets") == self._sealed(spec)

    def _of(self, vercel: Vercel, app: str, revision: str) -> Deployment | None:
        known = self._read(app).launched.get(revision)
        if known:
            return vercel.deployment(known)
        listed = self._listed(vercel, vercel.project(), app, revision)
        return next((one for one in listed if one.state == "READY"), None)

    def _ready_one(self, vercel: Vercel, app: str, revision: str) -> Deployment:
        found = self._of(vercel, app, revision)
        if found is None or found.state != "READY":
            state = f"{found.id} is {found.state}" if found else "there is no deployment of it"
            raise TargetError(f"{app}: {revision} has no ready instance to route to: {state}", "launch it first")
        return found

    def _tell(self, vercel: Vercel, project: dict[str, Any], revision: Revision, spec: LaunchSpec) -> None:
        """Set the variables; remove those that an earlier release has set and this one has not.

        A deployment keeps the variables of its build, so running deployments do not change.
        """
        mine = f"set by Headway for {spec.environment}"
        values = {name: str(value) for name, value in spec.env.items()} | self._identity(revision, spec)
        for one in vercel.variables(project):
            if one.get("comment") == mine and one["key"] not in values:
                vercel.remove_variable(project, one["id"])
        vercel.set_variables(
            project,
            [
                {
                    "key": name,
                    "value": value,
                    "type": "sensitive" if name in spec.secrets else "encrypted",
                    "target": [self.environment],
                    "comment": mine,
                }
                for name, value in values.items()
            ],
        )

    def _made(self, vercel: Vercel, project: dict[str, Any], revision: Revision, spec: LaunchSpec) -> Deployment:
        files: dict[str, Path] = {}
        wanted: dict[str, Any] = {
            "name": project["name"],
            "project": project["id"],
            "meta": {
                "headwayApp": revision.app,
                "headwayEnvironment": spec.environment,
                "headwayRevision": revision.id,
                "headwayRelease": spec.release,
                "headwaySecrets": self._sealed(spec),
                "headwayHealth": spec.health.path,
                "headwayTimeout": f"{spec.health.timeout:g}",
            },
        }
        if self._production:
            wanted["target"] = "production"
        if self.from_git:
            wanted["gitSource"] = source.git_source(vercel.where, project.get("link"), revision.sha)
        else:
            if refusal := self.missing(spec):
                raise TargetError(f"{vercel.where}: {refusal.what}", refusal.hint)
            wanted["files"], files = source.files(Path(spec.artifact.location))
            wanted["gitMetadata"] = {"commitSha": revision.sha}
        for _ in range(ROUNDS):
            try:
                return vercel.create(wanted, files)
            except Unsure as unsure:
                failure = unsure
                if made := self._found(vercel, project, revision, spec):
                    return made
        raise failure

    def _sealed(self, spec: LaunchSpec) -> str:
        """A hash that changes with a secret. Guessing a short secret from it would require the token."""
        values = json.dumps([(name, str(spec.env[name])) for name in sorted(spec.secrets)])
        return hmac.new(self.token.get_secret_value().encode(), values.encode(), "sha256").hexdigest()[:16]

    def _switch(self, vercel: Vercel, project: dict[str, Any]) -> TrafficSwitch:
        return TrafficSwitch(vercel, project, self.domain, self._production, self.poll)

    def _remember_others(self, vercel: Vercel, app: str) -> None:
        """Record the deployment that served before Headway's first: it is no rollback target."""
        live = vercel.alias(self.domain)
        if live is None:
            return
        found = vercel.deployment(live)
        if found is not None and found.meta.get("headwayApp") != app:
            with self._writing(app) as state:
                state.others = live


def _host(url: str) -> str:
    return url.removeprefix("https://")


def _shares(plan: Plan) -> set[int]:
    """Percentages of the new revision, except 0 and 100."""
    routed = [step.traffic for step in plan.steps if isinstance(step, Route)]
    routed += [step.low for step in plan.steps if isinstance(step, Rehearse)]
    return {traffic.weights.get(plan.new, 0) for traffic in routed} - {0, WHOLE}
