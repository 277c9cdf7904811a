"""The cluster that tests may use: HEADWAY_TEST_KUBECONFIG, with a registry in HEADWAY_TEST_REGISTRY."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from kubernetes import client, config
from ruamel.yaml import YAML

from headway.domain.revision import Artifact
from tests.standins.docker_engine import Engine

ROLE = Path(__file__).parents[2] / "docs" / "kubernetes-role.yaml"

__all__ = ["Borrowed", "Namespace", "borrowed"]


class Namespace(NamedTuple):
    """One of the tests' own, which is removed with all that is in it."""

    name: str
    kubeconfig: Path  # of an account that may do what the documented Role allows, and nothing else
    registry: str
    admin: Path

    @property
    def api(self) -> client.ApiClient:
        """API client for the tests' own requests."""
        made: client.ApiClient = config.new_client_from_config(str(self.admin))
        return made


class Borrowed:
    """A cluster whose Services can be reached from here: tests send their requests to them."""

    def __init__(self, kubeconfig: Path, registry: str) -> None:
        self.kubeconfig = kubeconfig
        self.registry = registry
        self.core = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))

    @contextmanager
    def namespace(self, place: Path) -> Iterator[Namespace]:
        """A new one; its kubeconfig is in this directory."""
        name = f"headway-test-{secrets.token_hex(4)}"
        self.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
        try:
            yield Namespace(name, self._allowed(name, place), self.registry, self.kubeconfig)
        finally:
            self.core.delete_namespace(name)

    def _allowed(self, namespace: str, place: Path) -> Path:
        role = YAML(typ="safe").load(ROLE)
        account = client.V1ObjectMeta(name="headway")
        self.core.create_namespaced_service_account(namespace, client.V1ServiceAccount(metadata=account))
        rules = client.RbacAuthorizationV1Api(self.core.api_client)
        rules.create_namespaced_role(namespace, role)
        rules.create_namespaced_role_binding(
            namespace,
            client.V1RoleBinding(
                metadata=account,
                role_ref=client.V1RoleRef(
                    api_group="rbac.authorization.k8s.io", kind="Role", name=role["metadata"]["name"]
                ),
                subjects=[client.RbacV1Subject(kind="ServiceAccount", name="headway", namespace=namespace)],
            ),
        )
        asked = client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=3600)
        )
        given = self.core.create_namespaced_service_account_token("headway", namespace, asked).status
        assert given is not None
        admin = YAML(typ="safe").load(self.kubeconfig)
        admin["users"] = [{"name": one["name"], "user": {"token": given.token}} for one in admin["users"]]
        limited = place / f"{namespace}.json"
        limited.write_text(json.dumps(admin))
        return limited

    def limit_pods(self, namespace: Namespace, number: int) -> None:
        """No more pods than this in the namespace."""
        spec = client.V1ResourceQuotaSpec(hard={"pods": str(number)})
        quota = client.V1ResourceQuota(metadata=client.V1ObjectMeta(name="few"), spec=spec)
        self.core.create_namespaced_resource_quota(namespace.name, quota)

    def image(self, engine: Engine, files: dict[str, str], *, user: str = "10001:10001") -> Artifact:
        """An image of these files in the registry, run by a non-root user."""
        made = engine.image(files, dockerfile=f'USER {user}\nCMD ["python3", "app.py"]')
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
