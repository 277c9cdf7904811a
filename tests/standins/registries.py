"""Image registries for tests: Debian's docker-registry, and proxies in front of one."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from blocks.registries import oci_documents
from tests.standins.ports import free_port

__all__ = ["PASSWORD", "USER", "front", "image", "serving", "summed"]

USER, PASSWORD = "ann", "hunter2-and-more"
HASH = "$2b$04$S3V9gUFKk.RJlbCxgv82suGBAwcsCGM8LJQzbrilQUmI/T70cZU4."  # bcrypt, with as few rounds as there are


@contextmanager
def serving(place: Path, *, login: bool = False) -> Iterator[str]:
    """Host and port of a registry that keeps its images in this directory."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no docker-registry on this machine: apt-get install docker-registry")
    place.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    settings: dict[str, object] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(place / "images")}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
    if login:
        (place / "users").write_text(f"{USER}:{HASH}\n")
        settings["auth"] = {"htpasswd": {"realm": "here", "path": str(place / "users")}}
    (place / "registry.yml").write_text(json.dumps(settings))
    with (place / "log").open("ab") as log:
        process = subprocess.Popen([program, "serve", str(place / "registry.yml")], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while not _listens(process.pid):
            assert process.poll() is None, (place / "log").read_text()
            assert time.monotonic() < end, (place / "log").read_text()
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def image(host: str, repository: str, content: bytes) -> tuple[str, str]:
    """Put an image of one layer there, without an engine: digests of its manifest and its layer."""
    with httpx.Client(base_url=f"http://{host}/v2/{repository}/", trust_env=False) as client:
        blobs = [content, b"{}"]
        for blob in blobs:
            place = httpx.URL(client.post("blobs/uploads/").headers["location"])
            client.put(place.copy_merge_params({"digest": summed(blob)}), content=blob).raise_for_status()
        layer, config = ({"mediaType": "a/b", "digest": summed(one), "size": len(one)} for one in blobs)
        manifest = {"schemaVersion": 2, "mediaType": oci_documents.MANIFEST, "config": config, "layers": [layer]}
        headers = {"Content-Type": oci_documents.MANIFEST}
        answer = client.put("manifests/main", content=json.dumps(manifest).encode(), headers=headers)
        answer.raise_for_status()
        return answer.headers["docker-content-digest"], summed(content)


def summed(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _listens(pid: int) -> bool:
    try:
        return any(one.status == psutil.CONN_LISTEN for one in psutil.Process(pid).net_connections("tcp"))
    except psutil.Error:
        return False


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def front(behind: str, meddle: Callable[[str, str], Answer | str | None]) -> Iterator[str]:
    """Host and port of a proxy before a registry. `meddle(method, path)` returns its own response, `break` to break
    off in the middle of what is sent, or None to pass it on.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            meddled = meddle(self.command, self.path)
            if meddled == "break":
                if self.command in ("PATCH", "PUT"):
                    self.rfile.read(10)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            body = self._body()
            if isinstance(meddled, tuple):
                self._answer(*meddled)
                return
            headers = {key: value for key, value in self.headers.items() if key.lower() != "transfer-encoding"}
            with httpx.Client(trust_env=False, timeout=30) as client:
                answer = client.request(self.command, f"http://{behind}{self.path}", headers=headers, content=body)
            kept = {key: value for key, value in answer.headers.items() if key not in DROPPED}
            self._answer(answer.status_code, kept, answer.content, answer.headers.get("content-length"))

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                pieces = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, status: int, headers: dict[str, str], body: bytes, length: str | None = None) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


DROPPED = {"content-length", "transfer-encoding", "connection"}
