"""Reading untrusted requests, and error responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import parse_qs

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

__all__ = [
    "ErrorResponse",
    "LargeBodies",
    "RequestRefused",
    "first_error",
    "json_response",
    "missing_fields",
    "read_body",
    "read_form",
    "too_many_requests",
]

BODY_DEADLINE = 10.0  # seconds for a body to arrive; git hosts time out after as long
LARGE = 1024 * 1024  # bytes; a push of a hundred commits has a tenth of it
LARGE_AT_ONCE = 4
FORM_LIMIT = 16 * 1024  # bytes


class ErrorResponse(BaseModel):
    """What happened, and what to do."""

    error: str
    hint: str


class RequestRefused(Exception):
    """Ends a request with this status."""

    def __init__(self, status: int, error: str, hint: str) -> None:
        super().__init__(error)
        self.status = status
        self.body = ErrorResponse(error=error, hint=hint)


def json_response(status: int, content: BaseModel) -> JSONResponse:
    return JSONResponse(content.model_dump(), status_code=status)


def too_many_requests() -> JSONResponse:
    return json_response(429, ErrorResponse(error="too many requests from this address", hint="wait a minute"))


class LargeBodies:
    """Room in memory for bodies of more than `LARGE` bytes: anybody can send one, before it is known who signed it."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(LARGE_AT_ONCE)

    @property
    def full(self) -> bool:
        return self._room.locked()

    @asynccontextmanager
    async def reading(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        """`read_body`, with room for it until the end of the block. A large body waits for room before it is read on.

        Raises RequestRefused when there is none in time.
        """
        async with AsyncExitStack() as held:
            yield await read_body(request, limit, partial(held.enter_async_context, self._room))


async def read_body(request: Request, limit: int, room: Callable[[], Awaitable[object]] | None = None) -> bytes:
    """Return the raw body. `room` is awaited once, when it turns out to be larger than `LARGE` bytes.

    Raises RequestRefused when it is larger than `limit` bytes, too slow, or cut off.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body, waits = bytearray(), False
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
                if len(body) > LARGE and room:
                    waits = True
                    await room()
                    room, waits = None, False
    except TimeoutError:
        if waits:
            raise RequestRefused(503, "too many large bodies arrive at once", "send it again in a minute") from None
        raise RequestRefused(408, f"the body did not arrive within {BODY_DEADLINE:g} s", "send it again") from None
    except ClientDisconnect:
        raise RequestRefused(400, "the body was cut off", "send it again") from None
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; of a field that is there twice, the last. Raises RequestRefused."""
    body = await read_body(request, FORM_LIMIT)
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(413, f"the body is larger than {limit // 1024} KiB", "send a smaller body")


def first_error(error: ValidationError) -> str:
    """The first validation error: `field: what is wrong`."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'/'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"


def missing_fields(error: ValidationError) -> list[str]:
    """Paths of the fields that are missing, such as `repository/clone_url`."""
    errors = error.errors(include_url=False, include_input=False)
    return ["/".join(map(str, one["loc"])) for one in errors if one["type"] == "missing"]
