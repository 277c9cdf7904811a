"""The shop over HTTP/1.1."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import socket
import threading
import time
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from shop.config import Config
from shop.dependencies import checks
from shop.pricing import DISCOUNTS, BasketError, quote

PAGE = """<!doctype html>
<title>Shop</title>
<h1>Mugs</h1>
<p>{offers}</p>
<form action="/price"><input name="items" type="number" value="10"> <button>Price</button></form>
<p><small>version {version}</small></p>
"""


class Server(ThreadingHTTPServer):
    """Tracks open connections, to close them between two requests on shutdown."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started = time.monotonic()
        self.stopping = False
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", config.port), Handler)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
            if self.stopping:
                hang_up(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def stop(self) -> None:
        """Accept no more connections, finish requests in flight, close idle connections."""
        self.shutdown()
        with self._lock:
            self.stopping = True
            for connection in self._connections:
                hang_up(connection)


def hang_up(connection: socket.socket) -> None:
    """Its handler reads what is there already, then finds the end instead of waiting for the next request."""
    with contextlib.suppress(OSError):  # the client has closed it already
        connection.shutdown(socket.SHUT_RD)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024  # headers and body leave together

    @property
    def shop(self) -> Server:
        return cast(Server, self.server)

    def setup(self) -> None:
        super().setup()
        self.shop.opened(self.connection)

    def finish(self) -> None:
        self.shop.closed(self.connection)
        super().finish()

    def do_GET(self) -> None:  # noqa: N802 - http.server calls it so
        url = urlsplit(self.path)
        try:
            match url.path:
                case "/":
                    self._page()
                case "/health":
                    self._json({"status": "ok", "version": self.shop.config.version})
                case "/health/detailed":
                    self._json(self._details())
                case "/price":
                    self._price(parse_qs(url.query))
                case _:
                    self._json({"error": f"there is no {url.path}"}, HTTPStatus.NOT_FOUND)
        except ConnectionError:
            self.close_connection = True
        except Exception:
            traceback.print_exc()
            self._json({"error": "internal error"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    do_HEAD = do_GET  # noqa: N815

    def _page(self) -> None:
        offers = ", ".join(f"{percent} % off from {least} mugs" for least, percent in reversed(DISCOUNTS))
        page = PAGE.format(offers=offers, version=self.shop.config.version)
        self._answer(page.encode(), "text/html; charset=utf-8", HTTPStatus.OK)

    def _details(self) -> dict[str, Any]:
        config = self.shop.config
        found = checks(config)
        well = all(one["status"] == "ok" for one in found.values())
        return {
            "status": "ok" if well else "degraded",
            "version": config.version,
            "currency": config.currency,
            "uptime_seconds": round(time.monotonic() - self.shop.started, 3),
            "checks": found,
        }

    def _price(self, query: dict[str, list[str]]) -> None:
        try:
            items = int(query.get("items", [""])[0])
        except ValueError:
            self._json({"error": "how many items? /price?items=3"}, HTTPStatus.BAD_REQUEST)
            return
        try:
            result = quote(items)
        except BasketError as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
            return
        self._json({**dataclasses.asdict(result), "currency": self.shop.config.currency})

    def _json(self, content: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._answer(json.dumps(content).encode(), "application/json", status)

    def _answer(self, body: bytes, content_type: str, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.shop.stopping:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server calls it so
        if self.shop.config.log_level == "debug":
            print(self.client_address[0], format % args, flush=True)


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then finish requests in flight."""
    with Server(config) as server:
        stopper = threading.Thread(target=server.stop)

        def stop(*_: object) -> None:
            if stopper.ident is None:
                stopper.start()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        print(f"shop {config.version} on port {config.port}", flush=True)
        server.serve_forever(poll_interval=0.05)
        stopper.join()
    print("shop: stopped", flush=True)
