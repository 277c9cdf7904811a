"""A stand-in for a Kubernetes API server: for faults that a real cluster cannot produce, and machines without one.

Objects are kept, applied server-side with owners of fields, watched, and refused as the API conventions say. Its
controllers make a ready pod for every replica and endpoints for every Service; each Service really answers, as one of
its pods. `trouble` makes the next requests go wrong, `app` is how a pod answers a request through the API server.
"""

from __future__ import annotations

import copy
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.standins.field_managers import Conflicts, Owners, applied, managed_fields, merged, updated

__all__ = ["ApiServer", "Trouble", "serving"]

Object = dict[str, Any]
KINDS = {
    "v1": {"pods": "Pod", "services": "Service", "configmaps": "ConfigMap", "secrets": "Secret", "events": "Event"},
    "apps/v1": {"deployments": "Deployment"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "discovery.k8s.io/v1": {"endpointslices": "EndpointSlice"},
}
KIND = {
    plural: {"apiVersion": api_version, "kind": kind}
    for api_version, kinds in KINDS.items()
    for plural, kind in kinds.items()
}
PROXIED = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


class Trouble:
    """Faults for requests with this method and this text in the path: one each, until the list is empty."""

    def __init__(self, method: str, path: str, *answers: int, headers: Mapping[str, str] | None = None) -> None:
        self.method = method
        self.path = path
        self.answers = list(answers)  # statuses; 0 breaks the connection off, 200 lets it pass
        self.headers = dict(headers or {})

    def takes(self, method: str, path: str) -> int | None:
        if method != self.method or self.path not in path or not self.answers:
            return None
        return self.answers.pop(0)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ApiServer:
    """One namespace's worth of cluster. `asked` has every request as verb and resource, as RBAC would see it."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.things: dict[tuple[str, str], Object] = {}  # by plural and name
        self.owners: dict[tuple[str, str], Owners] = {}
        self.log: list[tuple[int, str, str, Object]] = []
        self.version = 0
        self.trouble: list[Trouble] = []
        self.asked: list[tuple[str, str]] = []
        self.unready: set[str] = set()  # images whose pods never get ready
        self.away_until = 0.0  # time.monotonic() until which every connection is closed without an answer
        self.grace = 0.0  # seconds that a pod takes to end
        self.slow = 0.0  # seconds before each answer
        self.app: Callable[[str, str, Object], int] = lambda *_: 200  # method, path, pod -> status
        self.forbidden: set[str] = set()  # verbs on pods/proxy
        self.passed_on: list[tuple[str, str, str, bytes]] = []  # pod, method, path, body
        self.fronts: dict[str, ThreadingHTTPServer] = {}

    # --- objects -----------------------------------------------------------------------------------------------

    def write(self, plural: str, thing: Object, event: str = "") -> Object:
        with self.changed:
            self.version += 1
            key = plural, thing["metadata"]["name"]
            event = event or ("MODIFIED" if key in self.things else "ADDED")
            version = {"resourceVersion": str(self.version)}
            thing |= KIND[plural]
            thing["metadata"] = {"uid": f"uid-{self.version}"} | thing["metadata"] | version
            if event == "DELETED":
                self.things.pop(key, None)
                self.owners.pop(key, None)
            else:
                self.things[key] = thing
            self.log.append((self.version, event, plural, copy.deepcopy(thing)))
            self.changed.notify_all()
            return thing

    def apply(self, plural: str, name: str, body: Object, manager: str, *, dry_run: bool, force: bool) -> Object:
        key = plural, name
        before = copy.deepcopy(self.things.get(key, {"metadata": {}}))
        after, owners = applied(before, body, self.owners.get(key, {}), manager, force=force)
        if plural == "deployments":
            after["spec"].setdefault("replicas", 1)
        after["metadata"]["managedFields"] = managed_fields(owners)
        if dry_run:
            return after
        self.owners[key] = owners
        return self.write(plural, after)

    def change(self, plural: str, name: str, change: Object, manager: str, subresource: str = "") -> Object:
        """A patch, as of `kubectl edit` or, below `scale`, of `kubectl scale`."""
        with self.changed:
            key, before = (plural, name), self.things[plural, name]
            after = merged(copy.deepcopy(before), change)
            self.owners[key] = updated(before, after, self.owners.get(key, {}), manager, subresource)
            after["metadata"]["managedFields"] = managed_fields(self.owners[key])
            written = self.write(plural, after)
            self.reconcile()
            return written

    # --- controllers -------------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Do the work of the controllers, the scheduler and kubelet."""
        with self.changed:
            for (plural, name), thing in list(self.things.items()):
                if plural == "deployments":
                    self._deploy(name, thing)
            for (plural, name), thing in list(self.things.items()):
                if plural == "services":
                    self._serve(name, thing)

    def _deploy(self, name: str, thing: Object) -> None:
        ours = [
            one
            for one in self._of("pods")
            if one["metadata"]["name"].startswith(f"{name}-") and "deletionTimestamp" not in one["metadata"]
        ]
        wanted = thing["spec"].get("replicas", 1)
        for one in ours[wanted:]:
            self.end(one)
        template = thing["spec"]["template"]
        for _ in range(wanted - len(ours)):
            self.version += 1
            ready = template["spec"]["containers"][0]["image"] not in self.unready
            status = {
                "phase": "Running",
                "podIP": f"10.0.0.{self.version % 250}",
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                "containerStatuses": [{"name": "app", "restartCount": 0, "ready": ready, "state": {"running": {}}}],
            }
            metadata = {"name": f"{name}-rs-{self.version}", "labels": dict(template["metadata"]["labels"])}
            self.write("pods", {"metadata": metadata, "spec": template["spec"], "status": status})

    def end(self, pod: Object) -> None:
        """Terminate a pod, which is gone after `grace` seconds."""
        if not self.grace:
            self.write("pods", pod, "DELETED")
            return
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.write("pods", pod)
        timer = threading.Timer(self.grace, self.write, ("pods", pod, "DELETED"))
        timer.daemon = True
        timer.start()

    def _serve(self, name: str, thing: Object) -> None:
        endpoints = [
            {"conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": one["metadata"]["name"]}}
            for one in self.serving(thing)
        ]
        known = self.things.get(("endpointslices", f"{name}-x"), {})
        if known.get("endpoints") != endpoints:
            metadata = {"name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}}
            self.write("endpointslices", {"metadata": metadata, "endpoints": endpoints})
        if "clusterIP" not in thing["spec"]:
            thing["spec"]["clusterIP"] = self._front(name)

    def serving(self, service: Object) -> list[Object]:
        selector = service["spec"]["selector"].items()
        return [
            one
            for one in self._of("pods")
            if selector <= one["metadata"]["labels"].items()
            and one["status"]["conditions"][0]["status"] == "True"
            and "deletionTimestamp" not in one["metadata"]
        ]

    def _of(self, plural: str) -> list[Object]:
        return [thing for (kind, _), thing in self.things.items() if kind == plural]

    def _front(self, name: str) -> str:
        """A Service with a real listener; its address follows http://."""
        server = self

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                with server.changed:
                    pods = server.serving(server.things["services", name])
                    body = server.answer(random.choice(pods)) if pods else b"{}"
                self.send_response(200 if pods else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        front = self.fronts[name] = ThreadingHTTPServer(("127.0.0.1", 0), Front)
        front.daemon_threads = True
        threading.Thread(target=front.serve_forever, args=(0.05,), daemon=True).start()
        return f"127.0.0.1:{front.server_port}"

    def answer(self, pod: Object) -> bytes:
        """Response of the app in this pod: its version, from its ConfigMap."""
        labels = pod["metadata"]["labels"]
        settings = self.things["configmaps", f"{labels['headway.dev/app']}-{labels['headway.dev/revision']}"]
        return json.dumps({"version": settings["data"]["HEADWAY_VERSION"]}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: each answer would wait 40 ms for an acknowledgement
    server: Listening

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  # as http.server calls them

    def log_message(self, *_: object) -> None: ...

    def _handle(self) -> None:
        api = self.server.api
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        time.sleep(api.slow)
        if time.monotonic() < api.away_until:
            self.close_connection = True
            return
        for one in api.trouble:
            status = one.takes(self.command, self.path)
            if status == 0:
                self.close_connection = True
                return
            if status not in (None, 200):
                self._say(status, _status(status, "there is trouble"), one.headers)
                return
        try:
            path = url.path.strip("/").split("/")
            if path[6:7] == ["proxy"]:
                self._pass_on(path[5], self.path.partition("/proxy")[2], sent)
            else:
                self._route(path, json.loads(sent) if sent else {})
        except Conflicts as conflicts:
            details = {"reason": "Conflict", "details": {"causes": conflicts.causes}}
            self._say(409, _status(409, str(conflicts)) | details)
        except Refused as refused:
            self._say(refused.status, _status(refused.status, str(refused)))

    def _route(self, path: list[str], body: Object) -> None:
        api = self.server.api
        if path == ["version"]:
            self._say(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        elif path == ["api"]:
            self._say(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == ["apis"]:
            self._say(200, {"kind": "APIGroupList", "groups": [_group(one) for one in KINDS if "/" in one]})
        elif "namespaces" not in path:
            self._say(200, _resources("/".join(path[1:])))
        else:
            plural, *rest = path[path.index("namespaces") + 2 :]
            if plural not in KIND:
                raise Refused(404, f"the server could not find {plural}")
            with api.changed:
                self._resource(plural, rest, body)

    def _resource(self, plural: str, rest: list[str], body: Object) -> None:
        api = self.server.api
        if len(rest) > 1:
            self._below(plural, rest)
            return
        verb = {"GET": "get" if rest else "list", "POST": "create", "PUT": "update", "PATCH": "patch"}
        watching = self.query.get("watch") in ("true", "True", "1")
        api.asked.append(("watch" if watching else verb.get(self.command, "delete"), plural))
        if watching:
            api.changed.release()
            try:
                self._watch(plural)
            finally:
                api.changed.acquire()
            return
        known = api.things.get((plural, rest[0])) if rest else None
        if rest and known is None and not self._applies:
            raise Refused(404, f'{plural} "{rest[0]}" not found')
        match self.command:
            case "GET" if rest:
                self._say(200, known or {})
            case "GET":
                found = [one for one in api._of(plural) if self._selects(one)]
                version = {"resourceVersion": str(api.version)}
                listed = KIND[plural] | {"kind": f"{KIND[plural]['kind']}List", "metadata": version, "items": found}
                self._say(200, listed)
            case "POST":
                if (plural, body["metadata"]["name"]) in api.things:
                    raise Refused(409, f'{plural} "{body["metadata"]["name"]}" already exists')
                self._say(201, api.write(plural, body))
            case "PUT":
                assert known is not None
                if body["metadata"].get("resourceVersion") not in (None, known["metadata"]["resourceVersion"]):
                    raise Refused(409, "the object has been modified; please apply your changes to the latest version")
                self._say(200, api.write(plural, body))
            case "PATCH" if self._applies:
                api.asked += [] if known else [("create", plural)]  # both have to be allowed
                manager = self.query["fieldManager"]
                dry_run, force = bool(self.query.get("dryRun")), self.query.get("force") in ("true", "True")
                self._say(200, api.apply(plural, rest[0], body, manager, dry_run=dry_run, force=force))
            case "PATCH":
                self._say(200, api.change(plural, rest[0], body, self.query.get("fieldManager", "unknown")))
            case "DELETE":
                assert known is not None
                for pod in api._of("pods") if plural == "deployments" else []:
                    if pod["metadata"]["name"].startswith(f"{rest[0]}-"):
                        api.write("pods", pod, "DELETED")
                api.write(plural, known, "DELETED")
                self._say(200, _status(200, "deleted"))
        if self.command != "GET":
            api.reconcile()

    def _below(self, plural: str, rest: list[str]) -> None:
        api = self.server.api
        api.asked.append(("get", f"{plural}/{rest[1]}"))
        pod = api.things.get((plural, rest[0].partition(":")[0]))
        if pod is None:
            raise Refused(404, f'{plural} "{rest[0]}" not found')
        stamp = b"2026-05-04T03:02:01.123456789Z " if self.query.get("timestamps") == "true" else b""
        self._send(200, stamp + b"listening on 8080\n", "text/plain")

    def _pass_on(self, pod: str, path: str, body: bytes) -> None:
        """A request to a pod. A method needs the permission that it needs of an object."""
        api, name = self.server.api, pod.partition(":")[0]
        with api.changed:
            api.asked.append((PROXIED[self.command], "pods/proxy"))
            known = api.things.get(("pods", name))
            if known is None:
                raise Refused(404, f'pods "{name}" not found')
            if PROXIED[self.command] in api.forbidden:
                raise Refused(403, f'pods "{name}" is forbidden: User "headway" cannot {PROXIED[self.command]}')
            api.passed_on.append((name, self.command, path, body))
            answer = api.answer(known)
        self._send(api.app(self.command, path, known), answer, "application/json")

    def _watch(self, plural: str) -> None:
        api = self.server.api
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        seen, end = int(self.query.get("resourceVersion") or 0), time.monotonic() + float(self.query["timeoutSeconds"])
        while (left := end - time.monotonic()) > 0:
            with api.changed:
                for version, event, kind, thing in api.log:
                    if version > seen and kind == plural and self._selects(thing):
                        seen = version
                        self.wfile.write(json.dumps({"type": event, "object": thing}).encode() + b"\n")
                self.wfile.flush()
                api.changed.wait(min(left, 0.2))

    @property
    def _applies(self) -> bool:
        return "apply-patch" in (self.headers.get("Content-Type") or "")

    def _selects(self, thing: Object) -> bool:
        wanted = dict(one.split("=") for one in self.query.get("labelSelector", "").split(",") if one)
        return wanted.items() <= (thing["metadata"].get("labels") or {}).items()

    def _say(self, status: int, answer: Object, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(answer).encode(), "application/json", headers)

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Listening(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: ApiServer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api

    def handle_error(self, *_: object) -> None: ...  # a client that has gone


@contextmanager
def serving(place: Path) -> Iterator[tuple[ApiServer, Path]]:
    """It, and a kubeconfig that names it."""
    api = ApiServer()
    server = Listening(api)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    kubeconfig = place / "kubeconfig"
    named = {"name": "stand-in"}
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [named | {"cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [named | {"user": {"token": "t"}}],
                "contexts": [named | {"context": {"cluster": "stand-in", "user": "stand-in"}}],
                "current-context": "stand-in",
            }
        )
    )
    try:
        yield api, kubeconfig
    finally:
        for one in (server, *api.fronts.values()):
            one.shutdown()
            one.server_close()


def _status(code: int, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message, "metadata": {}}


def _group(api_version: str) -> Object:
    name, version = api_version.split("/")
    one = {"groupVersion": api_version, "version": version}
    return {"name": name, "versions": [one], "preferredVersion": one}


def _resources(api_version: str) -> Object:
    found = [
        {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": VERBS}
        for plural, kind in KINDS.get(api_version, {}).items()
    ]
    return {"kind": "APIResourceList", "groupVersion": api_version, "resources": found}
