"""Reverse proxy of one app: `python -m headway_bare.router ROUTES PORT`.

It reads the file ROUTES for every request, so a new file applies to the next one. Each request has its own connection
to an instance: open connections are the requests in flight.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding"}


class Router:
    """Sends each request to an instance: a revision by weight, then any of its instances that accepts connections."""

    def __init__(self, routes: Path) -> None:
        self.routes = routes
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self.client = httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(60, connect=2), trust_env=False)

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        for port in self._ports():
            url = request.url.replace(scheme="http", hostname="127.0.0.1", port=port)
            asked = self.client.build_request(request.method, str(url), headers=request.headers.raw, content=body)
            try:
                answer = await self.client.send(asked, stream=True)
            except httpx.ConnectError:
                continue  # it has exited: nothing was sent, so another instance can be tried
            except httpx.HTTPError as error:
                return PlainTextResponse(f"the app does not answer: {type(error).__name__}", status_code=502)
            response = StreamingResponse(
                answer.aiter_raw(), status_code=answer.status_code, background=BackgroundTask(answer.aclose)
            )
            response.raw_headers = [(key, value) for key, value in answer.headers.raw if key.lower() not in HOP_BY_HOP]
            return response
        return PlainTextResponse("no revision is live", status_code=503)

    def _ports(self) -> list[int]:
        routes = json.loads(self.routes.read_text())
        weights = {revision: weight for revision, weight in routes["weights"].items() if weight}
        if not weights:
            return []
        (revision,) = random.choices(list(weights), list(weights.values()))
        ports = routes["ports"][revision]
        return random.sample(ports, len(ports))


def main() -> None:
    router = Router(Path(sys.argv[1]))
    app = Starlette(routes=[Route("/{path:path}", router.answer, methods=METHODS)])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", server_header=False)


if __name__ == "__main__":
    main()
