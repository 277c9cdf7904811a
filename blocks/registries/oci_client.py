"""Client of an OCI registry's HTTP API (the OCI distribution specification), with retries."""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError
from tenacity import wait_exponential_jitter

from blocks.registries.oci_documents import (
    ACCEPT,
    DIGEST,
    INDEX,
    Content,
    Descriptor,
    Manifest,
    digest_of,
    encoded,
    fits,
    referrers_tag,
)
from blocks.registries.registry_login import Credentials, Login
from headway.domain.errors import RegistryError
from headway.system.http_client import Failure, Failures, HttpClient, Limits, Repeat, tls_error
from headway.system.retry_policy import Retry, Retryable, RetryPolicy

__all__ = ["HUB", "LONGEST", "Conversation"]

HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")  # names of Docker Hub
LONGEST = 300  # characters of a quoted text in an error
PAGES = 100  # of a list of referrers
# Every request is idempotent: content is addressed by its digest, and a lost upload is started again.
FAILURES = Failures(
    errors_not_processed=(httpx.ConnectError,),
    errors_unknown=(httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError),
)
RETRIES = RetryPolicy(
    attempts=5, backoff=wait_exponential_jitter(initial=0.5, max=20.0, jitter=0.5), longest_retry_after=60.0
)

# The engine reports a busy registry or a broken connection as text only. An "unknown" upload was lost with its
# connection; a new one can be started.
MAY_PASS = re.compile(
    r"\b(?:HTTP|status|status code):? (?:429|5\d\d)\b|toomanyrequests|too many requests|\bEOF\b|broken pipe"
    r"|connection re(?:set|fused)|timeout|timed out|deadline exceeded|use of closed|blob upload (?:unknown|invalid)",
    re.IGNORECASE,
)
MAY_NOT = re.compile(r"unauthorized|denied|forbidden|no basic auth|authentication required|\b40[13]\b", re.IGNORECASE)

T = TypeVar("T")

_listing = threading.Lock()  # a list of referrers under a tag is read, changed and written back


class Conversation:
    """A session with one repository of a registry. Keeps its connection and its token."""

    def __init__(self, credentials: Credentials, repository: str) -> None:
        self.repository = repository
        self._credentials = credentials
        host = "registry-1.docker.io" if credentials.host == HUB[0] else credentials.host
        self._base = httpx.URL(f"{'http' if credentials.plain_http else 'https'}://{host}")
        self._login = Login(credentials, self._base, self._check_token)
        self._retries = replace(RETRIES, attempts=credentials.attempts)
        self._http = HttpClient(
            str(self._base),
            Limits(credentials.timeout, whole=credentials.timeout),
            self._retries,
            self._failed,
            FAILURES,
            auth=self._login,
            headers={"Accept-Encoding": "identity"},  # digests are of the bytes as they are
            # A remote registry may be behind a proxy, as for the engine; one on this machine never is.
            trust_env=not _is_here(self._base.host),
            follow_redirects=True,  # where the storage is; our Authorization does not go there
            event_hooks={"request": [self._check_allowed]},
        )
        self._http.secrets = self._login.secrets

    def close(self) -> None:
        self._http.close()

    # --- verbs -------------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Check that the host is a registry and accepts the login."""
        self._expect(self._send("GET", "/v2/"), httpx.codes.OK)

    def digest(self, reference: str) -> str | None:
        answer = self._ask("HEAD", self._path(f"manifests/{reference}"), headers=ACCEPT)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        digest = self._expect(answer, httpx.codes.OK).headers.get("Docker-Content-Digest")
        if digest is None:
            found = self.manifest(reference)
            return digest_of(found.body) if found else None
        if not DIGEST.fullmatch(digest):
            raise self._not_a_registry()
        return str(digest)

    def manifest(self, reference: str) -> Manifest | None:
        answer = self._ask("GET", self._path(f"manifests/{reference}"), headers=ACCEPT)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        self._expect(answer, httpx.codes.OK)
        content = self._understood(answer.content)
        media_type = content.mediaType or answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(media_type, answer.content, content)

    def is_whole(self, digest: str) -> bool:
        found = self.manifest(digest)
        if found is None or not fits(found.body, digest):
            return False
        if found.content.manifests is not None:
            return all(self.is_whole(one.digest) for one in found.content.manifests)
        named = [*([found.content.config] if found.content.config else []), *found.content.layers]
        return all(self._has(one) for one in named if not one.urls)  # foreign layers are stored elsewhere

    def blob(self, digest: str) -> bytes:
        answer = self._expect(self._ask("GET", self._path(f"blobs/{digest}")), httpx.codes.OK)
        if not fits(answer.content, digest):
            raise self.error(f"blob {digest} is not what its digest says", "the registry's storage is damaged")
        return answer.content

    def upload(self, content: bytes) -> None:
        self.patiently(lambda: self._upload(content))

    def put(self, reference: str, body: bytes, media_type: str) -> httpx.Response:
        path = self._path(f"manifests/{reference}")
        answer = self._ask("PUT", path, headers={"Content-Type": media_type}, content=body)
        return self._expect(answer, httpx.codes.CREATED)

    def referrers(self, digest: str) -> list[Descriptor]:
        """Referrers from the registry's API if it has one, otherwise from the list under the tag."""
        url: str | httpx.URL = self._path(f"referrers/{digest}")
        found: list[Descriptor] = []
        for _ in range(PAGES):
            answer = self._ask("GET", url, headers={"Accept": INDEX})
            if answer.status_code != httpx.codes.OK or INDEX not in answer.headers.get("Content-Type", ""):
                tagged = self.manifest(referrers_tag(digest))
                return (tagged.content.manifests or []) if tagged else []
            found += self._understood(answer.content).manifests or []
            following = answer.links.get("next")
            if following is None:
                return found
            url = answer.url.join(following["url"])
        raise self.error(f"more than {PAGES} pages of referrers of {digest}", "remove unused ones")

    def list_under_tag(self, subject: str, descriptor: dict[str, Any]) -> None:
        with _listing:
            tag = referrers_tag(subject)
            found = self.manifest(tag)
            if found and found.content.manifests is None:
                raise self.error(f"tag {tag} is not a list of referrers", "remove it: nothing else may be called that")
            listed = json.loads(found.body)["manifests"] if found else []
            if all(one["digest"] != descriptor["digest"] for one in listed):
                index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, descriptor]}
                self.put(tag, encoded(index), INDEX)

    def _has(self, blob: Descriptor) -> bool:
        answer = self._ask("HEAD", self._path(f"blobs/{blob.digest}"))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        size = self._expect(answer, httpx.codes.OK).headers.get("Content-Length")
        return size is None or size == str(blob.size)

    def _upload(self, content: bytes) -> None:
        digest = digest_of(content)
        if self._send("HEAD", self._path(f"blobs/{digest}")).status_code == httpx.codes.OK:
            return
        begun = self._expect(self._send("POST", self._path("blobs/uploads/")), httpx.codes.ACCEPTED)
        place = begun.url.join(begun.headers.get("Location", "")).copy_merge_params({"digest": digest})
        sent = self._send("PUT", place, headers={"Content-Type": "application/octet-stream"}, content=content)
        self._expect(sent, httpx.codes.CREATED)

    # --- asking ------------------------------------------------------------------------------------------------

    def patiently(
        self, attempt: Callable[[], T], seconds: float | None = None, say: Callable[[str], None] = lambda _line: None
    ) -> T:
        """Retry up to the block's limit of attempts; no new attempt starts after this many seconds."""
        policy = replace(self._retries, deadline=seconds)

        def announce(retry: Retry) -> None:
            failed = retry.error.what if isinstance(retry.error, RegistryError) else str(retry.error)
            say(f"{failed}; try {retry.number} of {policy.attempts} in {retry.pause:.1f} s")

        try:
            return policy.run(attempt, announce)
        except Retryable as failure:
            error = failure.error
            assert isinstance(error, RegistryError)
            if policy.asks_too_long(failure):
                raise RegistryError(
                    f"{error.what}, and asks for a pause of {failure.after:,.0f} s", "try again after that"
                ) from None
            times = "once" if failure.attempts == 1 else f"{failure.attempts} times"
            raise RegistryError(f"{error.what} (tried {times})", error.hint) from None

    def _ask(
        self, method: str, url: str | httpx.URL, *, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> httpx.Response:
        return self.patiently(lambda: self._send(method, url, headers=headers, content=content))

    def _send(
        self, method: str, url: str | httpx.URL, *, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> httpx.Response:
        """Send one request. Raises Retryable if another attempt may succeed."""
        where = self._base.join(url)
        answer = self._http.attempt(
            method, where, repeat=Repeat.IDEMPOTENT, headers=dict(headers or {}), content=content
        )
        self._check_access(answer)
        return answer

    def _path(self, rest: str) -> str:
        return f"/v2/{self.repository}/{rest}"

    def _check_allowed(self, request: httpx.Request) -> None:
        if request.url.scheme == "http" and not self._credentials.plain_http:
            raise self.error(
                f"leads to http://{request.url.netloc.decode()}, which is plain http",
                "set the block's plain_http if that is meant",
            )

    # --- understanding -----------------------------------------------------------------------------------------

    def _understood(self, body: bytes) -> Content:
        try:
            return Content.model_validate_json(body)
        except ValidationError:
            raise self._not_a_registry() from None

    def _check_token(self, answer: httpx.Response) -> None:
        """Check a response of the token server."""
        self._check_access(answer)
        self._http.check(answer, f"GET {answer.url}")

    def _check_access(self, answer: httpx.Response) -> None:
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise self.error(self._says(answer), self._about_rights())

    def _expect(self, answer: httpx.Response, status: httpx.codes) -> httpx.Response:
        if answer.status_code == status:
            return answer
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise self.error(self._says(answer), "is the repository there? some registries want it made first")
        raise self.error(self._says(answer), "check the block's host: what follows it is /v2/")

    def _says(self, answer: httpx.Response) -> str:
        """Status of a response, with the registry's error message if there is one."""
        who = "" if answer.url.host == self._base.host else f"{answer.url.host} "
        status = f"{who}answers {answer.status_code}"
        with suppress(ValueError, LookupError, TypeError, RecursionError):
            first = json.loads(answer.content)["errors"][0]
            return f"{status}: {first['code']}: {first['message']}"
        return status

    # --- errors ------------------------------------------------------------------------------------------------

    def push_failed(self, message: str, tag: str) -> Exception:
        """Error for the engine's message about a failed push; Retryable if it may be temporary."""
        what = f"push of {tag}: {message}"
        if MAY_PASS.search(message):
            return self.broken(what, self._retry_after(tag))
        if MAY_NOT.search(message):
            return self.error(what, self._about_rights())
        if "HTTP response to HTTPS client" in message:
            return self.error(what, "name it among the engine's insecure-registries if it has no TLS")
        return self.error(what, "see the registry's log, and that of the Docker engine")

    def _retry_after(self, tag: str) -> float | None:
        """The registry's Retry-After in seconds. The engine gets it with its own request, but does not report it."""
        try:
            self._send("HEAD", self._path(f"manifests/{tag}"), headers=ACCEPT)
        except Retryable as busy:
            return busy.after
        return None

    def error(self, what: str, hint: str) -> RegistryError:
        return RegistryError(self._line(what), hint)

    def broken(self, what: str, after: float | None = None) -> Retryable:
        return Retryable(self._unavailable(what), after)

    def _unavailable(self, what: str) -> RegistryError:
        return self.error(what, "see whether it runs and can be reached, and its log")

    def _line(self, what: str) -> str:
        return f"registry {self._credentials.host}: {self.repository}: {self.quote(what)}"

    def quote(self, text: str) -> str:
        """Text for an error or a log: without secrets, on one line, at most 300 characters."""
        return self._http.quote(text)

    def _failed(self, failure: Failure) -> RegistryError:
        if failure.response is not None:
            return self._unavailable(self._says(failure.response))
        error = failure.error
        if isinstance(error, httpx.TimeoutException):
            return self.error(
                f"no answer within {self._credentials.timeout:g} s",
                "see whether it is overloaded, or raise the block's timeout",
            )
        what = f"{type(error).__name__}: {error}"
        if failure.may_be_repeated:
            return self._unavailable(what)
        match tls_error(error) if error else None:
            case None:
                return self.error(what, "check the block's host")
            case ssl.SSLCertVerificationError():
                return self.error(what, "set SSL_CERT_FILE to a file that has the registry's authority as well")
        return self.error(what, "does it speak plain http? then set the block's plain_http")

    def _not_a_registry(self) -> RegistryError:
        return self.error("answers, but not as a registry does", "check the block's host: what follows it is /v2/")

    def _about_rights(self) -> str:
        if self._credentials.username is None:
            return "give the block a user and password that may do this, and see whether the repository's name is right"
        return (
            f"is the password right and not expired, and may {self._credentials.username} do this in this repository?"
        )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
