"""Free ports, and the owners of the others."""

from __future__ import annotations

import os
import socket

import pytest

from headway.domain.errors import ServiceUnavailable
from headway.system import ports_in_use


def test_a_port_with_a_server_is_named_with_its_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert not ports_in_use.is_free("127.0.0.1", port)
        with pytest.raises(ServiceUnavailable) as taken:
            ports_in_use.require_free("127.0.0.1", port, "--port")
    assert f"port {port} on 127.0.0.1 is taken by" in taken.value.what
    assert f"(pid {os.getpid()})" in taken.value.what
    assert taken.value.hint == "stop it, or choose another with --port"


def test_a_port_without_a_server_is_free() -> None:
    with ports_in_use.reserved() as port:
        assert ports_in_use.is_free("127.0.0.1", port)
        ports_in_use.require_free("127.0.0.1", port, "--port")


def test_a_reserved_port_is_for_the_server_that_names_it() -> None:
    with ports_in_use.reserved() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=20)
        with socket.create_server(("127.0.0.1", port)):  # sets SO_REUSEADDR
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
