"""A stand-in for Railway's GraphQL API: one project, its environments, one service, real processes.

Documents are validated against railway.graphql and executed by graphql-core, so what the public schema does not know is
refused as Railway does. How deployments behave is what docs.railway.com says of them: a new one replaces the old one
when it has answered its health path, with its image and variables it can be brought back, a volume excludes two.
"""

# ruff: noqa: A002, A006, N803  # arguments have the names of the schema

from __future__ import annotations

import http.server
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graphql import GraphQLError, build_schema, graphql_sync

from tests.standins.hosted_apps import PYTHON, App, Edge, Trust, serving

__all__ = ["ACCOUNT", "PRODUCTION", "PROJECT", "SCHEMA", "STAGING", "TOKENS", "Railway", "railway"]

PROJECT, SERVICE = "11111111-aaaa", "33333333-cccc"
STAGING, PRODUCTION = "22222222-0001", "22222222-0002"
TOKENS = {STAGING: "5ec7e7-of-staging", PRODUCTION: "5ec7e7-of-production"}  # project tokens
ACCOUNT = "5ec7e7-of-the-account"
SCHEMA = build_schema(Path(__file__).with_name("railway.graphql").read_text())
GOING = ("QUEUED", "INITIALIZING", "BUILDING", "DEPLOYING", "WAITING", "NEEDS_APPROVAL")


@dataclass
class Made:
    """One deployment."""

    id: str
    environment: str
    created: str
    meta: dict[str, Any]
    settings: dict[str, Any]
    variables: dict[str, str]
    place: Path
    status: str = "QUEUED"
    app: App | None = None
    kept: bool = False
    build_log: list[tuple[str, str]] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.build_log.append((now(), line))

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status,
            "createdAt": self.created,
            "meta": self.meta,
            "canRollback": self.kept,
            "canRedeploy": True,
        }


@dataclass
class Environment:
    """One environment of the project, and the service in it."""

    id: str
    name: str
    ephemeral: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    made: list[Made] = field(default_factory=list)
    domain: str | None = None
    edge: Edge | None = None
    volume: str | None = None

    @property
    def active(self) -> list[Made]:
        return [one for one in self.made if one.status in ("SUCCESS", "SLEEPING")]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Railway:
    """What it deploys: commits of `repository`, or `images` by name, each a directory with an app.py."""

    def __init__(self, place: Path, trust: Trust) -> None:
        self.place = place
        self.trust = trust
        self.url = ""
        self.repository: Path | None = None
        self.commits: dict[str, str] = {}  # requested ref -> sha in the repository
        self.images: dict[str, Path] = {}
        self.approval = False
        self.slow = 0.05  # seconds that a build takes at least
        self.faults: list[tuple[int, dict[str, str]] | str] = []
        self.operations: list[str] = []
        self.lock = threading.RLock()
        self._number = itertools.count(1)
        self.environments: dict[str, Environment] = {}
        for number, name in ((STAGING, "staging"), (PRODUCTION, "production")):
            self._open(Environment(number, name))

    def _open(self, environment: Environment) -> None:
        edge = Edge(self.trust, lambda _: self._serve(environment))
        environment.edge, environment.domain = edge, edge.host
        self.environments[environment.id] = environment

    def _serve(self, environment: Environment) -> App | tuple[int, bytes]:
        app = next((one.app for one in reversed(environment.active) if one.app), None)
        return app or (404, b"Application not found")

    def close(self) -> None:
        for environment in self.environments.values():
            for made in environment.made:
                if made.app:
                    made.app.stop()
            if environment.edge:
                environment.edge.close()

    # --- deploying ---------------------------------------------------------------------------------------------

    def deploy(self, environment: Environment, meta: dict[str, Any], variables: Mapping[str, str]) -> Made:
        number = f"{next(self._number):08d}-dddd"
        settings, told = dict(environment.settings), dict(variables)
        made = Made(number, environment.id, now(), meta, settings, told, self.place / number)
        made.place.mkdir(parents=True)
        environment.made.append(made)
        if self.approval:
            made.status = "NEEDS_APPROVAL"
        else:
            threading.Thread(target=self._build, args=(environment, made), daemon=True).start()
        return made

    def _build(self, environment: Environment, made: Made) -> None:
        made.status = "BUILDING"
        if "image" in made.meta:
            made.say(f"pulling {made.meta['image']}")
            source = self.images.get(made.meta["image"])
            if source is None:
                made.say("manifest unknown")
                made.status = "FAILED"
                return
            for one in source.iterdir():
                (made.place / one.name).write_bytes(one.read_bytes())
        else:
            sha = self.commits.get(made.meta["commitHash"], made.meta["commitHash"])
            made.say(f"cloning {sha}")
            packed = subprocess.run(
                ["git", "-C", str(self.repository), "archive", sha], check=True, capture_output=True
            )
            subprocess.run(["tar", "-x", "-C", str(made.place)], check=True, input=packed.stdout)
        time.sleep(self.slow)
        build = made.place / "build.sh"
        if build.exists():
            built = subprocess.run(["sh", str(build)], cwd=made.place, capture_output=True, text=True, check=False)
            for line in (built.stdout + built.stderr).splitlines():
                made.say(line)
            if built.returncode:
                made.say(f"ERROR: failed to build: exit code: {built.returncode}")
                made.status = "FAILED"
                return
        with self.lock:
            if made.status != "BUILDING":  # cancelled
                return
            made.status = "DEPLOYING"
        if environment.volume:
            self._replace(environment, made)
        made.app = App(made.place, made.settings.get("startCommand") or PYTHON, made.variables)
        path = made.settings.get("healthcheckPath")
        wanted = float(made.settings.get("healthcheckTimeout", 300))
        well = made.app.healthy(path, wanted) if path else made.app.listens()
        with self.lock:
            if not well or made.status != "DEPLOYING":
                made.app.stop()
                made.status = "FAILED" if made.status == "DEPLOYING" else made.status
                return
            made.status, made.kept = "SUCCESS", True
        time.sleep(made.settings.get("overlapSeconds", 0))
        with self.lock:
            self._replace(environment, made)

    def _replace(self, environment: Environment, made: Made) -> None:
        for other in environment.active:
            if other.created < made.created:
                self._end(other)

    def _end(self, made: Made) -> None:
        made.status = "REMOVED"
        if made.app:
            made.app.stop()

    # --- queries -----------------------------------------------------------------------------------------------

    def query(self, token: str) -> dict[str, Any]:
        def may(environment: str) -> Environment:
            found = self.environments.get(environment)
            if found is None:
                raise GraphQLError("Environment not found")
            if token != ACCOUNT and TOKENS.get(environment) != token:
                raise GraphQLError("Not Authorized")
            return found

        def of(deployment: str) -> Made:
            for environment in self.environments.values():
                for one in environment.made:
                    if one.id == deployment:
                        may(environment.id)
                        return one
            raise GraphQLError("Deployment not found")

        def project(_: Any, id: str) -> Any:
            if id != PROJECT:
                raise GraphQLError("Project not found")
            services = [{"id": SERVICE, "name": "shop"}, {"id": "44444444-cccc", "name": "Postgres"}]
            return {"id": PROJECT, "name": "acme", "services": lambda _, **page: paged(services, **page)}

        def project_token(_: Any) -> Any:
            environment = next((one for one, its in TOKENS.items() if its == token), None)
            if environment is None:
                raise GraphQLError("Project Token not found")
            return {"projectId": PROJECT, "environmentId": environment}

        def environments(_: Any, projectId: str, isEphemeral: bool | None = None, **page: Any) -> Any:
            listed = [
                {"id": one.id, "name": one.name, "isEphemeral": one.ephemeral} for one in self.environments.values()
            ]
            return paged(listed, **page)

        def environment(_: Any, id: str, projectId: str | None = None) -> Any:
            found = may(id)
            volumes = [{"id": "v", "serviceId": SERVICE, "mountPath": found.volume, "isPendingDeletion": False}]
            return {
                "id": found.id,
                "name": found.name,
                "isEphemeral": found.ephemeral,
                "volumeInstances": lambda _, **page: paged(volumes if found.volume else [], **page),
            }

        def service_instance(_: Any, environmentId: str, serviceId: str) -> Any:
            found = in_service(environmentId, serviceId)
            domains = [{"domain": found.domain}] if found.domain else []
            source = found.settings.get("source") or {"repo": "acme/shop" if self.repository else None}
            return {
                "id": "si",
                "source": {"image": None, "repo": None, **source},
                "domains": {"customDomains": [], "serviceDomains": domains},
                "latestDeployment": found.made[-1].shown() if found.made else None,
                "activeDeployments": [one.shown() for one in found.active],
            }

        def in_service(environment: str, service: str) -> Environment:
            if service != SERVICE:
                raise GraphQLError("Service not found")
            return may(environment)

        def deployments(_: Any, input: dict[str, Any], **page: Any) -> Any:
            found = in_service(input["environmentId"], input["serviceId"])
            return paged([one.shown() for one in reversed(found.made)], **page)

        def logs(_: Any, deploymentId: str, limit: int = 100, startDate: str = "", **_more: Any) -> Any:
            made = of(deploymentId)
            lines = made.app.lines() if made.app else []
            stamp = made.created
            said = [(f"{stamp[:-1]}{number:06d}Z", line) for number, line in enumerate(lines)]
            return entries([one for one in said if one[0] >= (startDate or "")], limit)

        def build_logs(_: Any, deploymentId: str, limit: int = 100, **_more: Any) -> Any:
            return entries(of(deploymentId).build_log, limit)

        def snapshot(_: Any, deploymentId: str) -> Any:
            made = of(deploymentId)
            return {"id": made.id, "variables": made.variables}

        def update(_: Any, input: dict[str, Any], serviceId: str, environmentId: str) -> bool:
            in_service(environmentId, serviceId).settings.update(input)
            return True

        def upsert(_: Any, input: dict[str, Any]) -> bool:
            found = in_service(input["environmentId"], input["serviceId"])
            if not all(isinstance(value, str) for value in input["variables"].values()):
                raise GraphQLError("Variables must be strings")
            if input["replace"]:
                found.variables.clear()
            found.variables.update(input["variables"])
            if not input["skipDeploys"] and found.made:
                self.deploy(found, found.made[-1].meta, found.variables)
            return True

        def deploy(_: Any, serviceId: str, environmentId: str, commitSha: str | None = None) -> str:
            found = in_service(environmentId, serviceId)
            if commitSha is None:
                image = (found.settings.get("source") or {}).get("image")
                if image is None:
                    raise GraphQLError("Service has no source")
                return self.deploy(found, {"image": image}, found.variables).id
            sha = self.commits.get(commitSha, commitSha)
            known = ["git", "-C", str(self.repository), "cat-file", "-e", f"{sha}^{{commit}}"]
            if subprocess.run(known, capture_output=True, check=False).returncode:
                raise GraphQLError("Commit not found")
            meta = {"repo": "acme/shop", "branch": "main", "commitHash": commitSha}
            return self.deploy(found, meta, found.variables).id

        def roll_back(_: Any, id: str) -> bool:
            made = of(id)
            if not made.kept:
                raise GraphQLError("Deployment cannot be rolled back to")
            environment = self.environments[made.environment]
            self.deploy(environment, made.meta, made.variables).settings = made.settings
            return True

        def remove(_: Any, id: str) -> bool:
            self._end(of(id))
            return True

        def cancel(_: Any, id: str) -> bool:
            made = of(id)
            if made.status not in GOING:
                raise GraphQLError("Deployment cannot be cancelled")
            made.status = "REMOVED"
            return True

        def create(_: Any, input: dict[str, Any]) -> Any:
            if token != ACCOUNT:
                raise GraphQLError("Not Authorized")
            source = may(input["sourceEnvironmentId"])
            number = f"22222222-{next(self._number):04d}e"
            made = Environment(number, input["name"], bool(input.get("ephemeral")), dict(source.variables))
            self._open(made)
            return {"id": made.id, "name": made.name, "isEphemeral": made.ephemeral}

        def delete(_: Any, id: str) -> bool:
            for made in may(id).made:
                self._end(made)
            edge = self.environments.pop(id).edge
            if edge:
                edge.close()
            return True

        return {
            "project": project,
            "projectToken": project_token,
            "environments": environments,
            "environment": environment,
            "serviceInstance": service_instance,
            "deployments": deployments,
            "deployment": lambda _, id: of(id).shown(),
            "deploymentLogs": logs,
            "buildLogs": build_logs,
            "deploymentSnapshot": snapshot,
            "serviceInstanceUpdate": update,
            "variableCollectionUpsert": upsert,
            "serviceInstanceDeployV2": deploy,
            "deploymentRollback": roll_back,
            "deploymentRemove": remove,
            "deploymentCancel": cancel,
            "environmentCreate": create,
            "environmentDelete": delete,
        }


def entries(said: list[tuple[str, str]], limit: int) -> list[dict[str, str]]:
    return [{"timestamp": at, "message": line, "severity": "info"} for at, line in said[-limit:]]


def paged(nodes: list[Any], first: int | None = None, after: str | None = None, **_: Any) -> dict[str, Any]:
    begin = int(after or 0)
    page = nodes[begin : begin + (first or 20)]
    more = begin + len(page) < len(nodes)
    return {
        "edges": [{"cursor": str(begin + index + 1), "node": node} for index, node in enumerate(page)],
        "pageInfo": {
            "hasNextPage": more,
            "hasPreviousPage": begin > 0,
            "startCursor": str(begin + 1),
            "endCursor": str(begin + len(page)),
        },
    }


@contextmanager
def railway(place: Path, trust: Trust) -> Iterator[Railway]:
    """Railway, answering at its `url`."""
    made = Railway(place, trust)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            operation = asked["query"].split("(")[0].split("{")[0].split()[-1]
            with made.lock:
                made.operations.append(operation)
                fault = made.faults.pop(0) if made.faults else None
                if isinstance(fault, tuple):
                    return self._say(fault[0], {"errors": [{"message": "as the test says"}]}, fault[1])
                answer = self._done(asked)
            if fault == "break":  # done, but the response is lost
                self.close_connection = True
                return None
            return self._say(200, answer, {})

        def _done(self, asked: dict[str, Any]) -> dict[str, Any]:
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            token = self.headers.get("Project-Access-Token") or bearer
            if token not in (*TOKENS.values(), ACCOUNT) or (token == ACCOUNT) is not bool(bearer):
                return {"errors": [{"message": "Not Authorized"}], "data": None}
            if unknown := asked.keys() - {"query", "variables", "operationName"}:
                return {"errors": [{"message": f"unknown {unknown}"}]}
            roots = made.query(token)
            done = graphql_sync(SCHEMA, asked["query"], Root(roots), variable_values=asked["variables"])
            return {"data": done.data, "errors": [{"message": one.message} for one in done.errors or ()] or None}

        def _say(self, status: int, answer: dict[str, Any], headers: Mapping[str, str]) -> None:
            body = json.dumps({key: value for key, value in answer.items() if value is not None}).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        made.url = f"{address}/graphql/v2"
        try:
            yield made
        finally:
            made.close()


class Root:
    """Resolvers as graphql-core calls them: with the query's context, and arguments by name."""

    def __init__(self, resolvers: Mapping[str, Any]) -> None:
        self._resolvers = resolvers

    def __getattr__(self, name: str) -> Any:
        return self._resolvers[name]
