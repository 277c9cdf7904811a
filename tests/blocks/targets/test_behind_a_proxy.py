"""Requests through a real nginx and a real Caddy, then Envoy, to an app."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import grpc
import httpx
import pytest

from headway.domain.revision import Http
from headway.testing.contracts import until
from tests.blocks.targets.test_data_plane import MEBIBYTE, messages, serve
from tests.contracts import targets
from tests.standins import data_plane_app, grpc_app
from tests.standins.ports import free_port

pytestmark = pytest.mark.slow

# As in the guide "Put a reverse proxy in front"; the second server has nginx's defaults, and so HTTP/1.0.
NGINX = """
daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{app};
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto https;
      proxy_buffering off;
      client_max_body_size 0;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
  }}
  server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://127.0.0.1:{app}; }} }}
  server {{ listen 127.0.0.1:{grpc} http2; location / {{ grpc_pass grpc://127.0.0.1:{grpc_app}; }} }}
}}
"""
CADDY = """
{{
  admin off
  skip_install_trust
  auto_https disable_redirects
  storage file_system {place}/storage
  servers {{
    protocols h1 h2 h2c
  }}
}}
https://localhost:{port} {{
  bind 127.0.0.1
  tls internal
  reverse_proxy 127.0.0.1:{app}
}}
http://127.0.0.1:{grpc} {{
  reverse_proxy 127.0.0.1:{grpc_app} {{
    transport http {{
      versions h2c
    }}
  }}
}}
"""


Unary: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"


class Front(NamedTuple):
    """A proxy in front of Envoy: its URL, the port of its gRPC, and the certificate authority to trust."""

    url: str
    grpc_port: int
    authority: Path | None = None

    @property
    def client(self) -> httpx.Client:
        trusted = ssl.create_default_context(cafile=self.authority) if self.authority else True
        return httpx.Client(base_url=self.url, verify=trusted, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fronted")


@pytest.fixture(scope="module")
def apps(place: Path) -> Iterator[tuple[str, str]]:
    """URLs of the Envoys of an app, and of one with gRPC."""
    spec = targets.bundle_spec(place).model_copy(update={"instances": 1})
    sources = {"data_plane_app": data_plane_app, "grpc_app": grpc_app}
    texts = {name: Path(str(module.__file__)).read_text() for name, module in sources.items()}
    spec = targets.with_files(spec, **texts)
    with targets.process(place / "target") as target:
        yield (
            serve(target, spec, "plain", run=f"exec {sys.executable} data_plane_app.py"),
            serve(target, spec, "grpc", run=f"exec {sys.executable} grpc_app.py", http=Http(h2c=True)),
        )


@contextmanager
def running(*command: str, ports: list[int], **environment: str) -> Iterator[None]:
    """Run a proxy until the block ends; it has begun when all ports answer."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE)
    try:
        until(lambda: all(listens(port) for port in ports))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return False
    return True


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"no {name} on this machine: apt-get install {name}")
    return found


@pytest.fixture(scope="module")
def nginx(place: Path, apps: tuple[str, str]) -> Iterator[tuple[Front, Front]]:
    """As the guide has it; with its defaults."""
    command = program("nginx")
    port, plain, grpc_port = (free_port() for _ in range(3))
    app, grpc_app_port = (url.rpartition(":")[2] for url in apps)
    text = NGINX.format(place=place, port=port, plain=plain, grpc=grpc_port, app=app, grpc_app=grpc_app_port)
    (place / "nginx.conf").write_text(text)
    with running(command, "-p", str(place), "-c", str(place / "nginx.conf"), ports=[port, plain, grpc_port]):
        yield Front(f"http://127.0.0.1:{port}", grpc_port), Front(f"http://127.0.0.1:{plain}", grpc_port)


@pytest.fixture(scope="module")
def caddy(place: Path, apps: tuple[str, str]) -> Iterator[Front]:
    command = program("caddy")
    port, grpc_port = (free_port() for _ in range(2))
    app, grpc_app_port = (url.rpartition(":")[2] for url in apps)
    (place / "Caddyfile").write_text(
        CADDY.format(place=place, port=port, grpc=grpc_port, app=app, grpc_app=grpc_app_port)
    )
    arguments = ("run", "--adapter", "caddyfile", "--config", str(place / "Caddyfile"))
    home = {"XDG_DATA_HOME": str(place / "data"), "XDG_CONFIG_HOME": str(place / "config")}
    authority = place / "storage" / "pki" / "authorities" / "local" / "root.crt"
    with running(command, *arguments, ports=[port, grpc_port], **home):
        until(authority.exists)
        yield Front(f"https://localhost:{port}", grpc_port, authority)


@pytest.fixture(params=["nginx", "caddy"])
def front(request: pytest.FixtureRequest) -> Front:
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, Front) else found[0]


def test_nginx_needs_no_settings(nginx: tuple[Front, Front]) -> None:
    with nginx[1].client as client:
        assert client.get("/").status_code == 200
        assert client.post("/", content=b"x" * 1000).json() == {"received": 1000}


def test_the_app_knows_the_client_and_its_scheme(front: Front) -> None:
    with front.client as client:
        seen = {name.lower(): value for name, value in client.get("/headers").json().items()}
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert seen["host"].split(":")[0] in ("127.0.0.1", "localhost")


def test_a_client_cannot_forge_what_the_front_proxy_says(front: Front) -> None:
    with front.client as client:
        answer = client.get("/headers", headers={"x-forwarded-proto": "http", "x-envoy-retry-on": "5xx"})
        seen = {name.lower(): value for name, value in answer.json().items()}
    assert seen["x-forwarded-proto"] == "https"
    assert not [name for name in seen if name.startswith("x-envoy")]


def test_requests_that_fail_or_take_long_are_executed_once(front: Front) -> None:
    with front.client as client:
        for path, status in (("/slow?seconds=3", 200), ("/status?is=503", 503), ("/reset", 502)):
            before = client.get("/executed", params={"path": path}).json()["times"]
            assert client.get(path).status_code in (status, 503)
            assert client.get("/executed", params={"path": path}).json()["times"] == before + 1


def test_large_uploads_and_downloads_pass(front: Front) -> None:
    with front.client as client:
        for content in (b"x" * 100 * MEBIBYTE, iter([b"x" * MEBIBYTE] * 100)):
            assert client.post("/", content=content).json() == {"received": 100 * MEBIBYTE}
        assert len(client.get(f"/large?bytes={100 * MEBIBYTE}").content) == 100 * MEBIBYTE


def test_events_come_one_by_one(front: Front) -> None:
    with front.client as client, client.stream("GET", "/events?seconds=0.5") as answer:
        assert [chunk for chunk in answer.iter_text() if chunk] == ["data: 0\n\n", "data: 1\n\n", "data: 2\n\n"]


def test_websockets_pass_through_nginx(nginx: tuple[Front, Front]) -> None:
    assert messages(nginx[0].url, 0.2) == ["message 0", "message 1", "message 2"]


def test_websockets_pass_through_caddy(caddy: Front) -> None:
    assert messages(caddy.url, 0.2, ssl.create_default_context(cafile=caddy.authority)) == [
        "message 0",
        "message 1",
        "message 2",
    ]


def test_grpc_passes(front: Front, apps: tuple[str, str]) -> None:
    for address in (f"127.0.0.1:{front.grpc_port}", apps[1].removeprefix("http://")):
        with grpc.insecure_channel(address) as channel:
            echo: Unary = channel.unary_unary("/shop.Shop/Echo")
            assert echo(b"mug", timeout=60) == b"echo mug"
            counted: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/shop.Shop/Count")
            assert list(counted(b"mug ", timeout=60)) == [b"mug 0", b"mug 1", b"mug 2"]
            nothing: Unary = channel.unary_unary("/shop.Shop/Nothing")
            with pytest.raises(grpc.RpcError) as refused:
                nothing(b"", timeout=60)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_app_with_grpc_serves_http_1_as_well(apps: tuple[str, str]) -> None:
    assert httpx.get(f"{apps[1]}/health", trust_env=False).text == "ok"
