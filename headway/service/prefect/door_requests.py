"""Requests that people send to Prefect's server through the door: no secrets, and no code of theirs.

The door has authenticated them and added the credential of the server. What a role may not do is refused before a
request comes here, by its method and path. Here is what depends on its body, and what Prefect's UI needs.
"""

from __future__ import annotations

import hmac
import json
import re
from typing import Any
from urllib.parse import parse_qs

from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, temporary_settings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.service.door.envoy import MARK
from headway.service.prefect.credential import authorization

__all__ = ["DoorRequests"]

BODY_LIMIT = 4 * 1024 * 1024  # bytes; a request of Prefect's UI has a few kilobytes
REFUSED = {
    "include_secrets": "nobody can read the secrets of a block here",
    "job_variables": "job variables of a run are not set here: they can name a command",
}
RUNS = re.compile(r"/api/(deployments/[^/]+/create_flow_run(/bulk)?|flow_runs)/?")  # what job variables are refused in
NO: tuple[object, ...] = (None, False, {}, [])


class DoorRequests:
    """Refuses requests for secrets and with job variables; signs the event streams of Prefect's UI in."""

    def __init__(self, server: ASGIApp) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not _from_door(Headers(scope=scope)):
            await self._server(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._server(scope, _signed_in(receive), send)
        elif scope["path"].endswith("/ui-settings"):
            # The UI would ask people for the server's credential.
            with temporary_settings(restore_defaults={PREFECT_SERVER_API_AUTH_STRING}):
                await self._server(scope, receive, send)
        else:
            await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            answer = JSONResponse({"detail": f"the body is larger than {BODY_LIMIT // 2**20} MiB"}, 413)
            await answer(scope, receive, send)
            return
        if name := _refused(scope, body):
            await JSONResponse({"detail": REFUSED[name]}, 403)(scope, receive, send)
            return
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._server(scope, again, send)


def _from_door(headers: Headers) -> bool:
    """Whether the door sent it: anybody can send the mark to the server's port, but not with the server's login."""
    given = headers.get("authorization", "")
    return MARK in headers and hmac.compare_digest(given.encode(), authorization(_login()).encode())


def _login() -> str:
    login = PREFECT_SERVER_API_AUTH_STRING.value()
    return str(login.get_secret_value() if hasattr(login, "get_secret_value") else login)


def _signed_in(receive: Receive) -> Receive:
    """The first message of a stream has the token of the person, who has none: the server's is put there."""
    waits = True

    async def message() -> Message:
        nonlocal waits
        received = await receive()
        if not waits or received["type"] != "websocket.receive":
            return received
        waits = False
        content = _json((received.get("text") or "").encode() or received.get("bytes") or b"")
        if not isinstance(content, dict) or content.get("type") != "auth":
            return received
        return {"type": "websocket.receive", "text": json.dumps(content | {"token": _login()})}

    return message


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when it is too large. One that is cut off is empty: the client has gone."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        body += bytes(message.get("body", b""))
        if len(body) > BODY_LIMIT:
            return None
        if not message.get("more_body", False):
            return body


def _refused(scope: Scope, body: bytes) -> str | None:
    """The parameter or field for which the request is refused."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    if any(value.lower() not in ("false", "0", "no", "off", "f", "n") for value in query.get("include_secrets", [])):
        return "include_secrets"
    fields = [name for name in REFUSED if name != "job_variables" or RUNS.fullmatch(scope["path"])]
    content = _json(body)
    documents = [one for one in (content if isinstance(content, list) else [content]) if isinstance(one, dict)]
    return next((name for name in fields for one in documents if one.get(name) not in NO), None)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):  # the server cannot read it either
        return None
