"""Ports that Headway gives out: outside the ephemeral range, and to one app of one user of the machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from blocks.targets import _ports
from blocks.targets._app_state import AppState, InstanceState


@pytest.fixture(autouse=True)
def reservations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's reservations, but for the tests alone."""
    monkeypatch.setattr(_ports, "RESERVATIONS", tmp_path / "ports")
    return tmp_path / "ports"


@pytest.fixture
def apps(tmp_path: Path) -> tuple[Path, Path]:
    """Directories of two apps."""
    directories = tmp_path / "one", tmp_path / "two"
    for directory in directories:
        directory.mkdir()
    return directories


def age(reservation: Path) -> None:
    """Make it older than any launch takes."""
    old = reservation.stat().st_mtime - 2 * _ports.NEW
    os.utime(reservation, (old, old))


def test_ports_are_outside_of_the_ephemeral_range(apps: tuple[Path, Path]) -> None:
    low, high = (int(bound) for bound in _ports.EPHEMERAL.read_text().split())
    ports = [_ports.reserve_instance(apps[0]) for _ in range(50)] + [_ports.reserve_public(apps[0], "127.0.0.1", ())]
    assert [port for port in ports if low <= port <= high] == []
    assert len(set(ports)) == 51


def test_an_ephemeral_range_of_all_ports_leaves_a_choice(
    apps: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "range").write_text("1024\t65535\n")
    monkeypatch.setattr(_ports, "EPHEMERAL", tmp_path / "range")
    assert _ports.reserve_instance(apps[0]) >= 20000


def test_a_port_on_which_anybody_listens_is_not_given_out(apps: tuple[Path, Path]) -> None:
    first = _ports.reserve_public(apps[0], "127.0.0.1", ())
    _ports.release_unused(apps[0], ())
    with socket.create_server(("127.0.0.1", first)):
        assert _ports.reserve_public(apps[0], "127.0.0.1", ()) != first
    assert _ports.reserve_public(apps[0], "127.0.0.1", ()) == first


def test_what_another_app_has_just_reserved_is_its_own(apps: tuple[Path, Path]) -> None:
    ports = [_ports.reserve_public(app, "127.0.0.1", ()) for app in apps]
    assert len(set(ports)) == 2


def test_what_another_app_has_is_its_own_though_it_does_not_run(apps: tuple[Path, Path], reservations: Path) -> None:
    one, two = apps
    port = _ports.reserve_public(one, "127.0.0.1", ())
    age(reservations / str(port))
    AppState(port=port, instances={"r": {"a": InstanceState(host="127.0.0.1", port=port + 1)}}).write(one)
    assert _ports.reserve_public(two, "127.0.0.1", ()) != port
    _ports.hold(two, port)
    assert (reservations / str(port)).read_text() == str(one)


def test_what_an_app_has_lost_is_given_out_again(apps: tuple[Path, Path], reservations: Path) -> None:
    one, two = apps
    port = _ports.reserve_public(one, "127.0.0.1", ())
    age(reservations / str(port))
    AppState(port=port + 1000).write(one)
    assert _ports.reserve_public(two, "127.0.0.1", ()) == port


def test_what_another_user_has_reserved_is_theirs_for_as_long_as_they_keep_it(
    apps: tuple[Path, Path], reservations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = _ports.reserve_public(apps[0], "127.0.0.1", ())
    age(reservations / str(port))
    with monkeypatch.context() as somebody:
        somebody.setattr(os, "getuid", lambda: 54321)
        assert _ports.reserve_public(apps[1], "127.0.0.1", ()) != port
        _ports.release_unused(apps[0], ())
    assert (reservations / str(port)).exists()
    _ports.release_unused(apps[0], ())
    assert not (reservations / str(port)).exists()


def test_ports_of_ended_instances_are_given_back(apps: tuple[Path, Path], reservations: Path) -> None:
    ports = [_ports.reserve_instance(apps[0]) for _ in range(3)]
    other = _ports.reserve_instance(apps[1])
    _ports.release_unused(apps[0], ports[:1])
    assert {int(one.name) for one in reservations.iterdir() if one.name.isdecimal()} == {ports[0], other}
