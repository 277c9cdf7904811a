"""Client of Vercel's REST API (https://vercel.com/docs/rest-api): the calls of a deployment, and their errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from blocks.targets._hosted import Api
from headway.domain.errors import TargetError, UsageError
from headway.system.http_client import Repeat

__all__ = ["WAITING", "Deployment", "Share", "Vercel"]

PAGES = 10  # of a list of deployments
PAGE = 100
ROUNDS = 3  # of files that Vercel lacks
UPLOADS = 8  # at once
WAITING = frozenset({"QUEUED", "INITIALIZING", "BUILDING", "ANALYZING", "DEPLOYING"})
LOG_EVENTS = frozenset({"command", "stdout", "stderr", "fatal", "exit"})  # kinds of events that are log lines


class Deployment(NamedTuple):
    """A deployment. The API names its id `uid` in a list and `id` in a single response."""

    id: str
    url: str
    state: str
    promoted: bool
    meta: Mapping[str, str]
    why: str

    @classmethod
    def of(cls, content: dict[str, Any]) -> Deployment:
        return cls(
            id=content.get("uid") or content["id"],
            url=f"https://{content['url']}",
            state=content["readyState"],
            promoted=content.get("readySubstate") == "PROMOTED",
            meta=content.get("meta") or {},
            why=content.get("errorMessage") or content.get("errorCode") or "",
        )

    def is_of(self, app: str, revision: str) -> bool:
        return self.meta.get("headwayApp") == app and self.meta.get("headwayRevision") == revision


class Share(NamedTuple):
    """A rolling release in progress: `canary` gets `percent` of the visitors, `base` the others."""

    base: str
    canary: str
    percent: int
    stage: int
    stages: list[int]


class Refusal(NamedTuple):
    """An error response."""

    status: int
    code: str
    message: str
    body: Any = None


class Vercel:
    """One project, of one team, on one connection."""

    def __init__(self, api: Api, project: str, team: str | None) -> None:
        self.api = api
        self._project = project
        self._team = team
        self._of_team = {"teamId" if (team or "").startswith("team_") else "slug": team} if team else {}

    def __enter__(self) -> Vercel:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.__exit__()

    @property
    def where(self) -> str:
        return f"Vercel project {self._project}" + (f" (team {self._team})" if self._team else "")

    # --- projects ----------------------------------------------------------------------------------------------

    def project(self) -> dict[str, Any]:
        found: dict[str, Any] | None = self._get(f"/v9/projects/{self._project}")
        if found is None:
            raise TargetError(
                f"{self.where}: there is none, or the token does not see it",
                "is `project` right, and is `team` the team that it belongs to?",
            )
        return found

    def is_production(self, project: dict[str, Any], domain: str) -> bool:
        """Whether this domain of the project is for production, not for a branch or another environment."""
        found = self._get(f"/v9/projects/{project['id']}/domains/{domain}")
        return found is not None and not found.get("gitBranch") and not found.get("customEnvironmentId")

    def has_domain(self, project: dict[str, Any], domain: str) -> None:
        """Raises UsageError, naming its domains, when this is no production domain of the project."""
        if not self.is_production(project, domain):
            listed = self._get(f"/v9/projects/{project['id']}/domains") or {"domains": []}
            names = ", ".join(one["name"] for one in listed["domains"]) or "none"
            raise UsageError(
                f"{self.where}: {domain} is no production domain of it; it has: {names}", "is it the right project?"
            )

    def variables(self, project: dict[str, Any]) -> list[dict[str, Any]]:
        return list((self._get(f"/v10/projects/{project['id']}/env") or {"envs": []})["envs"])

    def set_variables(self, project: dict[str, Any], values: list[dict[str, Any]]) -> None:
        path = f"/v10/projects/{project['id']}/env"
        content = self._ask("POST", path, params={"upsert": "true"}, json=values)
        for failed in content.get("failed", ()):
            raise TargetError(
                f"{self.where}: a variable was refused: {self.api.words(failed['error']['message'])}",
                "see the project's environment variables",
            )

    def remove_variable(self, project: dict[str, Any], variable: str) -> None:
        with suppress(_Gone):
            self._ask("DELETE", f"/v9/projects/{project['id']}/env/{variable}")

    # --- deployments -------------------------------------------------------------------------------------------

    def deployments(self, project: dict[str, Any]) -> Iterator[tuple[Deployment, str | None]]:
        """Deployments with their target, newest first, up to a limit of pages."""
        params: dict[str, Any] = {"projectId": project["id"], "limit": PAGE}
        for _ in range(PAGES):
            page = self._ask("GET", "/v7/deployments", params=params)
            for one in page["deployments"]:
                yield Deployment.of(one), one.get("target")
            if not page["pagination"]["next"]:
                return
            params["until"] = page["pagination"]["next"]

    def deployment(self, deployment: str) -> Deployment | None:
        found = self._get(f"/v13/deployments/{deployment}")
        return Deployment.of(found) if found else None

    def create(self, wanted: dict[str, Any], files: Mapping[str, Path]) -> Deployment:
        """Create a deployment. Uploads only the files that Vercel does not have, by SHA-1."""
        params = {"forceNew": "1", "skipAutoDetectionConfirmation": "1"}
        for _ in range(ROUNDS):
            answer = self._send("POST", "/v13/deployments", params=params, json=wanted, repeat=Repeat.IF_NOT_PROCESSED)
            if answer.is_success:
                return Deployment.of(self.api.content(answer))
            refusal = _refusal(answer)
            if refusal.code != "missing_files":
                raise self._error(refusal, "a deployment")
            with ThreadPoolExecutor(UPLOADS) as pool:
                list(pool.map(lambda sha: self._upload(sha, files[sha]), refusal.body["missing"]))
        raise TargetError(f"{self.where}: Vercel lacks files that were just sent", "try again")

    def _upload(self, sha: str, file: Path) -> None:
        headers = {"x-vercel-digest": sha, "content-type": "application/octet-stream"}
        self._ask("POST", "/v2/files", headers=headers, content=file.read_bytes())

    def cancel(self, deployment: str) -> None:
        with suppress(_Gone, TargetError):  # it has just finished
            self._ask("PATCH", f"/v12/deployments/{deployment}/cancel")

    def log(self, deployment: str, lines: int) -> list[str]:
        return [line for _, line in self.events(deployment, lines, None)]

    def events(self, deployment: str, lines: int, since: int | None) -> list[tuple[int, str]]:
        """Last lines of the log with their time in milliseconds, oldest first."""
        params: dict[str, Any] = {"limit": lines, "direction": "backward", "builds": 1}
        if since is not None:
            params["since"] = since
        events = self._get(f"/v3/deployments/{deployment}/events", params) or []
        found = [
            (one["created"], (one.get("text") or (one.get("payload") or {}).get("text") or "").rstrip())
            for one in events
            if one["type"] in LOG_EVENTS
        ]
        return sorted(((at, self.api.masker(line)) for at, line in found if line), key=lambda one: one[0])

    # --- who answers -------------------------------------------------------------------------------------------

    def alias(self, domain: str) -> str | None:
        """Id of the deployment that serves a domain."""
        found = self._get(f"/v4/aliases/{domain}")
        return found["deploymentId"] if found else None

    def assign(self, deployment: str, domain: str) -> None:
        self._ask("POST", f"/v2/deployments/{deployment}/aliases", json={"alias": domain})

    def take_down(self, deployment: str) -> None:
        """Remove the alias from its deployment."""
        for one in (self._get(f"/v2/deployments/{deployment}/aliases") or {"aliases": []})["aliases"]:
            with suppress(_Gone):
                self._ask("DELETE", f"/v2/aliases/{one['uid']}")

    def promote(self, project: dict[str, Any], deployment: str) -> None:
        self._ask("POST", f"/v10/projects/{project['id']}/promote/{deployment}", json={})

    def roll_back(self, project: dict[str, Any], deployment: str) -> None:
        """Roll back to a deployment that has been in production. Also ends a rolling release."""
        self._ask("POST", f"/v1/projects/{project['id']}/rollback/{deployment}", json={})

    def moved(self, domain: str, deployment: str) -> bool:
        """Whether the domain has moved to the deployment. Raises TargetError if Vercel failed to move it."""
        if self.alias(domain) == deployment:
            return True
        asked = self.project().get("lastAliasRequest") or {}
        if asked.get("toDeploymentId") == deployment and asked.get("jobStatus") in ("failed", "skipped"):
            raise TargetError(
                f"{self.where}: moving its domains to {deployment} {asked['jobStatus']}", "see its domains in Vercel"
            )
        return False

    # --- rolling releases --------------------------------------------------------------------------------------

    def stages(self, project: dict[str, Any]) -> list[dict[str, Any]]:
        content = self._get(f"/v1/projects/{project['id']}/rolling-release/config") or {}
        return list((content.get("rollingRelease") or {}).get("stages") or ())

    def share(self, project: dict[str, Any]) -> Share | None:
        """The rolling release in progress."""
        if not project.get("rollingRelease"):
            return None
        content = self._get(f"/v1/projects/{project['id']}/rolling-release", {"state": "ACTIVE"}) or {}
        now = content.get("rollingRelease")
        if not now or now["state"] != "ACTIVE" or not now["activeStage"]:
            return None
        return Share(
            base=now["currentDeployment"]["id"],
            canary=now["canaryDeployment"]["id"],
            percent=now["activeStage"]["targetPercentage"],
            stage=now["activeStage"]["index"],
            stages=[stage["targetPercentage"] for stage in now["stages"]],
        )

    def start(self, project: dict[str, Any], canary: str) -> None:
        self._roll(project, "start", {"canaryDeploymentId": canary})

    def approve(self, project: dict[str, Any], canary: str, stage: int) -> None:
        self._roll(project, "approve-stage", {"nextStageIndex": stage, "canaryDeploymentId": canary})

    def complete(self, project: dict[str, Any], canary: str) -> None:
        self._roll(project, "complete", {"canaryDeploymentId": canary})

    def _roll(self, project: dict[str, Any], verb: str, body: dict[str, Any]) -> None:
        self._ask("POST", f"/v1/projects/{project['id']}/rolling-release/{verb}", json=body)

    # --- asking ------------------------------------------------------------------------------------------------

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET a path; None if it does not exist."""
        try:
            return self._ask("GET", path, params=dict(params or {}))
        except _Gone:
            return None

    def _ask(self, method: str, path: str, **sent: Any) -> Any:
        answer = self._send(method, path, **sent)
        if answer.is_success:
            return self.api.content(answer) if answer.content else {}
        refusal = _refusal(answer)
        if refusal.status == httpx.codes.NOT_FOUND:
            raise _Gone(f"{self.where}: {self.api.words(refusal.message)}", "was it deleted in Vercel?")
        raise self._error(refusal, f"{method} {path}")

    def _send(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, **sent: Any) -> httpx.Response:
        return self.api.ask(method, path, params={**(params or {}), **self._of_team}, **sent)

    def _error(self, refusal: Refusal, asked: str) -> TargetError:
        message = self.api.words(refusal.message)
        match refusal.status:
            case httpx.codes.UNAUTHORIZED:
                return TargetError(f"{self.where}: Vercel refuses the token: {message}", "make a new one for the block")
            case httpx.codes.FORBIDDEN if (refusal.body or {}).get("invalidToken"):
                return TargetError(f"{self.where}: Vercel refuses the token: {message}", "make a new one for the block")
            case httpx.codes.FORBIDDEN:
                return TargetError(
                    f"{self.where}: the token may not do this ({asked}): {message}",
                    "its scope has to be the project's team, and its user a member who may deploy",
                )
            case httpx.codes.PAYMENT_REQUIRED:
                return TargetError(f"{self.where}: its plan does not allow it: {message}", "see the plan and its usage")
            case status:
                return TargetError(
                    f"{self.where}: Vercel refuses {asked} with {status} {refusal.code}: {message}", "see its settings"
                )


class _Gone(TargetError):
    """The object does not exist."""


def _refusal(answer: httpx.Response) -> Refusal:
    try:
        error = answer.json()["error"]
        return Refusal(answer.status_code, str(error.get("code", "")), str(error.get("message", "")), error)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refusal(answer.status_code, "", answer.text)
