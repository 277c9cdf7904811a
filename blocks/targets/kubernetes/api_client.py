"""Client of one API server: objects by kind and name, watches, logs."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import urllib3
from kubernetes import client, watch
from kubernetes.client import rest
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from blocks.targets.kubernetes.api_errors import (
    CONFLICT,
    NOT_FOUND,
    SILENT,
    FieldConflict,
    asked,
    reported,
    says_itself,
)
from blocks.targets.kubernetes.labels import MANAGER
from headway.domain.plan import Probe
from headway.system.paths import home

__all__ = [
    "AUTOSCALER",
    "CONFIG_MAP",
    "DEPLOYMENT",
    "EVENT",
    "POD",
    "SECRET",
    "SERVICE",
    "WATCHED",
    "Cluster",
    "Kind",
    "kind_of",
]

log = logging.getLogger("headway.targets")
T = TypeVar("T")
Object = dict[str, Any]
DAY = 24 * 3600.0  # seconds
TIMEOUT = (5.0, 30.0)  # seconds to connect, and for an answer
ANSWER = 10.0  # seconds that an app has for a request
REFUSALS = (401, 403, 429)
NO_ANSWER = 504
WATCHED = 2.0  # seconds that one call waits for a change: operator commands are read in between


class Kind(NamedTuple):
    """`apiVersion` and `kind` of an object."""

    api_version: str
    kind: str


DEPLOYMENT = Kind("apps/v1", "Deployment")
SERVICE = Kind("v1", "Service")
POD = Kind("v1", "Pod")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler")
CONFIG_MAP = Kind("v1", "ConfigMap")
SECRET = Kind("v1", "Secret")
EVENT = Kind("v1", "Event")


def kind_of(thing: Mapping[str, Any]) -> Kind:
    return Kind(thing["apiVersion"], thing["kind"])


def _set_by_others(thing: Mapping[str, Any], conflict: FieldConflict) -> str:
    fields = ", ".join(f"{path} was set by {manager}" for manager, path in conflict.fields)
    return f"{thing['kind']} {thing['metadata']['name']}: {fields}"


class Cluster:
    """The objects of one namespace. Every method raises TargetError if the API server refuses or does not respond.

    Temporary errors (429, 5xx, a broken connection) are retried with exponential backoff or after the server's
    Retry-After: every method is idempotent.
    """

    def __init__(self, who: str, namespace: str, api: client.ApiClient) -> None:
        self.who = who
        self.namespace = namespace
        self._api = api
        self._dynamic: DynamicClient | None = None

    # --- objects -----------------------------------------------------------------------------------------------

    def get(self, kind: Kind, name: str) -> Object | None:
        """The object; None if it does not exist."""
        return self._asked(f"get {kind.kind} {name}", lambda: self._one(kind, name))

    def find(self, kind: Kind, labels: str = "", fields: str = "") -> list[Object]:
        """All matching objects, read in pages."""
        found, _ = self.find_at(kind, labels, fields)
        return found

    def find_at(self, kind: Kind, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """All matching objects, and the resource version to watch from."""

        def listed() -> tuple[list[Object], str]:
            resource, more = self._resource(kind), None
            items: list[Object] = []
            while True:
                page = resource.get(
                    namespace=self.namespace,
                    label_selector=labels or None,
                    field_selector=fields or None,
                    limit=500,
                    _continue=more,
                    _request_timeout=TIMEOUT,
                ).to_dict()
                items += page.get("items") or []
                more = page["metadata"].get("continue")
                if not more:
                    return items, page["metadata"]["resourceVersion"]

        return self._asked(f"list {kind.kind}", listed)

    def apply(
        self, thing: Mapping[str, Any], *, manager: str = MANAGER, dry_run: bool = False, force: bool = False
    ) -> Object:
        """Server-side apply. A field of another manager raises FieldConflict; with `force` it is taken over."""

        def applied() -> Object:
            answer = self._resource(kind_of(thing)).server_side_apply(
                body=dict(thing),
                name=thing["metadata"]["name"],
                namespace=self.namespace,
                field_manager=manager,
                dry_run="All" if dry_run else None,
                force_conflicts=force or None,
                _request_timeout=TIMEOUT,
            )
            return dict(answer.to_dict())

        return self._asked(f"apply {thing['kind']} {thing['metadata']['name']}", applied)

    def take(self, thing: Mapping[str, Any], *, manager: str = MANAGER) -> Object:
        """Apply an object whose fields are Headway's alone. What others have set is set again, with a warning."""
        try:
            return self.apply(thing, manager=manager)
        except FieldConflict as conflict:
            log.warning("%s: Headway sets it again", _set_by_others(thing, conflict))
            return self.apply(thing, manager=manager, force=True)

    def offer(self, thing: Mapping[str, Any]) -> None:
        """Apply an object that is shared with others. It stays as it is if they have set its fields, with a warning.

        `dry_run` has found such fields before the first step: one that is set later must not stop a rollout.
        """
        try:
            self.apply(thing)
        except FieldConflict as conflict:
            log.warning("%s: it stays like that", _set_by_others(thing, conflict))

    def replace(self, thing: Mapping[str, Any]) -> Object | None:
        """Replace the version that was read; None after a conflict."""

        def replaced() -> Object | None:
            try:
                answer = self._resource(kind_of(thing)).replace(
                    body=dict(thing), namespace=self.namespace, field_manager=MANAGER, _request_timeout=TIMEOUT
                )
            except ApiException as error:
                if error.status in (CONFLICT, NOT_FOUND):
                    return None
                raise
            return dict(answer.to_dict())

        return self._asked(f"replace {thing['kind']} {thing['metadata']['name']}", replaced)

    def create(self, thing: Mapping[str, Any]) -> Object | None:
        """Create it; None if it exists."""

        def created() -> Object | None:
            try:
                answer = self._resource(kind_of(thing)).create(
                    body=dict(thing), namespace=self.namespace, field_manager=MANAGER, _request_timeout=TIMEOUT
                )
            except ApiException as error:
                if error.status == CONFLICT:
                    return None
                raise
            return dict(answer.to_dict())

        return self._asked(f"create {thing['kind']} {thing['metadata']['name']}", created)

    def patch(self, kind: Kind, name: str, change: Mapping[str, Any]) -> Object | None:
        """Apply a merge patch; None if the object does not exist."""

        def patched() -> Object | None:
            try:
                answer = self._resource(kind).patch(
                    body=dict(change),
                    name=name,
                    namespace=self.namespace,
                    content_type="application/merge-patch+json",
                    field_manager=MANAGER,
                    _request_timeout=TIMEOUT,
                )
            except ApiException as error:
                if error.status == NOT_FOUND:
                    return None
                raise
            return dict(answer.to_dict())

        return self._asked(f"patch {kind.kind} {name}", patched)

    def delete(self, kind: Kind, name: str) -> None:
        """Delete it with its dependents. Repeatable."""

        def deleted() -> None:
            try:
                self._resource(kind).delete(
                    name=name,
                    namespace=self.namespace,
                    propagation_policy="Background",
                    _request_timeout=TIMEOUT,
                )
            except ApiException as error:
                if error.status != NOT_FOUND:
                    raise

        self._asked(f"delete {kind.kind} {name}", deleted)

    def namespaced(self, kind: Kind) -> bool | None:
        """Whether the kind is namespaced; None if the cluster does not have it."""

        def found() -> bool | None:
            try:
                return bool(self._resource(kind).namespaced)
            except ResourceNotFoundError:
                return None

        return self._asked(f"look for {kind.kind}", found)

    def changed(self, kind: Kind, labels: str, version: str, seconds: float) -> bool:
        """Wait until one of these objects differs from this resource version, at most this many seconds.

        A broken watch, or one whose version is too old, counts as a change: the caller reads the objects again.
        """
        try:
            stream = watch.Watch().stream(
                self._resource(kind).get,
                namespace=self.namespace,
                label_selector=labels,
                resource_version=version,
                serialize=False,
                timeout_seconds=max(1, round(seconds)),
                _request_timeout=(TIMEOUT[0], seconds + TIMEOUT[1]),
            )
            return next(iter(stream), None) is not None
        except (*SILENT, ApiException, json.JSONDecodeError):
            return True

    def until(self, kind: Kind, labels: str, seconds: float, why_not: Callable[[list[Object]], str]) -> str:
        """Call `why_not` with these objects, and again after each change, until it returns an empty string.

        Returns its last result: empty, or the reason after the timeout.
        """
        end = time.monotonic() + seconds
        while True:
            found, version = self.find_at(kind, labels)
            why = why_not(found)
            if not why or time.monotonic() >= end:
                return why
            self.changed(kind, labels, version, WATCHED)

    # --- pods --------------------------------------------------------------------------------------------------

    def logs(self, pod: str, container: str, *, lines: int, previous: bool = False, stamped: bool = False) -> list[str]:
        """Last lines of a container's log, or of the log before its restart; none without a log.

        With `stamped`, each is after its time in RFC 3339.
        """

        def read_log() -> list[str]:
            try:
                answer: Any = client.CoreV1Api(self._api).read_namespaced_pod_log(
                    pod,
                    self.namespace,
                    container=container,
                    tail_lines=lines,
                    previous=previous,
                    timestamps=stamped,
                    _preload_content=False,
                    _request_timeout=TIMEOUT,
                )
            except ApiException as error:
                if error.status in (NOT_FOUND, 400):  # its container has not started yet
                    return []
                raise
            return bytes(answer.data).decode(errors="replace").splitlines()

        return self._asked(f"logs of {pod}", read_log)

    def follow(self, pod: str, container: str) -> Iterator[str]:
        """New lines of a container of the pod, each after its time in RFC 3339, until it ends."""
        with reported(self.who, self._api.configuration.host, f"logs of {pod}"):
            answer: Any = client.CoreV1Api(self._api).read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=True,
                tail_lines=0,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(TIMEOUT[0], DAY),  # an app may log nothing for a long time
            )
            for line in io.TextIOWrapper(answer, errors="replace"):
                yield line.rstrip("\n")

    def send(self, pod: str, port: int, request: Probe) -> int | None:
        """Status of a request to a pod, through the API server; 504 if the pod is silent, None if it is gone.

        Raises TargetError for an error response of the API server itself, which does not come from the app.
        """
        place = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy"
        what = f"{request.method} {request.path} to pod {pod}"
        _, url, headers, *_ = self._api.param_serialize(
            "GET", place, header_params={}, query_params=[], auth_settings=["BearerToken"]
        )
        body = request.body if request.json_body is None else json.dumps(request.json_body)
        kind = {} if request.json_body is None else {"Content-Type": "application/json"}
        with reported(self.who, self._api.configuration.host, what):
            try:
                answer: Any = self._api.rest_client.pool_manager.request(
                    request.method,
                    f"{url}/{request.path.lstrip('/')}",
                    headers={**kind, **headers, **request.headers},
                    body=body,
                    timeout=urllib3.Timeout(TIMEOUT[0], ANSWER),
                    retries=False,
                )
            except urllib3.exceptions.ReadTimeoutError:
                return NO_ANSWER
            if answer.status == NOT_FOUND and says_itself(answer.data):
                return None
            if answer.status in REFUSALS and says_itself(answer.data):
                raise ApiException(http_resp=rest.RESTResponse(answer), body=answer.data.decode())
        return int(answer.status)

    @property
    def version(self) -> str:
        """Version of the API server, such as `1.36.0`."""
        return str(self._asked("version", lambda: self._client.version["kubernetes"]["gitVersion"])).removeprefix("v")

    # --- how it is asked ---------------------------------------------------------------------------------------

    @property
    def _client(self) -> DynamicClient:
        if self._dynamic is None:
            place = home() / "kubernetes"
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            host = hashlib.sha256(self._api.configuration.host.encode()).hexdigest()[:16]
            self._dynamic = DynamicClient(self._api, cache_file=str(place / f"{host}.json"))
        return self._dynamic

    def _resource(self, kind: Kind) -> Any:
        return self._client.resources.get(api_version=kind.api_version, kind=kind.kind)

    def _one(self, kind: Kind, name: str) -> Object | None:
        try:
            answer = self._resource(kind).get(name=name, namespace=self.namespace, _request_timeout=TIMEOUT)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return dict(answer.to_dict())

    def _asked(self, what: str, verb: Callable[[], T]) -> T:
        return asked(self.who, self._api.configuration.host, what, verb)
