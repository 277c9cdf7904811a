"""Apps behind the stand-ins of hosted platforms: real processes, and an edge with TLS."""

from __future__ import annotations

import http.server
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.standins.ports import free_port

__all__ = ["PYTHON", "App", "Edge", "Trust", "serving"]

STARTING = 60.0  # seconds
LOOPBACK = "127.0.0.1"


class Trust:
    """A certificate for this machine, and its own authority: SSL_CERT_FILE names that one."""

    def __init__(self, place: Path) -> None:
        self.authority, self.chain = place / "authority.pem", place / "chain.pem"
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Headway's tests")])
        root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

        def signed(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
            builder = x509.CertificateBuilder(name, subject, key.public_key(), x509.random_serial_number())
            builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            for extension in extensions:
                # Python 3.13 verifies that these are critical, as RFC 5280 demands.
                critical = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
                builder = builder.add_extension(extension, critical=critical)
            return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

        identifier = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
        usage = x509.KeyUsage(*(bit in (0, 5, 6) for bit in range(9)))  # it signs certificates
        self.authority.write_bytes(
            signed(name, root, x509.BasicConstraints(ca=True, path_length=None), identifier, usage)
        )
        here = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, LOOPBACK)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        key = leaf.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.chain.write_bytes(signed(here, leaf, names, issuer) + key)

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain)
        return context


class App:
    """An app's process, as a platform starts it: in the files it was given, with PORT and variables."""

    def __init__(self, place: Path, command: str, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.log = place.with_suffix(".log")
        inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", command],
                cwd=place,
                env={**inherited, **environment, "PORT": str(self.port)},
                stdout=log,
                stderr=log,
            )

    def listens(self) -> bool:
        """Wait until the process listens; false if it has exited."""
        end = time.monotonic() + STARTING
        while self.process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if not probe.connect_ex((LOOPBACK, self.port)):
                    return True
            time.sleep(0.02)
        return False

    def healthy(self, path: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            try:
                if httpx.get(f"http://{LOOPBACK}:{self.port}{path}", trust_env=False, timeout=60).status_code == 200:
                    return True
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        return False

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)


PYTHON = f"exec {shutil.which('python3') or sys.executable} app.py"
Answer = tuple[int, bytes]


class Edge:
    """A host name of a platform: a TLS port that passes requests on to whom `choose` names, or answers itself."""

    def __init__(self, trust: Trust, choose: Callable[[Mapping[str, str]], App | Answer]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                chosen = choose({name.lower(): value for name, value in self.headers.items()})
                status, body = chosen if isinstance(chosen, tuple) else self._passed_on(chosen)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _passed_on(self, app: App) -> Answer:
                try:
                    answer = httpx.get(f"http://{LOOPBACK}:{app.port}{self.path}", trust_env=False, timeout=60)
                except httpx.HTTPError as error:
                    return 502, type(error).__name__.encode()
                return answer.status_code, answer.content

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = trust.server().wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.host = f"{LOOPBACK}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """URL of a plain HTTP server for the stand-in of an API."""
    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), handler)
    server.daemon_threads = True
    with server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}"
        finally:
            server.shutdown()
