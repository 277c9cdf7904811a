"""How the web app reads a request that may be anybody's, and how it says no."""

from __future__ import annotations

import asyncio

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

__all__ = ["Refusal", "Refused", "answer", "read_body"]

BODY_DEADLINE = 10.0  # seconds for a body to come in; git hosts give up on us after as long


class Refusal(BaseModel):
    """Why it was refused, and what to do."""

    error: str
    hint: str


class Refused(Exception):
    """Answers a request with this status."""

    def __init__(self, status: int, error: str, hint: str) -> None:
        super().__init__(error)
        self.status = status
        self.answer = Refusal(error=error, hint=hint)


def answer(status: int, content: BaseModel) -> JSONResponse:
    return JSONResponse(content.model_dump(), status_code=status)


async def read_body(request: Request, limit: int) -> bytes:
    """The raw body. Raises Refused when it is larger than `limit` bytes, too slow, or breaks off."""
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
        raise Refused(408, f"the body did not come within {BODY_DEADLINE:g} s", "send it again") from None
    except ClientDisconnect:
        raise Refused(400, "the body broke off", "send it again") from None
    return bytes(body)


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the body is larger than {limit // 1024} KiB", "nothing that is wanted here is")
