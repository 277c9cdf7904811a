"""Base of targets on hosted platforms, which are used through their public API.

The state is read from the platform. A file for each app has what the platform does not store: the fencing token, and
which revisions are launched without traffic. Losing the file loses no deployment.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from tenacity import wait_exponential_jitter

from blocks.targets._receipts import RequiresReceipts
from headway.domain.errors import TargetError, TargetUnavailable
from headway.domain.fencing import FencingTokens
from headway.domain.measurements import Measurements
from headway.domain.ports import Target
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import Traffic
from headway.domain.version_check import unhealthy
from headway.system import paths as places
from headway.system import tls
from headway.system.atomic_files import locked, write_json
from headway.system.http_client import Failure, HttpClient, Limits, Outcome, Repeat
from headway.system.redaction import Masker
from headway.system.retry_policy import RetryPolicy

__all__ = ["LAST_LINES", "Api", "Hosted", "Token", "Unsure", "sendable"]

LIMITS = Limits(httpx.Timeout(30.0, connect=10.0))
RETRIES = RetryPolicy(
    attempts=6, backoff=wait_exponential_jitter(initial=0.5, max=20.0, jitter=0.5), longest_retry_after=60.0
)
LAST_LINES = 5  # lines of a log in an error


def sendable(value: SecretStr) -> SecretStr:
    """The token, stripped, for use in a header. Raises ValueError when it is not valid there."""
    token = value.get_secret_value().strip()  # copied tokens often end in a newline
    if not token or not all("!" <= character <= "~" for character in token):
        raise ValueError("has to have printable ASCII characters, and no spaces")
    return SecretStr(token)


Token = Annotated[SecretStr, AfterValidator(sendable)]


class Unsure(TargetError):
    """The effect of a request is unknown. Read the platform's state before repeating the request."""


class Api:
    """A connection to one platform, with retries. Errors are TargetErrors without secrets."""

    def __init__(self, name: str, url: str, headers: Mapping[str, str], secrets: list[str]) -> None:
        self.name = name
        self._http = HttpClient(url, LIMITS, RETRIES, self._failed, headers=headers)
        self._http.secrets += secrets

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, *, repeat: Repeat = Repeat.IDEMPOTENT, **sent: Any) -> httpx.Response:
        """Send a request; return the response for any status but 429 and 5xx.

        Raises Unsure if the platform may have processed a request that must not be repeated, TargetError if it does not
        respond or stays overloaded in several attempts.
        """
        return self._http.request(method, path, repeat=repeat, **sent)

    def content(self, answer: httpx.Response) -> Any:
        """JSON of the response. Raises TargetError if it has none."""
        try:
            return answer.json()
        except ValueError:
            raise TargetError(
                f"{self.name} answers {answer.status_code} and no JSON: {self.words(answer.text)}",
                "does the block's URL lead to the API?",
            ) from None

    def words(self, text: str) -> str:
        """A text of the platform for use in an error: on one line, cut, without secrets."""
        return self._http.quote(text) or "nothing"

    @property
    def masker(self) -> Masker:
        return self._http.masker

    def _failed(self, failure: Failure) -> TargetError:
        unsure = failure.outcome is Outcome.UNKNOWN and not failure.may_be_repeated
        kind = Unsure if unsure else TargetUnavailable if failure.outcome else TargetError
        if failure.response is None:
            return kind(
                f"{self.name} does not answer ({failure.request}: {type(failure.error).__name__})",
                "is the network there, and does the block's URL lead to the platform?",
            )
        if failure.response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            again = f": again in {failure.after:.0f} s" if failure.after else ""
            return kind(
                f"{self.name} is asked too often ({failure.request}){again}",
                "its plan limits requests an hour; give the target a longer `poll`",
            )
        return kind(
            f"{self.name} answers {failure.response.status_code} to {failure.request}: "
            f"{self.words(failure.response.text)}",
            "it has trouble of its own: see its status page, then try again",
        )


class HostedState(BaseModel):
    """State of an app, in the file `APP.json`. Installations have such files: fields are never renamed or removed."""

    token: int = 0
    """Highest fencing token that was claimed."""
    launched: dict[str, str] = {}
    """Revision id -> deployment id, of those that are not retired, with or without traffic."""
    preview: str | None = None
    """Revision on the preview route."""
    others: str | None = None
    """Id of the deployment that had the traffic before Headway's first."""


class Hosted(RequiresReceipts, Target):
    """A target whose platform routes to one revision, or splits traffic itself, and chooses the number of instances."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a rejected value may be the token

    directory: Path | None = Field(
        default=None,
        description="directory of its fencing tokens. Default: `targets/TYPE-NAME` in Headway's home directory",
    )
    poll: float = Field(
        default=3.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds between two requests for the state of something that takes time",
    )
    _tokens: FencingTokens = PrivateAttr(default_factory=FencingTokens)
    _polled: float = PrivateAttr(default=0.0)
    _secrets: set[str] = PrivateAttr(default_factory=set)

    # --- the port ------------------------------------------------------------------------------------------------

    def claim(self, app: str, token: int) -> None:
        with self._state(app) as state:
            state.token = self._tokens.claim(app, token, state.token)

    def measure(self, app: str) -> Measurements:  # noqa: ARG002  # the platform tells nobody
        return Measurements(at=datetime.now(UTC), counts={})

    def drain(self, revision: Revision, deadline: float) -> bool:  # noqa: ARG002  # the platform's own part
        return True

    # --- state ---------------------------------------------------------------------------------------------------

    @property
    def _directory(self) -> Path:
        name = f"{self.get_block_type_slug()}-{self._block_document_name or 'default'}"
        return (self.directory or places.home() / "targets" / name).absolute()

    @contextlib.contextmanager
    def _state(self, app: str) -> Iterator[HostedState]:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._directory / f"{app}.lock"):
            state = self._read(app)
            yield state
            write_json(self._directory / f"{app}.json", state.model_dump())

    @contextlib.contextmanager
    def _writing(self, app: str) -> Iterator[HostedState]:
        with self._state(app) as state:
            self._tokens.check(app, state.token)
            yield state

    def _read(self, app: str) -> HostedState:
        with contextlib.suppress(FileNotFoundError):
            return HostedState.model_validate_json((self._directory / f"{app}.json").read_text())
        return HostedState()

    def _may_write(self, app: str) -> None:
        """Raise LockLost if another writer has claimed the app. Called before each change: platforms have no tokens."""
        self._tokens.check(app, self._read(app).token)

    # --- helpers -------------------------------------------------------------------------------------------------

    def _launchable(self, spec: LaunchSpec) -> None:
        """Raise TargetError for a secret without a value. Masks the secrets in the platform's messages from now on."""
        secret = [name for name, value in spec.env.items() if isinstance(value, SecretRef)]
        if secret:
            raise TargetError(f"{spec.environment}: secrets without a value: {', '.join(secret)}", "resolve them first")
        self._secrets |= {str(spec.env[name]) for name in spec.secrets}

    def _identity(self, revision: Revision, spec: LaunchSpec) -> dict[str, str]:
        """Environment variables that every deployment gets from Headway."""
        return {
            "HEADWAY_APP": revision.app,
            "HEADWAY_ENVIRONMENT": spec.environment,
            "HEADWAY_REVISION": revision.id,
            "HEADWAY_VERSION": revision.sha,
        }

    def _routable(self, app: str, traffic: Traffic) -> list[str]:
        """Revisions with a weight, the heaviest first. Raises TargetError for header rules."""
        if traffic.headers:
            raise TargetError(f"{app}: routing by header is not possible here", "choose a strategy without it")
        weights = {revision: weight for revision, weight in traffic.weights.items() if weight}
        return sorted(weights, key=weights.__getitem__, reverse=True)

    def _pace(self) -> None:
        """Wait until `poll` seconds after the previous call: platforms limit requests."""
        wait = self._polled + self.poll - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._polled = time.monotonic()

    def _unhealthy(self, url: str, timeout: float, versions: tuple[str, str]) -> Refusal | None:
        """Reason why the deployment at this URL is not ready, if it is not."""
        with httpx.Client(
            timeout=timeout, headers=self.request_headers, trust_env=False, verify=tls.for_url(url)
        ) as client:
            return unhealthy(client, url, versions)
