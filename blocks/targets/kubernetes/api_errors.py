"""Errors of the API server: which may be temporary, how often they are retried, and what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import urllib3
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ResourceNotFoundError
from tenacity import wait_exponential_jitter

from headway.domain.errors import TargetError, TargetUnavailable
from headway.system.retry_policy import Retryable, RetryPolicy, retry_after

__all__ = ["CONFLICT", "NOT_FOUND", "SILENT", "FieldConflict", "asked", "first_line", "reported", "says_itself"]

T = TypeVar("T")
SILENT = (urllib3.exceptions.HTTPError, OSError)
NOT_FOUND, CONFLICT, TOO_MANY = 404, 409, 429
# What passes: the server has no time (429, with priority and fairness), restarts, or has lost its etcd for a moment.
PASSING = (TOO_MANY, 500, 502, 503, 504)
# The Kubernetes client has a transport of its own (urllib3): only the policy is that of HttpClient.
CONFLICTS = re.compile(r'conflict with "([^"]+)"')
RETRIES = RetryPolicy(attempts=5, backoff=wait_exponential_jitter(initial=0.2, max=5.0), longest_retry_after=60.0)


class FieldConflict(TargetError):
    """A field of an object belongs to another field manager. `fields`: manager and path of each."""

    fields: tuple[tuple[str, str], ...] = ()


def asked(who: str, host: str, what: str, verb: Callable[[], T]) -> T:
    """Call `verb`, again after errors that may be temporary. Raises TargetError for all others and for the last one."""
    with reported(who, host, what):
        try:
            return RETRIES.run(lambda: _attempt(verb))
        except Retryable as failure:
            raise failure.error from None


@contextmanager
def reported(who: str, host: str, what: str) -> Iterator[None]:
    """Raise errors of the API server at `host` as TargetError that begins with `who: what`."""
    try:
        yield
    except ResourceNotFoundError as error:
        raise TargetError(
            f"{who}: {what}: the cluster has no such kind of object", "is its definition (CRD) installed?"
        ) from error
    except ApiException as error:
        said = f"{who}: {what}: {_said(error)}"
        if fields := _fields(error):
            conflict = FieldConflict(said, "`headway plan ENVIRONMENT --diff` has the command that resolves it")
            conflict.fields = fields
            raise conflict from error
        kind = TargetUnavailable if error.status in PASSING else TargetError
        raise kind(said, _hint(error)) from error
    except SILENT as error:
        raise TargetUnavailable(
            f"{who}: {what}: the API server {host} does not answer: {first_line(error)}",
            "is the cluster up, and does the kubeconfig name it?",
        ) from error


def _attempt(verb: Callable[[], T]) -> T:
    """Raise Retryable for errors that may be temporary."""
    try:
        return verb()
    except ApiException as error:
        if error.status in PASSING:
            raise Retryable(error, retry_after(error.headers or {})) from None
        raise
    except SILENT as error:
        raise Retryable(error) from None


def says_itself(body: bytes | str | None) -> bool:
    """Whether the API server says this itself, and not a pod that it passed a request on to."""
    told = _status(body)
    return told.get("kind") == "Status" and told.get("apiVersion") == "v1"


def _status(body: bytes | str | None) -> Mapping[str, Any]:
    """A Status object, or whatever the body has instead of it."""
    try:
        told = json.loads(body or "")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _said(error: ApiException) -> str:
    """The message of a Status object, which is in English and names the field."""
    message = _status(error.body).get("message")
    return " ".join(str(message or error.reason or f"status {error.status}").split())[:600]


def _fields(error: ApiException) -> tuple[tuple[str, str], ...]:
    """Field managers and paths of the fields that an apply conflicts in."""
    causes = (_status(error.body).get("details") or {}).get("causes") or []
    return tuple(
        (found[1], one.get("field", ""))
        for one in causes
        if one.get("reason") == "FieldManagerConflict" and (found := CONFLICTS.search(one.get("message", "")))
    )


def _hint(error: ApiException) -> str:
    return {
        401: "are the credentials of the kubeconfig still valid?",
        403: "docs/kubernetes-role.yaml is the Role that Headway needs",
        CONFLICT: "somebody else has just changed it: try again",
        422: "the cluster refuses the object as it is",
    }.get(error.status, "kubectl describe shows more")


def first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
