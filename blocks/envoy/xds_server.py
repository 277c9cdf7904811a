"""Serve the configuration files of a target's Envoys: `python -m blocks.envoy.xds_server HOME SOCKET`.

Envoy can read such files itself, but then needs an inotify instance for each of them, five or six for an app, of the
128 that Linux allows a user. Over this server's Unix socket it needs none.

A request (xDS over REST, long polling) is answered when the file has another version than the one that Envoy has, or
with 304 after HOLD seconds. The writer of a file calls `POST /changed/APP`. Without the server, Envoys keep their
configuration and retry.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from blocks.envoy.bootstrap import file_name, served

__all__ = ["ConfigurationServer"]

HOLD = 25.0  # seconds until a request is answered without a change; Envoy's timeout is longer
SAME_AGAIN = 1.0  # seconds before Envoy gets a version that it has refused once more
NAME = re.compile(r"[\w.-]+")


class ConfigurationServer:
    """The files below HOME/apps/APP/envoy, for the Envoy whose node id is APP."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._changed: dict[str, asyncio.Event] = {}
        self._sent: dict[tuple[str, str], tuple[str, float]] = {}
        self.app = Starlette(
            routes=[
                Route("/v3/discovery:{kind}", self.discover, methods=["POST"]),
                Route("/changed/{app}", self.note_change, methods=["POST"]),
            ]
        )

    async def note_change(self, request: Request) -> Response:
        """Wake the requests of this app's Envoy."""
        if event := self._changed.pop(request.path_params["app"], None):
            event.set()
        return Response(status_code=204)

    async def discover(self, request: Request) -> Response:
        """One xDS file, as soon as its version is another one than the request names."""
        asked = await request.json()
        app, file = asked["node"]["id"], file_name(request.path_params["kind"], asked.get("resource_names", []))
        if file is None or not all(map(NAME.fullmatch, (app, file))):
            return Response(status_code=404)
        known = asked.get("version_info", "")
        clock = asyncio.get_running_loop().time
        end = clock() + HOLD
        while True:
            changed = self._changed.setdefault(app, asyncio.Event())
            content = self._read(app, file)
            if content is not None and content["version_info"] != known:
                version, at = self._sent.get((app, file), ("", 0.0))
                if version == content["version_info"] and (early := at + SAME_AGAIN - clock()) > 0:
                    await asyncio.sleep(early)
                self._sent[app, file] = content["version_info"], clock()
                return JSONResponse(served(content))
            try:
                async with asyncio.timeout_at(end):
                    await changed.wait()
            except TimeoutError:
                return Response(status_code=304)

    def _read(self, app: str, file: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self._home / "apps" / app / "envoy" / file).read_text()))
        except FileNotFoundError:
            return None


def main(home: str, socket: str) -> None:
    """Serve until SIGTERM."""
    server = ConfigurationServer(Path(home))
    uvicorn.run(server.app, uds=socket, access_log=False, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
