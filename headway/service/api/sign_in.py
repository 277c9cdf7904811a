"""Pages to sign in and out, and the start page."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from headway.ledger.sessions import ABSOLUTE
from headway.policy.access import role_of
from headway.service.api.authentication import caller
from headway.service.api.responses import RequestRefused, read_body
from headway.service.api.services import Services, ServicesDependency
from headway.service.door.envoy import PREFECT
from headway.system.os_user import home_owner
from headway.system.paths import home

__all__ = ["begin_session", "page", "router"]

FORM_LIMIT = 4096  # bytes
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

router = APIRouter(include_in_schema=False)


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """One of the templates, with a policy that allows no script, and no copy in a cache."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(TEMPLATES.get_template(template).render(**values), status, headers)


@router.get("/assets/headway.css")
async def stylesheet() -> Response:
    text = (Path(__file__).parent / "templates" / "headway.css").read_text()
    return Response(text, media_type="text/css", headers={"Cache-Control": "max-age=300"})


@router.get("/")
async def start_page(request: Request, services: ServicesDependency) -> Response:
    """Who is signed in, and where everything is."""
    try:
        found = await caller(request, services.ledger, services.site)
    except RequestRefused as refused:
        return _refusal(refused)
    if found is None:
        return RedirectResponse("/sign-in", 303)
    authority = await asyncio.to_thread(services.ledger.grants.authority, found.principal, home_owner(home()))
    role = role_of(authority, None)
    return page(
        "start.html",
        person=str(found.principal),
        role=role.value if role else "no role for all apps",
        csrf_token=found.csrf_token,
        prefect=f"{PREFECT}/",
    )


@router.get("/sign-in")
async def sign_in_page(request: Request, services: ServicesDependency) -> Response:
    """A link from `headway open` has a code, which the button of this page uses: looking at a link uses nothing."""
    wanted = _local(request.query_params.get("next", ""))
    try:
        services.site.require_host(request.headers)
        found = await caller(request, services.ledger, services.site)
    except RequestRefused as refused:
        return _refusal(refused)
    if found is not None and "code" not in request.query_params:
        return RedirectResponse(wanted, 303)
    code = request.query_params.get("code", "")[:200]
    # A browser sends no SameSite=Strict cookie when another site's page leads here, but does when this page does.
    again = not code and request.headers.get("sec-fetch-site") == "cross-site"
    return page("sign_in.html", next=wanted, code=code, again=again, failed=False)


@router.post("/sign-in")
async def sign_in(request: Request, services: ServicesDependency) -> Response:
    """Use the code of a link up, and begin a session."""
    address = request.client.host if request.client else ""
    try:
        services.site.require_host(request.headers)
        services.site.require_same_origin(request.method, request.headers)
        if not await services.rate_limits.may_guess(address):
            raise RequestRefused(429, "too many wrong codes from this address", "wait a minute")
        form = await _form(request)
    except RequestRefused as refused:
        return _refusal(refused)
    session = await asyncio.to_thread(services.ledger.sessions.redeem, form.get("code", ""))
    wanted = _local(form.get("next", ""))
    if session is None:
        await services.rate_limits.refused(address)
        return page("sign_in.html", 403, next=wanted, code="", again=False, failed=True)
    return begin_session(services, session, wanted)


@router.post("/sign-out")
async def sign_out(request: Request, services: ServicesDependency) -> Response:
    """End the session."""
    try:
        found = await caller(request, services.ledger, services.site)
        form = await _form(request)
        if found and not hmac.compare_digest(form.get("csrf_token", ""), found.csrf_token):
            raise RequestRefused(403, "the form is not one of this session", "reload the page and sign out again")
    except RequestRefused as refused:
        return _refusal(refused)
    if found:
        await asyncio.to_thread(services.ledger.sessions.end, found.session)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(services.site.cookie, path="/", secure=services.site.secure, httponly=True, samesite="strict")
    return answer


def begin_session(services: Services, session: str, wanted: str) -> Response:
    """Set the cookie of a session, and lead to a page."""
    answer = RedirectResponse(wanted, 303)
    answer.set_cookie(
        services.site.cookie,
        session,
        max_age=round(ABSOLUTE.total_seconds()),
        path="/",
        secure=services.site.secure,
        httponly=True,
        samesite="strict",
    )
    return answer


def _local(wanted: str) -> str:
    """A path of this origin; the start page for anything else, which could lead to another site."""
    path = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if path and len(wanted) < 2000 else "/"


async def _form(request: Request) -> dict[str, str]:
    body = await read_body(request, FORM_LIMIT)
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _refusal(refused: RequestRefused) -> Response:
    return page("refused.html", refused.status, error=refused.body.error, hint=refused.body.hint)
