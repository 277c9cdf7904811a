"""Sign in with the identity provider."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from headway.domain.errors import HeadwayError, NotFound, ServiceUnavailable
from headway.domain.refusal import Refusal
from headway.ledger import Ledger
from headway.ledger.sign_ins import BEGUN
from headway.service.api.html import page
from headway.service.api.oidc import Client
from headway.service.api.responses import RequestRefused
from headway.service.api.services import Services, ServicesDependency
from headway.service.api.sign_in import local_path, set_session, sign_in_form
from headway.service.identity_provider import CLIENT_SECRET, IdentityProvider
from headway.system.os_user import is_os_user

__all__ = ["router"]

BEGIN = "/sign-in/oidc"
CALLBACK = f"{BEGIN}/callback"
QUOTED = 300  # characters of what the identity provider says

router = APIRouter(include_in_schema=False)


@router.get(BEGIN)
async def begin(request: Request, services: ServicesDependency) -> Response:
    """Send the browser to the identity provider, with a cookie that proves later that this browser began."""
    wanted = local_path(request.query_params.get("next", ""))
    try:
        provider = await _admitted(request, services)
        if request.headers.get("host") != urlsplit(services.site.url).netloc:  # the provider leads back to this one
            return RedirectResponse(f"{services.site.url}{BEGIN}?next={quote(wanted, safe='')}", 303)
        secret = await _secret(services)
        begun, state, browser = await asyncio.to_thread(services.ledger.sign_ins.begin, wanted)
        with Client(provider, secret, services.site.url + CALLBACK) as client:
            url = await asyncio.to_thread(client.authorization_url, begun, state)
    except (RequestRefused, HeadwayError) as error:
        return _problem(services, error, wanted)
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    # Lax: the browser has to send it when the provider's page leads back here.
    answer.set_cookie(
        _cookie(services),
        browser,
        max_age=round(BEGUN.total_seconds()),
        path="/",
        secure=services.site.secure,
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get(CALLBACK)
async def callback(request: Request, services: ServicesDependency) -> Response:
    """Begin a session for the person whom the identity provider has sent back."""
    try:
        provider = await _admitted(request, services)
        browser, state = request.cookies.get(_cookie(services), ""), request.query_params.get("state", "")
        begun = await asyncio.to_thread(services.ledger.sign_ins.use, state, browser)
        if begun is None:
            raise RequestRefused(
                403,
                "this browser did not begin this sign-in, or more than ten minutes ago, or it was used before",
                "sign in again; the browser has to accept cookies",
            )
        code = _code(request, provider)
        with Client(provider, await _secret(services), services.site.url + CALLBACK) as client:
            claims = await asyncio.to_thread(client.claims, begun, code)
        session = await asyncio.to_thread(_session, services.ledger, provider, claims)
    except (RequestRefused, HeadwayError) as error:
        return _problem(services, error, "/")
    # A redirect would still be one of the other site's navigation: browsers send no SameSite=Strict cookie with it.
    answer = page("continue.html", next=begun.page)
    answer.delete_cookie(_cookie(services), path="/", secure=services.site.secure, httponly=True, samesite="lax")
    return set_session(services, session, answer)


async def _admitted(request: Request, services: Services) -> IdentityProvider:
    """The identity provider. Raises RequestRefused without one, for another host, and after too many requests."""
    services.site.require_host(request.headers)
    if services.identity_provider is None:
        raise RequestRefused(404, "no identity provider is set", "set HEADWAY_OIDC_ISSUER and HEADWAY_OIDC_CLIENT_ID")
    if not await services.rate_limits.may_sign_in(request.client.host if request.client else ""):
        raise RequestRefused(429, "too many sign-ins from this address", "wait a minute")
    return services.identity_provider


async def _secret(services: Services) -> str:
    """The client secret; empty for a public client, which has none."""
    try:
        return await services.load_secret(CLIENT_SECRET, "sign-in")
    except NotFound:
        return ""
    except httpx.HTTPError as error:
        raise ServiceUnavailable(
            f"the secret {CLIENT_SECRET} cannot be read: {error}", "try again when Prefect's server answers"
        ) from error


def _code(request: Request, provider: IdentityProvider) -> str:
    """The code for the ID token. Raises RequestRefused when the provider, or another one, answers something else."""
    answer = request.query_params
    if answer.get("iss", provider.issuer) != provider.issuer:  # RFC 9207, 2.4
        raise RequestRefused(403, "the answer is of another identity provider", "sign in again")
    if "error" in answer or not answer.get("code"):
        said = " ".join(f"{answer.get('error', 'no code')} {answer.get('error_description', '')}".split())[:QUOTED]
        raise RequestRefused(403, f"the identity provider refused the sign-in: {said}", "sign in again")
    return answer["code"]


def _session(ledger: Ledger, provider: IdentityProvider, claims: dict[str, Any]) -> str:
    """Record the user and its groups, and begin a session. Raises RequestRefused."""
    user = provider.user(claims, is_os_user)
    if isinstance(user, Refusal):
        raise RequestRefused(403, user.what, user.hint)
    groups = provider.groups(claims)
    if isinstance(groups, Refusal):
        raise RequestRefused(403, groups.what, groups.hint)
    if not ledger.sign_ins.recognise(user.name, provider.issuer, claims["sub"]):
        raise RequestRefused(
            403,
            f"{user.name} was the name of another user of the identity provider",
            f"an admin removes the former one, with all roles: headway role remove {user.name}",
        )
    ledger.grants.record_claims(user.name, groups)
    return ledger.sessions.begin(user)


def _problem(services: Services, error: RequestRefused | HeadwayError, wanted: str) -> Response:
    """The sign-in page, which says why nobody is signed in."""
    if isinstance(error, HeadwayError):
        return sign_in_form(services, 503, next=wanted, problem=error.what, hint=error.hint)
    return sign_in_form(services, error.status, next=wanted, problem=error.body.error, hint=error.body.hint)


def _cookie(services: Services) -> str:
    return "__Host-headway-sign-in" if services.site.secure else "headway-sign-in"
