"""Client of Railway's GraphQL API (https://docs.railway.com/integrations/api): the calls of a deployment, and errors.

Where documentation and schema differ (the result of `deploymentRollback`), the schema is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from blocks.targets._hosted import Api
from headway.domain.errors import TargetError
from headway.system.http_client import Repeat
from headway.system.redaction import Masker

__all__ = ["BROKEN", "DOCUMENTS", "GOING", "SECRETS", "SERVING", "Deployment", "Place", "Railway"]

PAGE = 50
PAGES = 10
GOING = frozenset({"QUEUED", "INITIALIZING", "BUILDING", "DEPLOYING", "WAITING", "NEEDS_APPROVAL"})
SERVING = frozenset({"SUCCESS", "SLEEPING"})
SECRETS = "HEADWAY_SECRETS"  # variable with the names of the secret ones
BROKEN = frozenset({"FAILED", "CRASHED", "SKIPPED", "REMOVED", "REMOVING"})

DOCUMENTS = {
    "token": "query token { projectToken { projectId environmentId } }",
    "project": "query project($project: String!) { project(id: $project) { id name } }",
    "environments": """query environments($project: String!, $first: Int, $after: String) {
        environments(projectId: $project, first: $first, after: $after) {
            edges { node { id name isEphemeral } } pageInfo { hasNextPage endCursor } } }""",
    "services": """query services($project: String!, $first: Int, $after: String) {
        project(id: $project) { services(first: $first, after: $after) {
            edges { node { id name } } pageInfo { hasNextPage endCursor } } } }""",
    "instance": """query instance($service: String!, $environment: String!) {
        serviceInstance(serviceId: $service, environmentId: $environment) {
            source { image repo }
            domains { customDomains { domain } serviceDomains { domain } }
            latestDeployment { id status createdAt meta canRollback }
            activeDeployments { id status createdAt meta canRollback } } }""",
    "volumes": """query volumes($environment: String!, $first: Int, $after: String) {
        environment(id: $environment) { volumeInstances(first: $first, after: $after) {
            edges { node { serviceId mountPath isPendingDeletion } } pageInfo { hasNextPage endCursor } } } }""",
    "deployments": """query deployments($input: DeploymentListInput!, $first: Int, $after: String) {
        deployments(input: $input, first: $first, after: $after) {
            edges { node { id status createdAt meta canRollback } } pageInfo { hasNextPage endCursor } } }""",
    "deployment": """query deployment($id: String!) {
        deployment(id: $id) { id status createdAt meta canRollback } }""",
    "snapshot": "query snapshot($id: String!) { deploymentSnapshot(deploymentId: $id) { variables } }",
    "build log": """query buildLog($id: String!, $limit: Int) {
        buildLogs(deploymentId: $id, limit: $limit) { timestamp message } }""",
    "log": """query log($id: String!, $limit: Int, $startDate: DateTime) {
        deploymentLogs(deploymentId: $id, limit: $limit, startDate: $startDate) { timestamp message } }""",
    "configure": """mutation configure($service: String!, $environment: String!, $input: ServiceInstanceUpdateInput!) {
        serviceInstanceUpdate(serviceId: $service, environmentId: $environment, input: $input) }""",
    "set variables": """mutation setVariables($input: VariableCollectionUpsertInput!) {
        variableCollectionUpsert(input: $input) }""",
    "deploy": """mutation deploy($service: String!, $environment: String!, $commit: String) {
        serviceInstanceDeployV2(serviceId: $service, environmentId: $environment, commitSha: $commit) }""",
    "roll back": "mutation rollBack($id: String!) { deploymentRollback(id: $id) }",
    "remove": "mutation remove($id: String!) { deploymentRemove(id: $id) }",
    "cancel": "mutation cancel($id: String!) { deploymentCancel(id: $id) }",
    "create environment": """mutation createEnvironment($input: EnvironmentCreateInput!) {
        environmentCreate(input: $input) { id } }""",
    "delete environment": "mutation deleteEnvironment($id: String!) { environmentDelete(id: $id) }",
}


class Place(NamedTuple):
    """A service in an environment of a project, by id."""

    project: str
    environment: str
    service: str


class Deployment(NamedTuple):
    id: str
    status: str
    created: str
    """Creation time, ISO 8601 in UTC, so that it sorts by time."""
    meta: dict[str, Any]
    can_roll_back: bool

    @classmethod
    def of(cls, node: dict[str, Any]) -> Deployment:
        return cls(node["id"], node["status"], node["createdAt"], node.get("meta") or {}, node["canRollback"])


class Instance(NamedTuple):
    """Current state of a service in an environment."""

    repo: str | None
    domains: list[str]
    latest: Deployment | None
    active: list[Deployment]


class Railway:
    """A connection to the API. Requests are named as in DOCUMENTS."""

    def __init__(self, api: Api, where: str) -> None:
        self.api = api
        self.where = where

    def __enter__(self) -> Railway:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.__exit__()

    # --- where -------------------------------------------------------------------------------------------------

    def token(self) -> tuple[str, str]:
        """Project and environment of a project token."""
        token = self._ask("token")["projectToken"]
        return token["projectId"], token["environmentId"]

    def project(self, project: str) -> str:
        """Name of the project. Raises TargetError when it does not exist."""
        return str(self._ask("project", project=project)["project"]["name"])

    def environments(self, project: str) -> dict[str, str]:
        """Id -> name."""
        return {one["id"]: one["name"] for one in self._all("environments", "environments", project=project)}

    def services(self, project: str) -> dict[str, str]:
        """Id -> name."""
        return {one["id"]: one["name"] for one in self._all("services", "project/services", project=project)}

    def volume(self, place: Place) -> str | None:
        """Mount path of the service's volume; None without one."""
        found = self._all("volumes", "environment/volumeInstances", environment=place.environment)
        mounted = (one for one in found if one["serviceId"] == place.service and not one["isPendingDeletion"])
        return next((str(one["mountPath"]) for one in mounted), None)

    def create_environment(self, project: str, name: str, source: str) -> str:
        wanted = {"projectId": project, "name": name, "sourceEnvironmentId": source, "ephemeral": True}
        made = self._ask(
            "create environment", repeat=Repeat.IF_NOT_PROCESSED, input={**wanted, "skipInitialDeploys": True}
        )
        return str(made["environmentCreate"]["id"])

    def delete_environment(self, environment: str) -> None:
        self._ask("delete environment", id=environment)

    # --- what is there -----------------------------------------------------------------------------------------

    def instance(self, place: Place) -> Instance:
        asked = self._ask("instance", service=place.service, environment=place.environment)["serviceInstance"]
        domains = [*asked["domains"]["customDomains"], *asked["domains"]["serviceDomains"]]
        return Instance(
            repo=(asked["source"] or {}).get("repo"),
            domains=[one["domain"] for one in domains],
            latest=Deployment.of(asked["latestDeployment"]) if asked["latestDeployment"] else None,
            active=[Deployment.of(one) for one in asked["activeDeployments"]],
        )

    def deployments(self, place: Place) -> Iterator[Deployment]:
        """The newest first."""
        wanted = {"projectId": place.project, "environmentId": place.environment, "serviceId": place.service}
        for one in self._all("deployments", "deployments", input=wanted):
            yield Deployment.of(one)

    def deployment(self, deployment: str) -> Deployment:
        return Deployment.of(self._ask("deployment", id=deployment)["deployment"])

    def identity(self, deployment: str) -> dict[str, str]:
        """Headway's own variables in the snapshot of a deployment: HEADWAY_REVISION and others."""
        snapshot = self._ask("snapshot", id=deployment)["deploymentSnapshot"]
        variables = (snapshot or {}).get("variables") or {}
        return {name: str(value) for name, value in variables.items() if name.startswith("HEADWAY_")}

    def masker(self, deployment: str) -> Masker:
        """Masker for the secrets of a deployment, for its log."""
        snapshot = self._ask("snapshot", id=deployment)["deploymentSnapshot"]
        variables = (snapshot or {}).get("variables") or {}
        named = str(variables.get(SECRETS, "")).split(",")
        return Masker(str(variables[name]) for name in named if name in variables)

    def has(self, deployment: str, values: dict[str, str]) -> bool:
        """Whether the deployment was created with these variables. References to other variables are not compared."""
        snapshot = self._ask("snapshot", id=deployment)["deploymentSnapshot"]
        variables = (snapshot or {}).get("variables") or {}
        return all("${{" in value or variables.get(name) == value for name, value in values.items())

    def build_log(self, deployment: str, lines: int) -> list[str]:
        entries = self._ask("build log", id=deployment, limit=lines)["buildLogs"]
        return [self.api.masker(one["message"].rstrip()) for one in entries]

    def log(self, deployment: str, lines: int, since: str | None = None) -> list[tuple[str, str]]:
        """Last lines of the log with their time, oldest first."""
        entries = self._ask("log", id=deployment, limit=lines, startDate=since)["deploymentLogs"]
        return sorted((one["timestamp"], self.api.masker(one["message"].rstrip())) for one in entries)

    # --- what is changed ---------------------------------------------------------------------------------------

    def configure(self, place: Place, wanted: dict[str, Any]) -> None:
        self._ask("configure", service=place.service, environment=place.environment, input=wanted)

    def set_variables(self, place: Place, values: dict[str, str]) -> None:
        """Set variables without a deployment. Others stay: deleting one would deploy, and some cannot be read."""
        wanted = {"projectId": place.project, "environmentId": place.environment, "serviceId": place.service}
        self._ask("set variables", input={**wanted, "variables": values, "skipDeploys": True})

    def deploy(self, place: Place, commit: str | None) -> str:
        """Deploy, and return the id. Raises Unsure if the response is lost."""
        asked = {"service": place.service, "environment": place.environment, "commit": commit}
        return str(self._ask("deploy", repeat=Repeat.IF_NOT_PROCESSED, **asked)["serviceInstanceDeployV2"])

    def roll_back(self, deployment: str) -> None:
        """Create a deployment with the image and variables of this one. Raises Unsure if the response is lost."""
        self._ask("roll back", repeat=Repeat.IF_NOT_PROCESSED, id=deployment)

    def end(self, deployment: Deployment) -> None:
        """Stop a deployment, or cancel it when it has not started."""
        self._ask("cancel" if deployment.status in GOING - {"DEPLOYING"} else "remove", id=deployment.id)

    # --- asking ------------------------------------------------------------------------------------------------

    def _all(self, name: str, path: str, **variables: Any) -> Iterator[dict[str, Any]]:
        """Every node of a connection, page by page."""
        after = None
        for _ in range(PAGES):
            page: Any = self._ask(name, **variables, first=PAGE, after=after)
            for part in path.split("/"):
                page = page[part]
            yield from (edge["node"] for edge in page["edges"])
            if not page["pageInfo"]["hasNextPage"]:
                return
            after = page["pageInfo"]["endCursor"]

    def _ask(self, name: str, *, repeat: Repeat = Repeat.IDEMPOTENT, **variables: Any) -> dict[str, Any]:
        body = {"query": DOCUMENTS[name], "variables": variables}
        answer = self.api.ask("POST", "", json=body, repeat=repeat)
        content = self.api.content(answer)
        errors = content.get("errors") or []
        data = content.get("data")
        if errors or not isinstance(data, dict):
            message = "; ".join(str(one.get("message")) for one in errors)
            raise self._error(name, answer.status_code, self.api.words(message))
        return data

    def _error(self, asked: str, status: int, message: str) -> TargetError:
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN) or REFUSED.search(message):
            return TargetError(
                f"{self.where}: Railway refuses the token, or it may not do this ({asked}): {message}",
                "a project token is for one environment of one project; for any other set `account` as well",
            )
        for pattern, hint in HINTS:
            if pattern.search(message):
                return TargetError(f"{self.where}: {message} ({asked})", hint)
        return TargetError(f"{self.where}: Railway refuses to {asked}: {message}", "see the service in Railway")


REFUSED = re.compile("not authorized|unauthorized|not authenticated|token not found", re.IGNORECASE)
HINTS = (
    (re.compile("commit not found", re.IGNORECASE), "push it to the repository that the service is connected with"),
    (re.compile("not found", re.IGNORECASE), "are the ids of the block right, and is it still there?"),
    (re.compile(r"\b(plan|upgrade|limit|free.tier|peak hours)\b", re.IGNORECASE), "see the plan and its usage"),
)
