"""Commands that may reach some hosts only, in a real sandbox."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from headway.domain.errors import CommandFailed
from headway.domain.workload import Finished, Workload
from headway.system.command_runner import clean_environment
from headway.system.runners.allowed_hosts import own_addresses
from headway.system.runners.host import HostRunner
from headway.system.runners.sandbox import SandboxRunner

ALLOWED, OTHER = "192.0.2.7", "192.0.2.8"  # RFC 5737: addresses for documentation
ROUTED = """
    import errno, socket
    def routed(address):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            try:
                client.connect((address, 9))  # UDP: only the route is looked up
            except OSError as error:
                assert error.errno in (errno.ENETUNREACH, errno.EINVAL, errno.EHOSTUNREACH), error  # EINVAL: blackhole
                return False
            return True
"""


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    if refusal := SandboxRunner().missing():
        pytest.skip(f"{refusal.what}: {refusal.hint}")
    (workspace := tmp_path / "workspace").mkdir()
    return Workload("true", workspace, clean_environment(), 60.0, print, "unit", home=tmp_path / "home")


def attempt(workload: Workload, program: str) -> Finished:
    script = textwrap.dedent(ROUTED) + textwrap.dedent(program)
    (workload.workspace / "attempt.py").write_text(script)
    return asyncio.run(SandboxRunner().run(replace(workload, command=f"exec {sys.executable} -I attempt.py")))


def test_only_the_named_hosts_have_a_route(workload: Workload) -> None:
    program = f"""
        assert routed({ALLOWED!r})
        for address in ({OTHER!r}, "8.8.8.8", "10.0.2.3", "169.254.169.254"):
            assert not routed(address), address
    """
    finished = attempt(replace(workload, hosts=(ALLOWED,)), program)
    assert finished.exit_code == 0, finished.tail


def test_without_a_list_all_hosts_have_one(workload: Workload) -> None:
    finished = attempt(workload, f"assert routed({ALLOWED!r}) and routed({OTHER!r}) and routed('10.0.2.3')")
    assert finished.exit_code == 0, finished.tail


def test_names_are_known_without_a_name_server(workload: Workload) -> None:
    program = f"""
        assert socket.gethostbyname("localhost") == "127.0.0.1"
        assert "{ALLOWED} {ALLOWED}" in open("/etc/hosts").read()
        assert "nameserver" not in open("/etc/resolv.conf").read()
    """
    finished = attempt(replace(workload, hosts=(ALLOWED,)), program)
    assert finished.exit_code == 0, finished.tail


def test_an_empty_list_reaches_nothing(workload: Workload) -> None:
    finished = attempt(replace(workload, hosts=()), f"assert not routed({ALLOWED!r})")
    assert finished.exit_code == 0, finished.tail


def test_this_machine_and_credentials_of_clouds_cannot_be_named(workload: Workload) -> None:
    for host in ("127.0.0.1", "localhost", "169.254.169.254", *sorted(own_addresses())[:1]):
        with pytest.raises(CommandFailed, match=rf"unit: network: {host} is .*, an address that no command reaches"):
            attempt(replace(workload, hosts=(host,)), "")


def test_an_unknown_host_is_named(workload: Workload) -> None:
    with pytest.raises(CommandFailed, match=r"unit: network: registry\.invalid is not found"):
        attempt(replace(workload, hosts=("registry.invalid",)), "")


def test_the_host_runner_refuses_a_list(tmp_path: Path) -> None:
    limited = Workload("touch ran", tmp_path, {}, 60.0, print, "unit", hosts=("pypi.org",))
    with pytest.raises(CommandFailed, match=r"unit: its `network` is limited, which the host runner cannot do"):
        asyncio.run(HostRunner().run(limited))
    assert not (tmp_path / "ran").exists()
