"""Whether a request may pass to Prefect: what the door asks before each (Envoy's ext_authz, HTTP service)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from headway.domain.access import Action
from headway.domain.errors import HeadwayError
from headway.ledger.prefect_requests import creator_headers
from headway.policy.access import may
from headway.service.api.authentication import Caller, caller
from headway.service.api.responses import ErrorResponse, RequestRefused, json_response
from headway.service.api.services import Services, ServicesDependency
from headway.service.door.envoy import AUTHORIZE, PREFECT
from headway.service.door.prefect_routes import flow_run_of, required_action
from headway.system.os_user import home_owner
from headway.system.paths import home

__all__ = ["router"]

METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]

router = APIRouter(include_in_schema=False)


@router.api_route(AUTHORIZE + "/{path:path}", methods=METHODS)
async def authorize(request: Request, path: str, services: ServicesDependency) -> Response:
    """Answer 200 for a request that passes. It is recorded first, unless it only reads."""
    try:
        found = await caller(request, services.ledger, services.site)
        if found is None:
            return _sign_in(request, path)
        answer = await asyncio.to_thread(_pass, services, found, request, path)
    except RequestRefused as refused:
        return json_response(refused.status, refused.body)
    except HeadwayError as error:
        return json_response(503, ErrorResponse(error=error.what, hint=error.hint))
    return answer


def _pass(services: Services, found: Caller, request: Request, path: str) -> Response:
    """Record the request, if it may pass, for the run that it creates; else the answer that says why it may not."""
    inner = "/" + path.removeprefix(PREFECT.strip("/")).lstrip("/")
    websocket = request.headers.get("upgrade", "").lower() == "websocket"
    action = required_action(request.method, inner, websocket=websocket) if inner.startswith("/api/") else Action.READ
    authority = services.ledger.grants.authority(found.principal, home_owner(home()))
    refusal = may(authority, action, None, now=datetime.now(UTC))
    if refusal:
        return json_response(403, ErrorResponse(error=refusal.what, hint=refusal.hint))
    if action is Action.READ:
        return Response(status_code=200)
    who, requests = found.principal, services.ledger.prefect_requests
    recorded = requests.record(who, request.method, inner, flow_run_of(inner))
    return Response(status_code=200, headers=creator_headers(recorded, who))


def _sign_in(request: Request, path: str) -> Response:
    """A person gets to the sign-in page, and from there back; a program gets an error."""
    if request.headers.get("sec-fetch-mode") == "navigate" and request.method == "GET":
        query = urlsplit(str(request.url)).query
        wanted = f"/{path}?{query}" if query else f"/{path}"
        return RedirectResponse(f"/sign-in?next={quote(wanted, safe='')}", status_code=302)
    body = ErrorResponse(
        error="nobody is signed in, or the token is wrong", hint="headway open, or headway token create"
    )
    return json_response(401, body)
