"""A stand-in for Vercel's REST API, for the calls that a deployment takes.

Paths, fields, states and error codes are those of the public API reference (vercel.com/docs/rest-api, and the types of
the package @vercel/sdk); that a list of missing files answers a deployment, of the package @vercel/client. What the
reference does not name in a query or a body is refused. Deployments are built and run for real.
"""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.standins.hosted_apps import PYTHON, App, Edge, Trust, serving

__all__ = ["BYPASS", "TEAM", "TOKEN", "Vercel", "vercel"]

TOKEN = "vcp_0123456789abcdefghijkl"
TEAM = "team_acme0123456789"
BYPASS = "b1b2b3b4b5b6b7b8b9b0b1b2b3b4b5b6"
MOVING = 0.1  # seconds until domains have moved

BODIES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "deployment": {
        "customEnvironmentSlugOrId": str, "deploymentId": str, "files": list, "gitMetadata": dict, "gitSource": dict,
        "meta": dict, "monorepoManager": str, "name": str, "project": str, "projectSettings": dict, "target": str,
        "withLatestCommit": bool,
    },
    "file": {"file": str, "sha": str, "size": int, "data": str, "encoding": str},
    "gitMetadata": {
        "remoteUrl": str, "commitAuthorName": str, "commitAuthorEmail": str, "commitMessage": str, "commitRef": str,
        "commitSha": str, "dirty": bool, "ci": bool,
    },
    "gitSource": {"type": str, "repoId": (int, str), "ref": str, "sha": str, "prId": int},
    "variable": {
        "key": str, "value": str, "type": str, "target": list, "gitBranch": str, "comment": str,
        "customEnvironmentIds": list,
    },
    "alias": {"alias": str, "redirect": str},
    "canary": {"canaryDeploymentId": str},
    "stage": {"canaryDeploymentId": str, "nextStageIndex": int},
    "empty": {},
}  # fmt: skip


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message, **more}


@dataclass
class Made:
    """One deployment."""

    id: str
    body: dict[str, Any]
    variables: dict[str, str]
    created: int
    place: Path
    state: str = "QUEUED"
    error: str = ""
    promoted: bool = False
    app: App | None = None
    edge: Edge | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def say(self, text: str, kind: str = "stdout") -> None:
        at = int(time.time() * 1000)
        payload = {"deploymentId": self.id, "text": text, "id": str(at), "date": at, "serial": str(at)}
        self.events.append({"type": kind, "created": at, "payload": payload})

    def shown(self, listed: bool) -> dict[str, Any]:
        assert self.edge is not None
        said: dict[str, Any] = {
            "uid" if listed else "id": self.id,
            "name": self.body["name"],
            "url": self.edge.host,
            "createdAt": self.created,
            "readyState": self.state,
            "meta": self.body.get("meta", {}),
            "target": self.body.get("target"),
        }
        if self.state == "READY":
            said["readySubstate"] = "PROMOTED" if self.promoted else "STAGED"
        if self.error:
            said |= {"errorCode": "BUILD_FAILED", "errorMessage": self.error}
        return said


class Vercel:
    """One team with one project, which has one production domain; `faults` answer before anything is done."""

    def __init__(self, place: Path, trust: Trust) -> None:
        self.place = place
        self.trust = trust
        self.url = ""
        self.build: str = "true"
        self.protected = False
        self.stages: list[dict[str, Any]] | None = None
        self.auto_assign = False
        self.repository: Path | None = None
        self.faults: list[tuple[int, dict[str, str]] | str] = []
        self.calls: list[tuple[str, str]] = []
        self.uploaded: list[str] = []
        self.variables: dict[str, dict[str, Any]] = {}
        self.made: dict[str, Made] = {}
        self.files: dict[str, bytes] = {}
        self.alias: dict[str, str] = {}
        self.rolling: dict[str, Any] | None = None
        self.asked: dict[str, Any] | None = None
        self.domains: dict[str, Edge] = {}
        self.lock = threading.RLock()
        self._number = itertools.count(1)
        self.production = self.domain()
        self.preview = self.domain()

    def domain(self) -> str:
        """A new host name; the first one is the project's production domain, others can be aliases."""
        edge = Edge(self.trust, lambda headers: self._serve(host, headers))
        host = edge.host
        self.domains[host] = edge
        return host

    def close(self) -> None:
        for made in self.made.values():
            if made.app:
                made.app.stop()
            if made.edge:
                made.edge.close()
        for edge in self.domains.values():
            edge.close()

    # --- the edge ----------------------------------------------------------------------------------------------

    def _serve(self, host: str, headers: Mapping[str, str]) -> App | tuple[int, bytes]:
        with self.lock:
            live = self.alias.get(host)
            rolling = self.rolling if live and host == self.production else None
            if rolling and random.random() * 100 < rolling["activeStage"]["targetPercentage"]:
                live = rolling["canaryDeployment"]["id"]
            made = self.made.get(live or "")
        return self._answer(made, headers, protected=self.protected and host != self.production)

    def _answer(self, made: Made | None, headers: Mapping[str, str], *, protected: bool) -> App | tuple[int, bytes]:
        if protected and headers.get("x-vercel-protection-bypass") != BYPASS:
            return 401, b"Authentication Required"
        if made is None or made.app is None:
            return 404, b"DEPLOYMENT_NOT_FOUND"
        return made.app

    # --- the API -----------------------------------------------------------------------------------------------

    def project(self) -> dict[str, Any]:
        return {
            "id": "prj_shop",
            "name": "shop",
            "accountId": TEAM,
            "autoAssignCustomDomains": self.auto_assign,
            "link": {"type": "github", "repoId": 4711, "productionBranch": "main"} if self.repository else None,
            "rollingRelease": {"target": "production", "stages": self.stages} if self.stages else None,
            "lastAliasRequest": self.asked,
        }

    def get_project(self, _query: dict[str, str], name: str) -> Any:
        if name not in ("shop", "prj_shop"):
            raise Refused(404, "not_found", "Project not found.")
        return self.project()

    def get_domain(self, query: dict[str, str], name: str, domain: str) -> Any:
        self.get_project(query, name)
        if domain != self.production:
            raise Refused(404, "not_found", f"The domain {domain} is not assigned to shop.")
        return {"name": domain, "projectId": "prj_shop", "verified": True}

    def get_domains(self, query: dict[str, str], name: str) -> Any:
        self.get_project(query, name)
        return {"domains": [{"name": self.production}], "pagination": {"count": 1, "next": None, "prev": None}}

    def get_variables(self, query: dict[str, str], name: str) -> Any:
        self.get_project(query, name)
        return {"envs": [{**one, "value": "encrypted"} for one in self.variables.values()]}

    def set_variables(self, query: dict[str, str], body: Any, name: str) -> Any:
        self.get_project(query, name)
        failed = []
        for one in body if isinstance(body, list) else [body]:
            known(one, "variable", {"key", "value", "type", "target"})
            if one["type"] not in ("system", "encrypted", "plain", "sensitive"):
                raise Refused(400, "bad_request", "Invalid request: `type` has no allowed value")
            there = next((old for old in self.variables.values() if _same(old, one)), None)
            if there and query.get("upsert") != "true":
                raise Refused(400, "ENV_CONFLICT", f"Another Environment Variable with the Name {one['key']} exists")
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", one["key"]) or one["key"].startswith("VERCEL_"):
                failed.append({"error": {"code": "RESERVED_ENV_VARIABLE", "message": f"{one['key']} is reserved"}})
                continue
            number = there["id"] if there else f"env_{next(self._number)}"
            self.variables[number] = {**one, "id": number}
        return {"created": [], "failed": failed}

    def remove_variable(self, query: dict[str, str], _body: Any, name: str, number: str) -> Any:
        self.get_project(query, name)
        if number not in self.variables:
            raise Refused(404, "not_found", "Environment Variable not found")
        return self.variables.pop(number)

    def upload(self, headers: Mapping[str, str], content: bytes) -> Any:
        sha = headers.get("x-vercel-digest", "")
        if hashlib.sha1(content).hexdigest() != sha:
            raise Refused(400, "bad_request", "The SHA of the file does not match")
        self.files[sha] = content
        self.uploaded.append(sha)
        return None

    def create(self, query: dict[str, str], body: Any) -> Any:
        known(body, "deployment", {"name"})
        if ("files" in body) == ("gitSource" in body):
            raise Refused(400, "bad_request", "one of `files` and `gitSource` has to be there")
        for one in body.get("files", ()):
            known(one, "file", {"file"})
        known(body.get("gitMetadata", {}), "gitMetadata", set())
        if not all(isinstance(value, str) for value in body.get("meta", {}).values()):
            raise Refused(400, "bad_request", "Invalid request: `meta` values should be string")
        if "gitSource" in body:
            known(body["gitSource"], "gitSource", {"type", "repoId", "ref"})
        missing = [one["sha"] for one in body.get("files", ()) if one["sha"] not in self.files]
        if missing:
            raise Refused(400, "missing_files", "Missing files", missing=sorted(set(missing)))
        target = body.get("target", "preview")
        number = f"dpl_{next(self._number):04d}"
        place = self.place / number
        place.mkdir(parents=True)
        variables = {one["key"]: one["value"] for one in self.variables.values() if target in one["target"]}
        created = int(time.time() * 1000)
        while any(one.created >= created for one in self.made.values()):
            created += 1
        made = Made(number, body, variables, created, place)
        made.edge = Edge(self.trust, lambda headers: self._answer(made, headers, protected=self.protected))
        self.made[number] = made
        threading.Thread(target=self._build, args=(made,), daemon=True).start()
        return made.shown(False)

    def _build(self, made: Made) -> None:
        made.state = "BUILDING"
        made.say("Cloning" if "gitSource" in made.body else "Downloading deployment files")
        for one in made.body.get("files", ()):
            path = made.place / one["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.files[one["sha"]])
        if source := made.body.get("gitSource"):
            archive = subprocess.run(
                ["git", "-C", str(self.repository), "archive", source["sha"]], check=True, capture_output=True
            )
            subprocess.run(["tar", "-x", "-C", str(made.place)], check=True, input=archive.stdout)
        time.sleep(0.1)
        command = next((one.read_text() for one in made.place.glob("vercel-build.sh")), self.build)
        made.say(command.strip(), "command")
        built = subprocess.run(
            ["sh", "-c", command],
            cwd=made.place,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **made.variables},
        )
        for line in (built.stdout + built.stderr).splitlines():
            made.say(line)
        if made.state == "CANCELED":
            return
        if built.returncode:
            made.error = f'Command "{command.strip()}" exited with {built.returncode}'
            made.say(f"Error: {made.error}", "stderr")
            made.state = "ERROR"
            return
        made.app = App(made.place, PYTHON, {**made.variables, "VERCEL": "1"})
        made.app.listens()
        made.say("Build Completed")
        made.state = "READY"

    def deployment(self, number: str) -> Made:
        made = self.made.get(number)
        if made is None:
            raise Refused(404, "not_found", f"The deployment {number} could not be found")
        return made

    def get_deployment(self, _query: dict[str, str], number: str) -> Any:
        return self.deployment(number).shown(False)

    def get_deployments(self, query: dict[str, str]) -> Any:
        until = int(query.get("until", "99999999999999"))
        limit = int(query.get("limit", "20"))
        if limit > 100:
            raise Refused(400, "bad_request", "Invalid request: `limit` should be <= 100")
        listed = sorted((one for one in self.made.values() if one.created < until), key=lambda one: -one.created)
        page = listed[:limit]
        following = page[-1].created if len(listed) > limit else None
        return {
            "deployments": [one.shown(True) for one in page],
            "pagination": {"count": len(page), "next": following, "prev": None},
        }

    def cancel(self, _query: dict[str, str], _body: Any, number: str) -> Any:
        made = self.deployment(number)
        if made.state not in ("QUEUED", "BUILDING", "INITIALIZING"):
            raise Refused(400, "bad_request", "The deployment cannot be canceled")
        made.state = "CANCELED"
        return made.shown(False)

    def get_events(self, query: dict[str, str], number: str) -> Any:
        events = [one for one in self.deployment(number).events if one["created"] >= int(query.get("since", "0"))]
        events = events[::-1] if query.get("direction") == "backward" else events
        return events[: int(query.get("limit", "100"))]

    # --- aliases -----------------------------------------------------------------------------------------------

    def get_alias(self, _query: dict[str, str], alias: str) -> Any:
        if alias not in self.alias:
            raise Refused(404, "not_found", "The alias could not be found")
        return {"uid": f"als_{alias}", "alias": alias, "deploymentId": self.alias[alias], "projectId": "prj_shop"}

    def get_aliases(self, _query: dict[str, str], number: str) -> Any:
        self.deployment(number)
        return {"aliases": [{"uid": f"als_{one}", "alias": one} for one, to in self.alias.items() if to == number]}

    def assign(self, _query: dict[str, str], body: Any, number: str) -> Any:
        known(body, "alias", {"alias"})
        if self.deployment(number).state != "READY":
            raise Refused(400, "deployment_not_ready", "The deployment is not ready to be aliased")
        old = self.alias.get(body["alias"])
        self.alias[body["alias"]] = number
        return {"uid": f"als_{body['alias']}", "alias": body["alias"], "oldDeploymentId": old}

    def remove_alias(self, _query: dict[str, str], _body: Any, uid: str) -> Any:
        if self.alias.pop(uid.removeprefix("als_"), None) is None:
            raise Refused(404, "not_found", "The alias could not be found")
        return {"status": "SUCCESS"}

    def promote(self, query: dict[str, str], body: Any, name: str, number: str) -> Any:
        self._for_production(query, body, name, number)
        if self.stages and self.production in self.alias:
            return self.start(query, {"canaryDeploymentId": number}, name)
        self._move("promote", number)
        return None

    def roll_back(self, query: dict[str, str], body: Any, name: str, number: str) -> Any:
        if not self._for_production(query, body, name, number).promoted:
            raise Refused(400, "bad_request", "The deployment has never been in production")
        self.rolling = None
        self._move("rollback", number)
        return None

    def _for_production(self, query: dict[str, str], body: Any, name: str, number: str) -> Made:
        self.get_project(query, name)
        known(body, "empty", set())
        made = self.deployment(number)
        if made.body.get("target") != "production" or made.state != "READY":
            raise Refused(400, "bad_request", "Only a production deployment that is ready can be promoted")
        return made

    def _move(self, kind: str, number: str) -> None:
        now = int(time.time() * 1000)
        before = self.alias.get(self.production)
        self.asked = {"fromDeploymentId": before, "toDeploymentId": number, "jobStatus": "in-progress"}
        self.asked |= {"requestedAt": now, "type": kind}

        def move() -> None:
            self.alias[self.production] = number
            self.made[number].promoted = True
            if self.asked:
                self.asked["jobStatus"] = "succeeded"

        threading.Timer(MOVING, move).start()

    # --- rolling releases --------------------------------------------------------------------------------------

    def get_stages(self, query: dict[str, str], name: str) -> Any:
        self.get_project(query, name)
        return {"rollingRelease": self.project()["rollingRelease"]}

    def get_rolling(self, query: dict[str, str], name: str) -> Any:
        self.get_project(query, name)
        return {"rollingRelease": self.rolling}

    def start(self, query: dict[str, str], body: Any, name: str) -> Any:
        self.get_project(query, name)
        known(body, "canary", {"canaryDeploymentId"})
        canary = self.deployment(body["canaryDeploymentId"])
        base = self.alias.get(self.production)
        if not self.stages:
            raise Refused(402, "payment_required", "Rolling releases are not enabled for this project")
        if self.rolling and self.rolling["canaryDeployment"]["id"] != canary.id:
            raise Refused(409, "conflict", "Another rolling release is active")
        if base is None:
            raise Refused(400, "bad_request", "There is no production deployment to roll out from")
        if not self.rolling:
            stages = [
                {"index": index, "isFinalStage": stage["targetPercentage"] == 100, "duration": None,
                 "targetPercentage": stage["targetPercentage"], "requireApproval": stage.get("requireApproval", False)}
                for index, stage in enumerate(self.stages)
            ]  # fmt: skip
            self.rolling = {
                "state": "ACTIVE",
                "currentDeployment": self.made[base].shown(False),
                "canaryDeployment": canary.shown(False),
                "stages": stages,
                "activeStage": stages[0],
            }
            canary.promoted = True
        return {"rollingRelease": self.rolling}

    def approve(self, query: dict[str, str], body: Any, name: str) -> Any:
        self.get_project(query, name)
        known(body, "stage", {"canaryDeploymentId", "nextStageIndex"})
        if not self.rolling or self.rolling["canaryDeployment"]["id"] != body["canaryDeploymentId"]:
            raise Refused(404, "not_found", "There is no such rolling release")
        if body["nextStageIndex"] != self.rolling["activeStage"]["index"] + 1:
            raise Refused(400, "bad_request", "nextStageIndex is not the next stage")
        stage = self.rolling["stages"][body["nextStageIndex"]]
        if stage["isFinalStage"]:
            return self.complete(query, {"canaryDeploymentId": body["canaryDeploymentId"]}, name)
        self.rolling["activeStage"] = stage
        return {"rollingRelease": self.rolling}

    def complete(self, query: dict[str, str], body: Any, name: str) -> Any:
        self.get_project(query, name)
        known(body, "canary", {"canaryDeploymentId"})
        if not self.rolling or self.rolling["canaryDeployment"]["id"] != body["canaryDeploymentId"]:
            raise Refused(404, "not_found", "There is no such rolling release")
        self.rolling = None
        self._move("promote", body["canaryDeploymentId"])
        return {"rollingRelease": None}


def known(body: Any, name: str, required: set[str]) -> None:
    """Refuse fields that the reference does not document."""
    if not isinstance(body, dict):
        raise Refused(400, "bad_request", "Invalid request: should be object")
    for key, value in body.items():
        if key not in BODIES[name]:
            raise Refused(400, "bad_request", f"Invalid request: should NOT have additional property `{key}`")
        if not isinstance(value, BODIES[name][key]):
            raise Refused(400, "bad_request", f"Invalid request: `{key}` has the wrong type")
    for key in required - body.keys():
        raise Refused(400, "bad_request", f"Invalid request: missing required property `{key}`")


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["key"] == other["key"] and set(one["target"]) & set(other["target"]))


PART = "([^/]+)"
ROUTES: list[tuple[str, str, set[str], str]] = [
    ("GET", f"/v9/projects/{PART}", set(), "get_project"),
    ("GET", f"/v9/projects/{PART}/domains", {"limit"}, "get_domains"),
    ("GET", f"/v9/projects/{PART}/domains/{PART}", set(), "get_domain"),
    ("GET", f"/v10/projects/{PART}/env", {"decrypt"}, "get_variables"),
    ("POST", f"/v10/projects/{PART}/env", {"upsert"}, "set_variables"),
    ("DELETE", f"/v9/projects/{PART}/env/{PART}", set(), "remove_variable"),
    ("GET", "/v7/deployments", {"projectId", "limit", "until", "since", "state", "target"}, "get_deployments"),
    ("POST", "/v13/deployments", {"forceNew", "skipAutoDetectionConfirmation"}, "create"),
    ("GET", f"/v13/deployments/{PART}", set(), "get_deployment"),
    ("PATCH", f"/v12/deployments/{PART}/cancel", set(), "cancel"),
    (
        "GET",
        f"/v3/deployments/{PART}/events",
        {"direction", "follow", "limit", "name", "since", "until", "builds"},
        "get_events",
    ),
    ("GET", f"/v4/aliases/{PART}", set(), "get_alias"),
    ("DELETE", f"/v2/aliases/{PART}", set(), "remove_alias"),
    ("GET", f"/v2/deployments/{PART}/aliases", set(), "get_aliases"),
    ("POST", f"/v2/deployments/{PART}/aliases", set(), "assign"),
    ("POST", f"/v10/projects/{PART}/promote/{PART}", set(), "promote"),
    ("POST", f"/v1/projects/{PART}/rollback/{PART}", {"description"}, "roll_back"),
    ("GET", f"/v1/projects/{PART}/rolling-release/config", set(), "get_stages"),
    ("GET", f"/v1/projects/{PART}/rolling-release", {"state"}, "get_rolling"),
    ("POST", f"/v1/projects/{PART}/rolling-release/start", set(), "start"),
    ("POST", f"/v1/projects/{PART}/rolling-release/approve-stage", set(), "approve"),
    ("POST", f"/v1/projects/{PART}/rolling-release/complete", set(), "complete"),
]


@contextmanager
def vercel(place: Path, trust: Trust) -> Iterator[Vercel]:
    """Vercel, answering at its `url`."""
    made = Vercel(place, trust)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            with made.lock:
                made.calls.append((self.command, url.path))
                fault = made.faults.pop(0) if made.faults else None
                if isinstance(fault, tuple):
                    return self._say(fault[0], {"error": {"code": "fault", "message": "as the test says"}}, fault[1])
                try:
                    status, answer = 200, self._done(url.path, dict(parse_qsl(url.query)), content)
                except Refused as refused:
                    status, answer = refused.status, {"error": refused.error}
            if fault == "break":  # done, but the response is lost
                self.close_connection = True
                return None
            return self._say(status, answer, {})

        do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815

        def _done(self, path: str, query: dict[str, str], content: bytes) -> Any:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(403, "forbidden", "Not authorized", invalidToken=True)
            if query.pop("teamId", None) != TEAM:
                raise Refused(403, "forbidden", "You don't have permission to access this resource.")
            if (self.command, path) == ("POST", "/v2/files"):
                return made.upload({name.lower(): value for name, value in self.headers.items()}, content)
            for method, pattern, parameters, verb in ROUTES:
                found = re.fullmatch(pattern, path)
                if method == self.command and found:
                    if unknown := query.keys() - parameters:
                        raise Refused(400, "bad_request", f"Invalid request: additional property {unknown}")
                    call: Callable[..., Any] = getattr(made, verb)
                    if self.command == "GET":
                        return call(query, *found.groups())
                    return call(query, json.loads(content or b"{}"), *found.groups())
            raise Refused(404, "not_found", "The page could not be found")

        def _say(self, status: int, answer: Any, headers: Mapping[str, str]) -> None:
            body = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as made.url:
        try:
            yield made
        finally:
            made.close()
