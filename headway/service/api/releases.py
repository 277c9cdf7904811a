"""`POST /api/releases`: start a release, as `headway release` does."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headway.config.value_types import Label
from headway.domain import deployments
from headway.domain.errors import HeadwayError, NotFound
from headway.domain.events import Line
from headway.ledger import AppRecord, Ledger
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

__all__ = ["TOKEN", "router"]

TOKEN = "headway-api-token"  # noqa: S105  # the name of the secret, not the secret
BODY_LIMIT = 16 * 1024  # bytes

router = APIRouter()


class ReleaseRequest(BaseModel):
    """A release of a registered app, from the repository that it is registered with."""

    model_config = ConfigDict(extra="forbid")

    app: Label = Field(description="name of a registered app", examples=["shop"])
    ref: Line = Field(default="main", min_length=1, description="branch, tag or commit to release")
    to: Label | None = Field(default=None, description="last environment to release to; omit it for all environments")
    yes: bool = Field(default=False, description="do not wait for approval; this is recorded")
    by: Line = Field(default="", description="who requests the release")


class StartedRelease(BaseModel):
    """The flow run of the release. A request with the same key has the same answer."""

    flow_run_id: str = Field(description="ID of the flow run in Prefect")
    url: str = Field(description="page of the flow run in Prefect's UI")


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "the body does not match the schema"},
    401: {"model": ErrorResponse, "description": "the token is missing or wrong"},
    403: {"model": ErrorResponse, "description": f"the secret {TOKEN} is not set: the API is disabled"},
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
    """Send the token as `Authorization: Bearer TOKEN`. Requests with the same `Idempotency-Key` start one run."""
    address = request.client.host if request.client else ""
    limits = services.rate_limits
    if not (await limits.allows(address) and await limits.may_guess(address)):
        return too_many_requests()
    try:
        await _authorize(request, services)
        started = await _start(request, services, idempotency_key)
    except RequestRefused as refused:
        if refused.status in (401, 403):
            await limits.refused(address)
        return json_response(refused.status, refused.body)
    except HeadwayError as error:
        return json_response(503, ErrorResponse(error=error.what, hint=error.hint))
    return json_response(201, started)


async def _authorize(request: Request, services: Services) -> None:
    try:
        token = await services.load_secret(TOKEN, "/api")
    except NotFound:
        token = ""
    if not token:
        raise RequestRefused(403, f"the API is disabled: the secret {TOKEN} is not set", f"create a secret {TOKEN}")
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not constant_time_equal(given.strip(), token):
        raise RequestRefused(401, "the token is missing or wrong", "send it as Authorization: Bearer TOKEN")


async def _start(request: Request, services: Services, key: str | None) -> StartedRelease:
    try:
        wanted = ReleaseRequest.model_validate_json(await read_body(request, BODY_LIMIT))
    except ValidationError as error:
        raise RequestRefused(400, first_error(error), "the schema is at /openapi.json") from None
    app = await asyncio.to_thread(_registered_app, services.ledger, wanted.app)
    parameters = wanted.model_dump(exclude={"app"}) | {"repo": app.repo, "by": wanted.by or "API token"}
    run_key = None if key is None else "api-" + hashlib.sha256(f"{app.name} {key}".encode()).hexdigest()
    run = await asyncio.to_thread(services.control.start, deployments.RELEASE, parameters, idempotency_key=run_key)
    return StartedRelease(flow_run_id=run, url=services.control.run_url(run))


def _registered_app(ledger: Ledger, name: str) -> AppRecord:
    try:
        return ledger.apps.get(name)
    except NotFound as error:
        raise RequestRefused(404, error.what, error.hint) from None
