"""Reading untrusted requests, and error responses."""

from __future__ import annotations

import asyncio

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

__all__ = [
    "ErrorResponse",
    "RequestRefused",
    "first_error",
    "json_response",
    "missing_fields",
    "read_body",
    "too_many_requests",
]

BODY_DEADLINE = 10.0  # seconds for a body to arrive; git hosts time out after as long


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


async def read_body(request: Request, limit: int) -> bytes:
    """Return the raw body. Raises RequestRefused when it is larger than `limit` bytes, too slow, or cut off."""
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise RequestRefused(408, f"the body did not arrive within {BODY_DEADLINE:g} s", "send it again") from None
    except ClientDisconnect:
        raise RequestRefused(400, "the body was cut off", "send it again") from None
    return bytes(body)


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
