"""`POST /api/releases`: start a release, as `headway release` does."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headway.config.value_types import Label
from headway.domain import deployments
from headway.domain.access import Action
from headway.domain.errors import HeadwayError, NotFound
from headway.domain.events import Line
from headway.domain.principal import Principal
from headway.ledger import AppRecord, Ledger
from headway.policy.access import may
from headway.scm.webhooks.base import constant_time_equal
from headway.service.api.responses import (
    ErrorResponse,
    RequestRefused,
    first_error,
    json_response,
    read_body,
    too_many_requests,
)
from headway.service.api.services import Services, ServicesDependency
from headway.service.prefect.start_as import start_as

__all__ = ["TOKEN", "router"]

log = logging.getLogger(__name__)

TOKEN = "headway-api-token"  # noqa: S105  # the name of the secret, not the secret
"""The one secret that started releases before there were tokens. It works until 0.3.0."""
BODY_LIMIT = 16 * 1024  # bytes

router = APIRouter()


class ReleaseRequest(BaseModel):
    """A release of a registered app, from the repository that it is registered with."""

    model_config = ConfigDict(extra="forbid")

    app: Label = Field(description="name of a registered app", examples=["shop"])
    ref: Line = Field(default="main", min_length=1, description="branch, tag or commit to release")
    to: Label | None = Field(default=None, description="last environment to release to; omit it for all environments")
    yes: bool = Field(
        default=False,
        description="approve it as the owner of the token; this is recorded, and needs a token that may `approve`",
    )
    by: Line = Field(
        default="",
        deprecated=True,
        description="refused with a token, which names who requests the release; a note with the former secret",
    )


class StartedRelease(BaseModel):
    """The flow run of the release. A request with the same key has the same answer."""

    flow_run_id: str = Field(description="ID of the flow run in Prefect")
    url: str = Field(description="page of the flow run in Prefect's UI")


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "the body does not match the schema"},
    401: {"model": ErrorResponse, "description": "the token is missing, wrong, revoked, or has expired"},
    403: {"model": ErrorResponse, "description": "the scope of the token, or the role of its owner, does not allow it"},
    404: {"model": ErrorResponse, "description": "no app of this name is registered"},
    408: {"model": ErrorResponse, "description": "the body did not arrive in time"},
    413: {"model": ErrorResponse, "description": "the body is too large"},
    429: {"model": ErrorResponse, "description": "too many requests from this address"},
    503: {"model": ErrorResponse, "description": "the Prefect server or the ledger does not answer"},
}


@router.post(
    "/api/releases",
    status_code=201,
    response_model=StartedRelease,
    responses=ERRORS,
    openapi_extra={
        "requestBody": {
            "content": {"application/json": {"schema": ReleaseRequest.model_json_schema()}},
            "required": True,
        },
        "security": [{"token": []}],
    },
    summary="Start a release",
)
async def start_release(
    request: Request, services: ServicesDependency, idempotency_key: Annotated[str | None, Header()] = None
) -> JSONResponse:
    """Send a token (`headway token create`) as `Authorization: Bearer TOKEN`.

    Requests with the same `Idempotency-Key` start one run.
    """
    address = request.client.host if request.client else ""
    limits = services.rate_limits
    if not (await limits.allows(address) and await limits.may_guess(address)):
        return too_many_requests()
    try:
        principal = await _authenticate(request, services)
        started = await _start(request, services, principal, idempotency_key)
    except RequestRefused as refused:
        if refused.status in (401, 403):
            await limits.refused(address)
        return json_response(refused.status, refused.body)
    except HeadwayError as error:
        return json_response(503, ErrorResponse(error=error.what, hint=error.hint))
    return json_response(201, started)


async def _authenticate(request: Request, services: Services) -> Principal | None:
    """The token of the request; None for the former secret. Raises RequestRefused."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    secret = given.strip() if kind.lower() == "bearer" else ""
    if secret and (principal := await asyncio.to_thread(_principal, services.ledger, secret)):
        return principal
    try:
        former = await services.load_secret(TOKEN, "/api")
    except NotFound:
        former = ""
    if former and constant_time_equal(secret, former):
        log.warning("a release was requested with the secret %s: create a token: headway token create", TOKEN)
        return None
    raise RequestRefused(
        401,
        "the token is missing, wrong, revoked, or has expired",
        "send one of headway token create as Authorization: Bearer TOKEN",
    )


def _principal(ledger: Ledger, secret: str) -> Principal | None:
    return ledger.tokens.authenticate(secret, datetime.now(UTC))


async def _start(request: Request, services: Services, principal: Principal | None, key: str | None) -> StartedRelease:
    try:
        wanted = ReleaseRequest.model_validate_json(await read_body(request, BODY_LIMIT))
    except ValidationError as error:
        raise RequestRefused(400, first_error(error), "the schema is at /openapi.json") from None
    if principal:
        await asyncio.to_thread(_authorize, services, principal, wanted)
    app = await asyncio.to_thread(_registered_app, services.ledger, wanted.app)
    parameters = wanted.model_dump(exclude={"app"}) | {"repo": app.repo}
    parameters |= {"by": f"API token{wanted.by and f': {wanted.by}'}"}
    start = partial(start_as, principal, services.ledger, services.control) if principal else services.control.start
    run_key = None if key is None else "api-" + hashlib.sha256(f"{app.name} {key}".encode()).hexdigest()
    run = await asyncio.to_thread(start, deployments.RELEASE, parameters, idempotency_key=run_key)
    return StartedRelease(flow_run_id=run, url=services.control.run_url(run))


def _authorize(services: Services, principal: Principal, wanted: ReleaseRequest) -> None:
    """Raises RequestRefused."""
    if wanted.by:
        hint = f"leave it out: the release is recorded as of {principal}"
        raise RequestRefused(400, "by: a name in the body is not accepted", hint)
    authority = services.ledger.grants.authority(principal, services.owner)
    for action in (Action.RELEASE, *([Action.APPROVE] if wanted.yes else [])):
        if refusal := may(authority, action, wanted.app, wanted.to, now=datetime.now(UTC)):
            raise RequestRefused(403, refusal.what, refusal.hint)


def _registered_app(ledger: Ledger, name: str) -> AppRecord:
    try:
        return ledger.apps.get(name)
    except NotFound as error:
        raise RequestRefused(404, error.what, error.hint) from None
