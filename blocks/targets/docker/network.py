"""The network of a Docker target, in which every container has an IP address of its own."""

from __future__ import annotations

import ipaddress
import secrets
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound

from blocks.targets.docker.containers import LABEL
from headway.system.atomic_files import locked

__all__ = ["addresses_in_use", "free_hosts"]

RANDOM = secrets.SystemRandom()


def free_hosts(engine: docker.DockerClient, name: str, number: int, home: Path) -> list[str]:
    """At most `number` random IP addresses of the network, which is created if it is missing. `home` has its lock."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(home / "network.lock"):
        try:
            network = engine.api.inspect_network(name)
        except NotFound:
            network = _create(engine, name)
    subnet = ipaddress.ip_network(network["IPAM"]["Config"][0]["Subnet"])
    numbers = range(2, subnet.num_addresses - 1)  # the first host is the gateway
    return [str(subnet[host]) for host in RANDOM.sample(numbers, min(number, len(numbers)))]


def addresses_in_use(engine: docker.DockerClient, name: str) -> set[str]:
    """IP addresses of the running containers in the network."""
    try:
        network = engine.api.inspect_network(name)
    except NotFound:
        return set()
    return {one["IPv4Address"].partition("/")[0] for one in network["Containers"].values()}


def _create(engine: docker.DockerClient, name: str) -> dict[str, Any]:
    """With an explicit subnet, without which addresses cannot be chosen. The engine proposes one that is free."""
    labels = {f"{LABEL}target": name}
    probe = engine.api.create_network(name, driver="bridge", labels=labels)["Id"]
    subnet = engine.api.inspect_network(probe)["IPAM"]["Config"][0]["Subnet"]
    engine.api.remove_network(probe)
    pool = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)])
    engine.api.create_network(name, driver="bridge", ipam=pool, labels=labels)
    return dict(engine.api.inspect_network(name))
