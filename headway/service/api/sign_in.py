"""Pages to sign in and out."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from headway.ledger.sessions import ABSOLUTE
from headway.service.api.authentication import caller
from headway.service.api.html import asset, page, refusal_page
from headway.service.api.responses import RequestRefused, read_form
from headway.service.api.services import Services, ServicesDependency

__all__ = ["local_path", "router", "set_session", "sign_in_form"]

router = APIRouter(include_in_schema=False)


@router.get("/assets/{name}")
async def send_asset(name: Literal["headway.css", "headway.js"]) -> Response:
    """Style and script of the pages."""
    return asset(name)


@router.get("/sign-in")
async def sign_in_page(request: Request, services: ServicesDependency) -> Response:
    """A link from `headway open` has a code, which the button of this page uses: looking at a link uses nothing."""
    wanted = local_path(request.query_params.get("next", ""))
    try:
        services.site.require_host(request.headers)
        found = await caller(request, services.ledger, services.site)
    except RequestRefused as refused:
        return refusal_page(refused)
    if found is not None and "code" not in request.query_params:
        return RedirectResponse(wanted, 303)
    code = request.query_params.get("code", "")[:200]
    # A browser sends no SameSite=Strict cookie when another site's page leads here, but does when this page does.
    again = not code and request.headers.get("sec-fetch-site") == "cross-site"
    return sign_in_form(services, next=wanted, code=code, again=again)


@router.post("/sign-in")
async def sign_in(request: Request, services: ServicesDependency) -> Response:
    """Use the code of a link up, and begin a session."""
    address = request.client.host if request.client else ""
    try:
        services.site.require_host(request.headers)
        services.site.require_same_origin(request.method, request.headers)
        if not await services.rate_limits.may_guess(address):
            raise RequestRefused(429, "too many wrong codes from this address", "wait a minute")
        form = await read_form(request)
    except RequestRefused as refused:
        return refusal_page(refused)
    session = await asyncio.to_thread(services.ledger.sessions.redeem, form.get("code", ""))
    wanted = local_path(form.get("next", ""))
    if session is None:
        await services.rate_limits.refused(address)
        problem = "The link was used before, or is older than ten minutes."
        return sign_in_form(services, 403, next=wanted, problem=problem)
    return set_session(services, session, RedirectResponse(wanted, 303))


@router.post("/sign-out")
async def sign_out(request: Request, services: ServicesDependency) -> Response:
    """End the session."""
    try:
        found = await caller(request, services.ledger, services.site)
        form = await read_form(request)
        if found and not hmac.compare_digest(form.get("csrf_token", ""), found.csrf_token):
            raise RequestRefused(403, "the form is not one of this session", "reload the page and sign out again")
    except RequestRefused as refused:
        return refusal_page(refused)
    if found:
        await asyncio.to_thread(services.ledger.sessions.end, found.session)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(services.site.cookie, path="/", secure=services.site.secure, httponly=True, samesite="strict")
    return answer


def sign_in_form(services: Services, status: int = 200, **values: Any) -> Response:
    """The page with every way to sign in. `problem` and `hint` say why the last attempt failed."""
    provider = services.identity_provider
    host = urlsplit(provider.issuer).netloc if provider else ""
    defaults = {"code": "", "again": False, "problem": "", "hint": ""}
    return page("sign_in.html", status, **{**defaults, "provider": host, **values})


def set_session(services: Services, session: str, answer: Response) -> Response:
    """The answer with the cookie of a session."""
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


def local_path(wanted: str) -> str:
    """A path of this origin; the start page for anything else, which could lead to another site."""
    path = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if path and len(wanted) < 2000 else "/"
