"""A Docker Engine's client, and its refusals in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException

from headway.errors import TargetError

__all__ = ["address", "connected", "words"]


def address(url: str | None = None) -> str:
    """Where the engine is: what is given, else DOCKER_HOST, else this machine's."""
    return url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


@contextmanager
def connected(who: str, url: str | None = None, timeout: float = 60) -> Iterator[docker.DockerClient]:
    """A client of one's own: they are not made for threads. `timeout` in seconds, without a word of the engine.

    Raises TargetError, which begins with `who`, for whatever the engine says no to, and when it does not answer.
    """
    where = address(url)
    client = None
    try:
        client = docker.from_env(
            environment={**os.environ, "DOCKER_HOST": where}, timeout=timeout, use_ssh_client=where.startswith("ssh://")
        )
        yield client
    except APIError as error:
        raise TargetError(f"{who}: the Docker engine says: {words(error)}", "docker ps shows more") from error
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise TargetError(
            f"{who}: the Docker engine {where} does not answer: {_first_line(error)}",
            "is dockerd running, and may this user talk to it?",
        ) from error
    finally:
        if client is not None:
            client.close()


def words(error: APIError) -> str:
    """What the engine said, in one line."""
    return _first_line(error.explanation or error)


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
