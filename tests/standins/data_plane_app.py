"""An app that says what reached it: executions by path, headers; with websockets, SSE and large bodies.

Run with `python data_plane_app.py`; it listens on `PORT`. Its health path knows only the hosts in `HOSTS`, if there are
any. Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import socketserver
import threading
import time
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

EXECUTED: Counter[str] = Counter()
HOSTS = os.environ.get("HOSTS", "").split()
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "Shop/1"
    sys_version = ""

    def log_message(self, *_: Any) -> None:
        """Not into the log of the instance."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        EXECUTED[self.path] += 1
        match url.path:
            case "/health":
                self._health(float(query.get("slow", 0)))
            case "/executed":
                self._answer(200, {"times": EXECUTED[query["path"]]})
            case "/headers":
                self._answer(200, dict(self.headers.items()))
            case "/slow":
                time.sleep(float(query["seconds"]))
                self._answer(200, "slow")
            case "/status":
                self._answer(int(query["is"]), "as asked")
            case "/reset":
                self.close_connection = True
            case "/events":
                self._events(float(query["seconds"]))
            case "/socket":
                self._websocket(float(query["seconds"]))
            case "/large-header":
                self._answer(200, "large", X_Large="x" * int(query["bytes"]))
            case "/large":
                self._answer(200, b"x" * int(query["bytes"]))
            case _:
                self._answer(200, {"version": os.environ.get("HEADWAY_VERSION")}, X_App="yes")

    def do_POST(self) -> None:
        EXECUTED[self.path] += 1
        if self.path == "/reset":
            self.close_connection = True
            return
        received = sum(len(chunk) for chunk in self._body())
        self._answer(503 if self.path == "/status" else 200, {"received": received})

    do_PUT = do_POST  # noqa: N815  # http.server calls it so

    def _health(self, slow: float) -> None:
        time.sleep(slow)
        host = self.headers.get("Host", "").split(":")[0]
        if HOSTS and host not in HOSTS:
            self._answer(400, f"unknown host {host}")
        else:
            self._answer(200, {"version": os.environ.get("HEADWAY_VERSION")})

    def _body(self) -> Any:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", "0"))
        while left and (chunk := self.rfile.read(min(65536, left))):
            left -= len(chunk)
            yield chunk

    def _answer(self, status: int, body: Any, **headers: str) -> None:
        content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _events(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(3):
            self.wfile.write(f"data: {number}\n\n".encode())
            self.wfile.flush()
            time.sleep(seconds)
        self.close_connection = True

    def _websocket(self, seconds: float) -> None:
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + WEBSOCKET).digest()).decode())
        self.end_headers()
        for number in range(3):
            text = f"message {number}".encode()
            self.wfile.write(bytes([0x81, len(text)]) + text)
            self.wfile.flush()
            time.sleep(seconds)
        self.close_connection = True


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    server = Server(("0.0.0.0", int(os.environ["PORT"])), Handler)  # as many apps do
    threading.Thread(target=server.serve_forever).start()
