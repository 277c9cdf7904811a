"""`POST /hooks/{host}`: verify a delivery over its raw bytes, store it, answer. The dispatcher does the rest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError

from headway.domain.errors import HeadwayError
from headway.ledger import AppRecord, Delivery
from headway.scm.webhooks import HOSTS, Event, Host, Ignored
from headway.scm.webhooks.generic import Push
from headway.service.api.responses import (
    ErrorResponse,
    RequestRefused,
    first_error,
    json_response,
    missing_fields,
    too_many_requests,
)
from headway.service.api.services import Services, ServicesDependency
from headway.service.api.webhook_secrets import WebhookSecrets

__all__ = ["BODY_LIMIT", "router"]

BODY_LIMIT = 25 * 1024 * 1024  # bytes; no host sends more
LARGE_BODY = 64 * 1024  # bytes; a larger body is verified and parsed in a thread, so that other requests go on
DELIVERY_NAME_LIMIT = 200  # characters of a host's name for a delivery

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

router = APIRouter()


class DeliveryResult(BaseModel):
    """What was stored of a delivery."""

    stored: int = Field(description="events that are stored; the dispatcher decides later what each starts")
    ignored: list[str] = Field(description="why each other event starts nothing")


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "the signature is right, but the body is not what this host sends"},
    401: {"model": ErrorResponse, "description": "no registered app has the secret that signed it"},
    403: {"model": ErrorResponse, "description": "no app with this kind of host and a secret is registered"},
    404: {"model": ErrorResponse, "description": "unknown kind of host"},
    408: {"model": ErrorResponse, "description": "the body did not arrive in time"},
    413: {"model": ErrorResponse, "description": "the body is too large"},
    429: {"model": ErrorResponse, "description": "too many requests from this address"},
    503: {"model": ErrorResponse, "description": "it could not be stored: send it again"},
}


@router.post(
    "/hooks/{host}",
    status_code=202,
    response_model=DeliveryResult,
    responses={200: {"model": DeliveryResult, "description": "no event in it starts anything"}, **ERRORS},
    openapi_extra={
        "requestBody": {
            "description": "what the host sends; this is the schema for `generic`",
            "content": {"application/json": {"schema": Push.model_json_schema()}},
            "required": True,
        },
    },
    summary="Receive a webhook delivery of a git host",
)
async def receive(
    request: Request, host: Annotated[str, Path(json_schema_extra={"enum": list(HOSTS)})], services: ServicesDependency
) -> JSONResponse:
    """The host signs the raw body with the webhook secret of a registered app."""
    address = request.client.host if request.client else ""
    if not await services.rate_limits.allows(address):
        return too_many_requests()
    try:
        result = await _store(request, services, host)
    except RequestRefused as refused:
        # Only after the signature: behind a proxy, or at a git host, others have the same address.
        if not await services.rate_limits.refused(address):
            return too_many_requests()
        return json_response(refused.status, refused.body)
    except HeadwayError as error:
        return json_response(503, ErrorResponse(error=error.what, hint=error.hint))
    return json_response(202 if result.stored else 200, result)


async def _store(request: Request, services: Services, name: str) -> DeliveryResult:
    host = HOSTS.get(name)
    if host is None:
        raise RequestRefused(404, "unknown kind of host", f"use one of: {', '.join(HOSTS)}")
    secrets = services.webhook_secrets
    refreshes = secrets.refreshes
    if not secrets.of(name) and not (await secrets.refreshed_since(refreshes) and secrets.of(name)):
        raise _no_secret(name)
    async with services.large_bodies.reading(request, BODY_LIMIT) as body:
        return await _store_body(request, services, host, body, refreshes)


async def _store_body(request: Request, services: Services, host: Host, body: bytes, refreshes: int) -> DeliveryResult:
    """`refreshes` of the secrets before the body was read."""
    secrets, name = services.webhook_secrets, host.name
    signers = await _signers(request, secrets, host, body)
    try:
        events = await _run(body, host.events, request.headers, body)
    except ValidationError as error:
        raise _not_a_payload(name, host.event(request.headers), error) from None
    delivery = _delivery_name(host.delivery(request.headers), body)
    deliveries, ignored = _by_app(events, signers, delivery)
    if len(deliveries) < len(events) and await secrets.refreshed_since(refreshes):  # a new app may match
        deliveries, ignored = _by_app(events, await _signers(request, secrets, host, body), delivery)
    await services.delivery_batcher.store(deliveries)
    if deliveries:
        services.deliveries_stored.set()
    return DeliveryResult(stored=len(deliveries), ignored=ignored)


async def _signers(request: Request, secrets: WebhookSecrets, host: Host, body: bytes) -> list[AppRecord]:
    """The apps whose secret signed the body. Raises RequestRefused when there are none."""
    for _ in range(2):
        refreshes, known = secrets.refreshes, secrets.of(host.name)
        matching = [
            secret
            for secret in {secret for _, secret in known}
            if await _run(body, host.signed, request.headers, body, secret)
        ]
        if matching:
            return [app for app, secret in known if secret in matching]
        if not await secrets.refreshed_since(refreshes):
            break
    if not secrets.of(host.name):
        raise _no_secret(host.name)
    raise RequestRefused(
        401, "the signature is missing or wrong", "set the webhook secret of the host to that of the registered app"
    )


def _not_a_payload(host: str, event: str | None, error: ValidationError) -> RequestRefused:
    """Says which fields are missing, or else what the first error is."""
    if any(one["type"] == "json_invalid" for one in error.errors(include_url=False, include_input=False)):
        return RequestRefused(
            400, f"not a payload of {host}: {first_error(error)}", "set the content type of the webhook to JSON"
        )
    if missing := missing_fields(error):
        what = f"not a payload of {host}: event {event or 'without a name'}: missing: {', '.join(missing)}"
        others = " or ".join(one for one in HOSTS if one != host)
        return RequestRefused(400, what, f"is the webhook that of another kind of host, such as {others}?")
    return RequestRefused(
        400, f"not a payload of {host}: {first_error(error)}", f"send what {host} documents for this event"
    )


def _no_secret(host: str) -> RequestRefused:
    return RequestRefused(
        403, f"no app at {host} has a webhook secret", "register the app with `headway app add` and create its secret"
    )


async def _run(
    body: bytes, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Call `work`, in a thread when the body is large."""
    return await asyncio.to_thread(work, *args, **kwargs) if len(body) > LARGE_BODY else work(*args, **kwargs)


def _delivery_name(given: str | None, body: bytes) -> str:
    """The host's name for the delivery, or a hash of the body."""
    if given and len(given) <= DELIVERY_NAME_LIMIT and given.isprintable():
        return given
    return hashlib.sha256(body).hexdigest()


def _by_app(events: Sequence[Event], signers: list[AppRecord], delivery: str) -> tuple[list[Delivery], list[str]]:
    """The deliveries to store, each for the signing app of its repository, and why each other event is ignored."""
    deliveries: list[Delivery] = []
    ignored: list[str] = []
    for position, event in enumerate(events):
        if isinstance(event, Ignored):
            ignored.append(event.reason)
            continue
        app = next((app for app in signers if app.place in event.places), None)
        if app is None:
            ignored.append(f"{event.places[0]} is not registered with this secret")
            continue
        deliveries.append(Delivery(app=app.name, delivery=delivery, position=position, event=event))
    return deliveries, ignored
