"""`POST /api/releases`: what `headway release` does, for programs."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headway.config.value_types import Label
from headway.domain.errors import HeadwayError, NotFound
from headway.domain.events import Line
from headway.ledger import AppRecord, Ledger
from headway.scm.webhooks.base import same
from headway.service.api.responses import Refusal, Refused, answer, read_body

__all__ = ["TOKEN", "router"]

TOKEN = "headway-api-token"  # noqa: S105  # the name of the secret, not the secret
BODY_LIMIT = 16 * 1024  # bytes

router = APIRouter()


class Wanted(BaseModel):
    """A release of a registered app: of no other repository than the one it was registered with."""

    model_config = ConfigDict(extra="forbid")

    app: Label = Field(description="name of a registered app", examples=["shop"])
    ref: Line = Field(default="main", min_length=1, description="branch, tag or commit; what it names now is released")
    to: Label | None = Field(default=None, description="the last environment to go to; all of them when left out")
    yes: bool = Field(default=False, description="do not wait for approval; the record says so")
    by: Line = Field(default="", description="who asks for it")


class Started(BaseModel):
    """The run that was started, or that the same key had started before."""

    flow_run_id: str
    url: str = Field(description="where a person looks at it")


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "not a release that could be wanted"},
    401: {"model": Refusal, "description": "the token is missing or wrong"},
    403: {"model": Refusal, "description": f"there is no secret {TOKEN} here: nobody may"},
    404: {"model": Refusal, "description": "no such app is registered"},
    408: {"model": Refusal, "description": "the body did not come in time"},
    413: {"model": Refusal, "description": "the body is too large"},
    429: {"model": Refusal, "description": "too many requests from this address"},
    503: {"model": Refusal, "description": "the Prefect server or the ledger does not answer"},
}


@router.post(
    "/api/releases",
    status_code=201,
    response_model=Started,
    responses=REFUSALS,
    openapi_extra={
        "requestBody": {"content": {"application/json": {"schema": Wanted.model_json_schema()}}, "required": True},
        "security": [{"token": []}],
    },
    summary="Start a release",
)
async def start_release(request: Request, idempotency_key: Annotated[str | None, Header()] = None) -> JSONResponse:
    """With the token as `Authorization: Bearer TOKEN`. The same `Idempotency-Key` starts one run, however often."""
    address = request.client.host if request.client else ""
    limits = request.app.state.limits
    if not await limits.allows(address):
        return answer(429, Refusal(error="too many requests from this address", hint="wait a minute"))
    try:
        await _authorize(request)
        started = await _start(request, idempotency_key)
    except Refused as refused:
        if refused.status in (401, 403):
            await limits.refused(address)
        return answer(refused.status, refused.answer)
    except HeadwayError as error:
        return answer(503, Refusal(error=error.what, hint=error.hint))
    return answer(201, started)


async def _authorize(request: Request) -> None:
    try:
        token = await request.app.state.load_secret(TOKEN, "/api")
    except NotFound:
        token = ""
    if not token:
        raise Refused(403, "nobody may start releases here", f"make a secret {TOKEN}, which whoever may knows")
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not same(given.strip(), token):
        raise Refused(401, "the token is missing or wrong", "send it as Authorization: Bearer TOKEN")


async def _start(request: Request, key: str | None) -> Started:
    try:
        wanted = Wanted.model_validate_json(await read_body(request, BODY_LIMIT))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(map(str, fault["loc"])) or "body"
        raise Refused(400, f"{where}: {fault['msg']}", "the schema is at /openapi.json") from None
    app = await asyncio.to_thread(_registered, request.app.state.ledger, wanted.app)
    asked = wanted.model_dump(exclude={"app"}) | {"repo": app.repo, "by": wanted.by or "somebody with the API token"}
    named = None if key is None else "api-" + hashlib.sha256(f"{app.name} {key}".encode()).hexdigest()
    control = request.app.state.control
    run = await asyncio.to_thread(control.start, "release/main", asked, idempotency_key=named)
    return Started(flow_run_id=run, url=control.run_url(run))


def _registered(ledger: Ledger, name: str) -> AppRecord:
    try:
        return ledger.apps.get(name)
    except NotFound as unknown:
        raise Refused(404, unknown.what, unknown.hint) from None
