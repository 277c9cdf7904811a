"""Login at an OCI registry: basic authentication, or a token from the server that the registry names."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from urllib.request import parse_http_list, parse_keqv_list

import httpx

__all__ = ["Credentials", "Login"]


@dataclass(frozen=True)
class Credentials:
    """Host and login of a registry."""

    host: str
    plain_http: bool
    username: str | None
    password: str | None
    timeout: float  # seconds of a request
    attempts: int


class Login(httpx.Auth):
    """Authenticates when the registry requires it, then with every request. No other host gets credentials."""

    def __init__(self, credentials: Credentials, base: httpx.URL, check: Callable[[httpx.Response], None]) -> None:
        self._base = base
        self._check = check
        self._header = ""
        self._basic = ""
        self.secrets: list[str] = []
        if credentials.username and credentials.password:
            login = f"{credentials.username}:{credentials.password}"
            self._basic = "Basic " + base64.b64encode(login.encode()).decode()
            self.secrets += [credentials.password, self._basic]

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
        answer.read()
        self._check(answer)
        try:
            content = json.loads(answer.content)
            token = content.get("token") or content["access_token"]
            self.secrets.append(token)
            return str(token)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise httpx.HTTPError(f"{answer.url.host} gives no token") from None


def _challenge(header: str) -> tuple[str, dict[str, str]]:
    """Scheme, in lower case, and parameters of a WWW-Authenticate header."""
    scheme, _, rest = header.strip().partition(" ")
    parameters = [one for one in parse_http_list(rest) if "=" in one]
    return scheme.lower(), {name.lower(): value for name, value in parse_keqv_list(parameters).items()}
