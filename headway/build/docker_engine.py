"""Connect to a Docker Engine, pull images, and turn its errors into TargetErrors."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException

from headway.domain.errors import TargetError

__all__ = ["address", "connected", "familiar", "host", "pull", "words"]

PULL = 1800.0  # seconds for an image with all its layers
SILENT = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
ASKED = 20.0  # seconds for `ssh -G`


def address(url: str | None = None) -> str:
    """URL of the engine: the given one, else DOCKER_HOST, else the local socket."""
    return url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


@contextmanager
def connected(who: str, url: str | None = None, timeout: float = 60) -> Iterator[docker.DockerClient]:
    """Open a new client, because docker clients are not thread-safe. `timeout` is the read timeout in seconds.

    Raises TargetError, prefixed with `who`, when the engine rejects a request or does not answer.
    """
    where = address(url)
    client = None
    try:
        environment = {**os.environ, "DOCKER_HOST": _with_port(where)}
        client = docker.from_env(environment=environment, timeout=timeout, use_ssh_client=_ssh(where))
        yield client
    except APIError as error:
        raise TargetError(f"{who}: the Docker engine says: {words(error)}", "docker ps shows more") from error
    except SILENT as error:
        raise TargetError(
            f"{who}: the Docker engine {where} does not answer: {_first_line(error)}",
            "is dockerd running, and may this user talk to it?",
        ) from error
    finally:
        if client is not None:
            client.close()


def pull(engine: docker.DockerClient, image: str, login: dict[str, str] | None = None, timeout: float = PULL) -> None:
    """Pull an image in at most `timeout` seconds; the client's own timeout limits the time without output.

    Raises docker's APIError with the error message of the engine or of the registry.
    """
    api = engine.api
    post, end = api.post, time.monotonic() + timeout
    # docker-py sets no timeout for a pull.
    api.post = lambda *words, **options: post(*words, **{**options, "timeout": api.timeout})
    try:
        for event in api.pull(image, auth_config=login, stream=True, decode=True):
            if "error" in event:  # an error can follow status 200
                raise APIError(str(event["error"]))
            if time.monotonic() > end:
                raise APIError(f"the pull has not ended after {timeout:g} s")
    except (requests.Timeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise APIError(f"nothing was heard of the pull for {api.timeout:g} s") from error
    finally:
        api.post = post


def familiar(name: str) -> str:
    """Name of an image as the engine lists it: without the default prefixes of Docker Hub."""
    return name.removeprefix("index.").removeprefix("docker.io/").removeprefix("library/")


def host(url: str | None) -> str:
    """IP address of a remote engine; empty for a local one. Raises TargetError."""
    where = urlsplit(address(url))
    if where.scheme in ("unix", "npipe", "") or where.hostname is None:
        return ""
    try:
        return socket.gethostbyname(_meant(where.hostname)[0] if where.scheme == "ssh" else where.hostname)
    except OSError as error:
        raise TargetError(f"{where.hostname}: {error.strerror}", "is the engine's name right?") from error


def _ssh(url: str) -> bool:
    return url.startswith("ssh://")


def _with_port(url: str) -> str:
    """Add the port from the ssh configuration: docker-py passes 22 to ssh when the URL has no port."""
    where = urlsplit(url)
    if not _ssh(url) or where.port or where.hostname is None:
        return url
    return f"{url.rstrip('/')}:{_meant(where.hostname)[1]}"


def _meant(name: str) -> tuple[str, str]:
    """Host and port of a name in the ssh configuration. Raises TargetError."""
    try:
        asked = subprocess.run(["ssh", "-G", name], capture_output=True, text=True, timeout=ASKED, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise TargetError(f"{name}: ssh cannot resolve the host: {error}", "is ssh installed?") from error
    settings = dict(line.partition(" ")[::2] for line in asked.stdout.splitlines())
    return settings["hostname"], settings["port"]


def words(error: APIError) -> str:
    """First line of the engine's error message."""
    return _first_line(error.explanation or error)


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
