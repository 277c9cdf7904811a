"""The receiver of webhooks: verified over the raw bytes, kept, answered. What it means is found out afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError

from headway.domain.errors import HeadwayError
from headway.ledger import AppRecord, Delivery
from headway.scm.webhooks import HOSTS, Event, Host, Ignored
from headway.scm.webhooks.generic import Push
from headway.service.api.responses import Refusal, Refused, answer, read_body
from headway.service.api.webhook_secrets import Keys

__all__ = ["BODY_LIMIT", "router"]

BODY_LIMIT = 25 * 1024 * 1024  # bytes; no host sends more
LARGE = 64 * 1024  # bytes; what is larger is hashed and read in a thread, so that nobody else waits for it
NAME_LIMIT = 200  # characters of what a host calls a delivery

router = APIRouter()


class Kept(BaseModel):
    """What became of a delivery."""

    stored: int = Field(description="events that are kept; what each starts is decided afterwards")
    ignored: list[str] = Field(description="why the others start nothing")


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "signed, but not what this host sends"},
    401: {"model": Refusal, "description": "nobody who is registered has signed it"},
    403: {"model": Refusal, "description": "no app with this kind of host and a secret is registered"},
    404: {"model": Refusal, "description": "no such kind of host"},
    408: {"model": Refusal, "description": "the body did not come in time"},
    413: {"model": Refusal, "description": "the body is too large"},
    429: {"model": Refusal, "description": "too many requests from this address"},
    503: {"model": Refusal, "description": "it could not be kept: send it again"},
}


@router.post(
    "/hooks/{host}",
    status_code=202,
    response_model=Kept,
    responses={200: {"model": Kept, "description": "nothing in it starts anything"}, **REFUSALS},
    openapi_extra={
        "requestBody": {
            "description": "what the host sends; this is the schema for `generic`",
            "content": {"application/json": {"schema": Push.model_json_schema()}},
            "required": True,
        },
    },
    summary="Take a webhook delivery of a git host",
)
async def receive(
    request: Request, host: Annotated[str, Path(json_schema_extra={"enum": list(HOSTS)})]
) -> JSONResponse:
    """Signed with the secret of a registered app, over the raw body; without one nothing is read."""
    address = request.client.host if request.client else ""
    limits = request.app.state.limits
    if not await limits.allows(address):
        return answer(429, Refusal(error="too many requests from this address", hint="wait a minute"))
    try:
        kept = await _kept(request, host)
    except Refused as refused:
        await limits.refused(address)
        return answer(refused.status, refused.answer)
    except HeadwayError as error:
        return answer(503, Refusal(error=error.what, hint=error.hint))
    return answer(202 if kept.stored else 200, kept)


async def _kept(request: Request, name: str) -> Kept:
    host = HOSTS.get(name)
    if host is None:
        raise Refused(404, "no such kind of host", f"there are: {', '.join(HOSTS)}")
    keys: Keys = request.app.state.keys
    looks = keys.looks
    if not keys.of(name) and not (await keys.look_again(looks) and keys.of(name)):
        raise _nobody(name)
    body = await read_body(request, BODY_LIMIT)
    signers = await _signers(request, host, body)
    try:
        events = await _aside(body, host.events, request.headers, body)
    except ValidationError as error:
        raise Refused(400, f"not what {name} sends: {_first(error)}", "its content type has to be JSON") from None
    called = host.delivery(request.headers) or ""
    delivery = called if 0 < len(called) <= NAME_LIMIT and called.isprintable() else hashlib.sha256(body).hexdigest()
    stored, ignored = _sorted(events, signers, delivery)
    if len(stored) < len(events) and await keys.look_again(looks):  # it may be registered just now
        stored, ignored = _sorted(events, await _signers(request, host, body), delivery)
    await request.app.state.intake.store(stored)
    if stored:
        request.app.state.rounds.wake.set()
    return Kept(stored=len(stored), ignored=ignored)


async def _signers(request: Request, host: Host, body: bytes) -> list[AppRecord]:
    """The apps whose secret the sender knows. Raises Refused when there are none."""
    keys: Keys = request.app.state.keys
    for _ in range(2):
        looks, known = keys.looks, keys.of(host.name)
        fitting = {
            secret
            for secret in {secret for _, secret in known}
            if await _aside(body, host.signed, request.headers, body, secret)
        }
        if fitting:
            return [app for app, secret in known if secret in fitting]
        if not await keys.look_again(looks):
            break
    if not keys.of(host.name):
        raise _nobody(host.name)
    raise Refused(401, "the signature is missing or wrong", "give the host the secret that the app is registered with")


def _nobody(host: str) -> Refused:
    return Refused(403, f"no app at {host} has a secret here", "register it, headway app add, and make its secret")


async def _aside(body: bytes, work: Any, *arguments: Any) -> Any:
    """A large body is worked on in a thread."""
    return await asyncio.to_thread(work, *arguments) if len(body) > LARGE else work(*arguments)


def _sorted(events: Any, signers: list[AppRecord], delivery: str) -> tuple[list[Delivery], list[str]]:
    """What is kept, for the app whose repository it is about, and why the rest is not."""
    stored: list[Delivery] = []
    ignored: list[str] = []
    for position, event in enumerate[Event](events):
        if isinstance(event, Ignored):
            ignored.append(event.reason)
            continue
        app = next((app for app in signers if app.place in event.places), None)
        if app is None:
            ignored.append(f"{event.places[0]} is not registered with this secret")
            continue
        stored.append(Delivery(app=app.name, delivery=delivery, position=position, event=event))
    return stored, ignored


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'/'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
