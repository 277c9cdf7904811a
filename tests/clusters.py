"""The Kubernetes cluster that the tests are lent: HEADWAY_TEST_KUBECONFIG, with a registry in HEADWAY_TEST_REGISTRY."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from kubernetes import client, config

from headway.model import Artifact
from tests.engines import Engine

__all__ = ["Borrowed", "Namespace", "borrowed"]


class Namespace(NamedTuple):
    """One of the tests' own, which is removed with all that is in it."""

    name: str
    kubeconfig: Path
    registry: str

    @property
    def api(self) -> client.ApiClient:
        made: client.ApiClient = config.new_client_from_config(str(self.kubeconfig))
        return made


class Borrowed:
    """A cluster whose Services can be reached from here: tests send their requests to them."""

    def __init__(self, kubeconfig: Path, registry: str) -> None:
        self.kubeconfig = kubeconfig
        self.registry = registry
        self.core = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))

    @contextmanager
    def namespace(self) -> Iterator[Namespace]:
        name = f"headway-test-{secrets.token_hex(4)}"
        self.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
        try:
            yield Namespace(name, self.kubeconfig, self.registry)
        finally:
            self.core.delete_namespace(name)

    def image(self, engine: Engine, files: dict[str, str], dockerfile: str = 'CMD ["python3", "app.py"]') -> Artifact:
        """An image of these files, in the registry, run by somebody who is not root."""
        made = engine.image(files, dockerfile=f"USER 10001:10001\n{dockerfile}")
        repository = f"{self.registry}/headway-test/app"
        image = engine.client.images.get(made.location)
        image.tag(repository, "test")
        digest = next(
            told["aux"]["Digest"]
            for told in engine.client.images.push(repository, "test", stream=True, decode=True)
            if "aux" in told
        )
        return Artifact(kind="image", digest=digest, location=f"{repository}@{digest}", size=made.size)


def borrowed() -> Borrowed:
    """Skips the test that asks for it when there is none."""
    kubeconfig, registry = (os.environ.get(f"HEADWAY_TEST_{name}") for name in ("KUBECONFIG", "REGISTRY"))
    if not kubeconfig or not registry:
        pytest.skip("no cluster: HEADWAY_TEST_KUBECONFIG names one, HEADWAY_TEST_REGISTRY its registry")
    return Borrowed(Path(kubeconfig), registry)
