"""A conversation with an OCI registry: its HTTP API (the OCI distribution specification), logging in, trying again."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.request import parse_http_list, parse_keqv_list

import httpx
import tenacity
from pydantic import BaseModel, Field, ValidationError

from headway.domain.errors import RegistryError
from headway.system import tls
from headway.system.redaction import Masker

if TYPE_CHECKING:
    from blocks.registries.oci import Registry

__all__ = ["DIGEST", "HUB", "LONGEST", "MANIFEST", "REPOSITORY", "TAG", "Conversation", "descriptor", "encoded"]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = {"Accept": ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX))}

HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")  # all of them names of Docker Hub
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{PART}(?:/{PART})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")

LARGEST = 64_000_000  # bytes of an answer
LONGEST = 300  # characters of what others say, in an error
PAGES = 100  # of a list of referrers
PATIENCE = 60.0  # seconds; a registry that wants to be left alone for longer is not waited for
BACKOFF = tenacity.wait_exponential_jitter(initial=0.5, max=20.0, jitter=0.5)  # seconds

# What the engine says, in words only, of a registry that was busy or of a connection that broke. An upload that is
# unknown was lost with such a connection; another one can be begun.
MAY_PASS = re.compile(
    r"\b(?:HTTP|status|status code):? (?:429|5\d\d)\b|toomanyrequests|too many requests|\bEOF\b|broken pipe"
    r"|connection re(?:set|fused)|timeout|timed out|deadline exceeded|use of closed|blob upload (?:unknown|invalid)",
    re.IGNORECASE,
)
MAY_NOT = re.compile(r"unauthorized|denied|forbidden|no basic auth|authentication required|\b40[13]\b", re.IGNORECASE)

T = TypeVar("T")

_listing = threading.Lock()  # a list of referrers under a tag is read, changed and written back


class _MayPass(RegistryError):
    """Worth another try, after as many seconds as the registry said, if it did."""

    def __init__(self, what: str, hint: str = "", after: float | None = None) -> None:
        super().__init__(what, hint)
        self.after = after


class _Descriptor(BaseModel):
    digest: str = Field(pattern=f"^(?:{DIGEST.pattern})$")
    size: int
    artifactType: str | None = None  # noqa: N815  # OCI's name
    urls: list[str] = []


class _Content(BaseModel):
    """What there is in an image's manifest, an artifact's, or an index."""

    schemaVersion: Literal[2]  # noqa: N815  # OCI's name
    mediaType: str = ""  # noqa: N815  # OCI's name
    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[_Descriptor] | None = None


class _Answer(NamedTuple):
    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL


class _Manifest(NamedTuple):
    media_type: str
    body: bytes
    content: _Content


class Conversation:
    """With one registry about one repository: it keeps its connection and its token."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self.repository = repository
        self._registry = registry
        host = "registry-1.docker.io" if registry.host == HUB[0] else registry.host
        self._base = httpx.URL(f"{'http' if registry.plain_http else 'https'}://{host}")
        self._login = _Login(registry, self._base, self._judge)
        self._client = httpx.Client(
            auth=self._login,
            timeout=registry.timeout,
            headers={"Accept-Encoding": "identity"},  # digests are of the bytes as they are
            # Of https in any case: a plain registry may lead to a token server or to a storage that is not.
            verify=tls.for_url("https://"),
            # A registry out there may be behind a proxy, as it is for the engine; one on this machine never is.
            trust_env=not _is_here(self._base.host),
            follow_redirects=True,  # where the storage is; our Authorization does not go there
            event_hooks={"request": [self._check_allowed]},
        )

    def close(self) -> None:
        self._client.close()

    # --- verbs -------------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Whether it is a registry, and lets us in."""
        self._expect(self._send("GET", "/v2/"), httpx.codes.OK)

    def digest(self, reference: str) -> str | None:
        answer = self._ask("HEAD", self._path(f"manifests/{reference}"), headers=ACCEPT)
        if answer.status == httpx.codes.NOT_FOUND:
            return None
        said = self._expect(answer, httpx.codes.OK).headers.get("Docker-Content-Digest")
        if said is None:
            found = self.manifest(reference)
            return _sum(found.body) if found else None
        if not DIGEST.fullmatch(said):
            raise self._not_a_registry()
        return str(said)

    def manifest(self, reference: str) -> _Manifest | None:
        answer = self._ask("GET", self._path(f"manifests/{reference}"), headers=ACCEPT)
        if answer.status == httpx.codes.NOT_FOUND:
            return None
        self._expect(answer, httpx.codes.OK)
        content = self._understood(answer.body)
        media_type = content.mediaType or answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return _Manifest(media_type, answer.body, content)

    def is_whole(self, digest: str) -> bool:
        found = self.manifest(digest)
        if found is None or not _fits(found.body, digest):
            return False
        if found.content.manifests is not None:
            return all(self.is_whole(one.digest) for one in found.content.manifests)
        named = [*([found.content.config] if found.content.config else []), *found.content.layers]
        return all(self._has(one) for one in named if not one.urls)  # those are kept elsewhere, by licence

    def blob(self, digest: str) -> bytes:
        answer = self._expect(self._ask("GET", self._path(f"blobs/{digest}")), httpx.codes.OK)
        if not _fits(answer.body, digest):
            raise self.error(f"blob {digest} is not what its digest says", "the registry's storage is damaged")
        return answer.body

    def upload(self, content: bytes) -> None:
        self.patiently(lambda: self._upload(content))

    def put(self, reference: str, body: bytes, media_type: str) -> _Answer:
        path = self._path(f"manifests/{reference}")
        answer = self._ask("PUT", path, headers={"Content-Type": media_type}, content=body)
        return self._expect(answer, httpx.codes.CREATED)

    def referrers(self, digest: str) -> list[_Descriptor]:
        """From the registry's API when it has one, else from the list under the tag."""
        url: str | httpx.URL = self._path(f"referrers/{digest}")
        found: list[_Descriptor] = []
        for _ in range(PAGES):
            answer = self._ask("GET", url, headers={"Accept": INDEX})
            if answer.status != httpx.codes.OK or INDEX not in answer.headers.get("Content-Type", ""):
                tagged = self.manifest(_tag_of(digest))
                return (tagged.content.manifests or []) if tagged else []
            found += self._understood(answer.body).manifests or []
            following = httpx.Response(answer.status, headers=answer.headers).links.get("next")
            if following is None:
                return found
            url = answer.url.join(following["url"])
        raise self.error(f"more than {PAGES} pages of referrers of {digest}", "remove those that nobody needs")

    def list_under_tag(self, subject: str, descriptor: dict[str, Any]) -> None:
        with _listing:
            tag = _tag_of(subject)
            found = self.manifest(tag)
            if found and found.content.manifests is None:
                raise self.error(f"tag {tag} is not a list of referrers", "remove it: nothing else may be called that")
            listed = json.loads(found.body)["manifests"] if found else []
            if all(one["digest"] != descriptor["digest"] for one in listed):
                index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, descriptor]}
                self.put(tag, encoded(index), INDEX)

    def _has(self, blob: _Descriptor) -> bool:
        answer = self._ask("HEAD", self._path(f"blobs/{blob.digest}"))
        if answer.status == httpx.codes.NOT_FOUND:
            return False
        size = self._expect(answer, httpx.codes.OK).headers.get("Content-Length")
        return size is None or size == str(blob.size)

    def _upload(self, content: bytes) -> None:
        digest = _sum(content)
        if self._send("HEAD", self._path(f"blobs/{digest}")).status == httpx.codes.OK:
            return
        begun = self._expect(self._send("POST", self._path("blobs/uploads/")), httpx.codes.ACCEPTED)
        place = begun.url.join(begun.headers.get("Location", "")).copy_merge_params({"digest": digest})
        sent = self._send("PUT", place, headers={"Content-Type": "application/octet-stream"}, content=content)
        self._expect(sent, httpx.codes.CREATED)

    # --- asking ------------------------------------------------------------------------------------------------

    def patiently(
        self, attempt: Callable[[], T], seconds: float | None = None, say: Callable[[str], None] = lambda _line: None
    ) -> T:
        """Try until it works, at most as often as the block says, and with no new try after so many seconds."""
        tries = self._registry.tries
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_MayPass),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(tries), *([tenacity.stop_before_delay(seconds)] if seconds else [])
            ),
            wait=_pause,
            before_sleep=lambda state: say(
                f"{_failure(state).what}; try {state.attempt_number + 1} of {tries} in {state.upcoming_sleep:.1f} s"
            ),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except _MayPass as error:
            tried = retrying.statistics["attempt_number"]
            times = "once" if tried == 1 else f"{tried} times"
            raise RegistryError(f"{error.what} (tried {times})", error.hint) from None

    def _ask(
        self, method: str, url: str | httpx.URL, *, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> _Answer:
        return self.patiently(lambda: self._send(method, url, headers=headers, content=content))

    def _send(
        self, method: str, url: str | httpx.URL, *, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> _Answer:
        """One request. Raises _MayPass when another one may be answered better."""
        # httpx limits every step but not their sum, and the look-up of a name not at all.
        pool = ThreadPoolExecutor(1, "registry")
        try:
            where = self._base.join(url)
            answer = pool.submit(self._fetch, method, where, headers or {}, content).result(self._registry.timeout)
        except (TimeoutError, httpx.TimeoutException):
            raise self.error(
                f"no answer within {self._registry.timeout:g} s",
                "see whether it is overloaded, or raise the block's timeout",
            ) from None
        except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
            # Not chained: the original quotes what the server sent, and that may be our password.
            raise self._unreachable(error) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self.error(f"{type(error).__name__}: {error}", "check the block's host") from None
        finally:
            pool.shutdown(wait=False)
        self._judge(answer)
        return answer

    def _fetch(self, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes) -> _Answer:
        end = time.monotonic() + self._registry.timeout
        body = bytearray()
        with self._client.stream(method, url, headers=dict(headers), content=content) as answer:
            for piece in answer.iter_bytes():
                body += piece
                if time.monotonic() > end:  # nobody waits for it any more: let the thread go
                    raise httpx.ReadTimeout("")
                if len(body) > LARGEST:
                    raise self.error(f"an answer of more than {LARGEST:,} bytes", "check the block's host")
        return _Answer(answer.status_code, answer.headers, bytes(body), answer.url)

    def _path(self, rest: str) -> str:
        return f"/v2/{self.repository}/{rest}"

    def _check_allowed(self, request: httpx.Request) -> None:
        if request.url.scheme == "http" and not self._registry.plain_http:
            raise self.error(
                f"leads to http://{request.url.netloc.decode()}, which is plain http",
                "set the block's plain_http if that is meant",
            )

    # --- understanding -----------------------------------------------------------------------------------------

    def _understood(self, body: bytes) -> _Content:
        try:
            return _Content.model_validate_json(body)
        except ValidationError:
            raise self._not_a_registry() from None

    def _judge(self, answer: _Answer) -> None:
        """Raises for what no verb knows an answer to."""
        if answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise self.error(self._says(answer), self._about_rights())
        if answer.status == httpx.codes.TOO_MANY_REQUESTS or answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            after = _seconds(answer.headers.get("Retry-After"))
            if after is not None and after > PATIENCE:
                raise self.error(
                    f"{self._says(answer)}, and wants to be left alone for {after:,.0f} s", "try again after that"
                )
            raise self.broken(self._says(answer), after)

    def _expect(self, answer: _Answer, status: httpx.codes) -> _Answer:
        if answer.status == status:
            return answer
        if answer.status == httpx.codes.NOT_FOUND:
            raise self.error(self._says(answer), "is the repository there? some registries want it made first")
        raise self.error(self._says(answer), "check the block's host: what follows it is /v2/")

    def _says(self, answer: _Answer) -> str:
        """Who answers what, with the registry's own words where there are some."""
        who = "" if answer.url.host == self._base.host else f"{answer.url.host} "
        said = f"{who}answers {answer.status}"
        with suppress(ValueError, LookupError, TypeError, RecursionError):
            first = json.loads(answer.body)["errors"][0]
            return f"{said}: {first['code']}: {first['message']}"
        return said

    # --- errors ------------------------------------------------------------------------------------------------

    def push_failed(self, said: str, tag: str) -> RegistryError:
        """What the engine said of a push, as something that may pass or not."""
        what = f"push of {tag}: {said}"
        if MAY_PASS.search(said):
            return self.broken(what, self._wish(tag))
        if MAY_NOT.search(said):
            return self.error(what, self._about_rights())
        if "HTTP response to HTTPS client" in said:
            return self.error(what, "name it among the engine's insecure-registries if it has no TLS")
        return self.error(what, "see the registry's log, and that of the Docker engine")

    def _wish(self, tag: str) -> float | None:
        """Seconds that the registry wants to be left alone. It told the engine, which does not pass it on."""
        try:
            self._send("HEAD", self._path(f"manifests/{tag}"), headers=ACCEPT)
        except _MayPass as busy:
            return busy.after
        return None

    def error(self, what: str, hint: str) -> RegistryError:
        return RegistryError(self._line(what), hint)

    def broken(self, what: str, after: float | None = None) -> _MayPass:
        return _MayPass(self._line(what), "see whether it runs and can be reached, and its log", after)

    def _line(self, what: str) -> str:
        return f"registry {self._registry.host}: {self.repository}: {self.quote(what)}"

    def quote(self, text: str) -> str:
        """Fit for an error or a log: without secrets, on one line, at most 300 characters."""
        masked = Masker(self._login.secrets)(text)
        line = " ".join("".join(one if one.isprintable() else " " for one in masked).split())
        return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"

    def _unreachable(self, error: httpx.TransportError) -> RegistryError:
        what = f"{type(error).__name__}: {error}"
        match _tls_of(error):
            case None | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return self.broken(what)
            case ssl.SSLCertVerificationError():
                return self.error(what, "set SSL_CERT_FILE to a file that has the registry's authority as well")
        return self.error(what, "does it speak plain http? then set the block's plain_http")

    def _not_a_registry(self) -> RegistryError:
        return self.error("answers, but not as a registry does", "check the block's host: what follows it is /v2/")

    def _about_rights(self) -> str:
        if self._registry.username is None:
            return "give the block a user and password that may do this, and see whether the repository's name is right"
        return f"is the password right and not expired, and may {self._registry.username} do this in this repository?"


class _Login(httpx.Auth):
    """Says who we are when the registry asks for it, and then with every request; to nobody else."""

    def __init__(self, registry: Registry, base: httpx.URL, judge: Callable[[_Answer], None]) -> None:
        self._base = base
        self._judge = judge
        self._header = ""
        self._basic = ""
        self.secrets: list[str] = []
        if registry.username and registry.password:
            password = registry.password.get_secret_value()
            self._basic = "Basic " + base64.b64encode(f"{registry.username}:{password}".encode()).decode()
            self.secrets += [password, self._basic]

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._header and self._is_registry(request.url):
            request.headers["Authorization"] = self._header
        answer = yield request
        if answer.status_code != httpx.codes.UNAUTHORIZED or not self._is_registry(answer.url):
            return
        challenges = dict(map(_challenge, answer.headers.get_list("WWW-Authenticate")))
        if "bearer" in challenges:
            self._header = "Bearer " + self._token((yield self._request(challenges["bearer"])))
        elif "basic" in challenges and self._basic:
            self._header = self._basic
        else:
            return
        request.headers["Authorization"] = self._header
        yield request

    def _is_registry(self, url: httpx.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self._base.scheme, self._base.host, self._base.port)

    def _request(self, challenge: Mapping[str, str]) -> httpx.Request:
        asked = httpx.QueryParams({"service": challenge["service"]} if "service" in challenge else {})
        for scope in challenge.get("scope", "").split():
            asked = asked.add("scope", scope)
        url = self._base.join(challenge.get("realm", "")).copy_merge_params(asked)
        return httpx.Request("GET", url, headers={"Authorization": self._basic} if self._basic else {})

    def _token(self, answer: httpx.Response) -> str:
        said = _Answer(answer.status_code, answer.headers, answer.read(), answer.url)
        self._judge(said)
        try:
            content = json.loads(said.body)
            token = content.get("token") or content["access_token"]
            self.secrets.append(token)
            return str(token)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise httpx.HTTPError(f"{answer.url.host} gives no token") from None


# --- small things --------------------------------------------------------------------------------------------------


def _challenge(header: str) -> tuple[str, dict[str, str]]:
    """Of a WWW-Authenticate header: its scheme in lower case, and what is said with it."""
    scheme, _, rest = header.strip().partition(" ")
    said = [one for one in parse_http_list(rest) if "=" in one]
    return scheme.lower(), {name.lower(): value for name, value in parse_keqv_list(said).items()}


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _sum(content), "size": len(content)}


def encoded(document: dict[str, Any]) -> bytes:
    """The same document is the same bytes, hence the same digest."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _sum(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def _fits(content: bytes, digest: str) -> bool:
    return _sum(content, digest.partition(":")[0]) == digest


def _tag_of(digest: str) -> str:
    """Where OCI 1.1 has the list of referrers when there is no API for them."""
    algorithm, _, content = digest.partition(":")
    return f"{algorithm}-{content[:64]}"


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds(after: str | None) -> float | None:
    """Of a Retry-After header, which is in seconds or a date; None when there is none that can be read."""
    if after is None:
        return None
    if after.strip().isdigit():
        return float(after)
    try:
        date = parsedate_to_datetime(after)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _failure(state: tenacity.RetryCallState) -> _MayPass:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, _MayPass)
    return error


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next try. Also after those that the registry asked for: it asked others, too."""
    return (_failure(state).after or 0.0) + BACKOFF(state)


def _tls_of(error: BaseException) -> ssl.SSLError | None:
    """What TLS said, when it is the reason."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause
