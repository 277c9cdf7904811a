"""Hosts that a workload in a sandbox may reach: their addresses, which are looked up once, before it starts."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence

import psutil

from headway.domain.errors import CommandFailed

__all__ = ["LINK_LOCAL", "addresses_of", "hosts_file", "own_addresses"]

LINK_LOCAL = "169.254.0.0/16"  # clouds serve the credentials of the machine at 169.254.169.254


def own_addresses() -> set[str]:
    """IPv4 addresses of this machine, without the loopback ones."""
    return {
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    }


async def addresses_of(hosts: Sequence[str], name: str) -> dict[str, list[str]]:
    """IPv4 addresses of each host.

    Raises CommandFailed for the workload `name` when a host is not found, or is one that no workload reaches.
    """
    found = {host: await _addresses(host, name) for host in hosts}
    own = own_addresses()
    for host, addresses in found.items():
        for address in addresses:
            known = ipaddress.IPv4Address(address)
            if address in own or _never_reached(known):
                raise CommandFailed(
                    f"{name}: network: {host} is {address}, an address that no command reaches",
                    "HEADWAY_SANDBOX_SERVICES opens services of this machine",
                )
    return found


def _never_reached(address: ipaddress.IPv4Address) -> bool:
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


async def _addresses(host: str, name: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
    except OSError as error:
        raise CommandFailed(f"{name}: network: {host} is not found: {error.strerror}", "correct its name") from error
    return sorted({str(address[0]) for *_, address in found})


def hosts_file(addresses: Mapping[str, Sequence[str]]) -> str:
    """Content of /etc/hosts, for a workload without a name server."""
    lines = [f"{address} {host}" for host, each in addresses.items() for address in each]
    return "\n".join(["127.0.0.1 localhost", *lines, ""])
