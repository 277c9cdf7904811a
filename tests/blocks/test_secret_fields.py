"""Secret fields of blocks: Prefect stores the mask instead of the value of a field that it does not know."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block

from blocks.git_hosts import bitbucket, gitea, github, gitlab
from blocks.metrics.prometheus import Prometheus
from blocks.registries.oci import Registry
from blocks.targets.docker.target import DockerTarget
from blocks.targets.kubernetes.target import KubernetesTarget
from blocks.targets.railway.target import RailwayTarget
from blocks.targets.vercel.target import VercelTarget

HOSTS = [
    member
    for module in (bitbucket, gitea, github, gitlab)
    for member in vars(module).values()
    if isinstance(member, type) and issubclass(member, Block) and member.__module__ == module.__name__
]
BLOCKS: list[type[Block]] = [DockerTarget, KubernetesTarget, Prometheus, RailwayTarget, Registry, VercelTarget, *HOSTS]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_secret_field_is_secret_in_prefect(block: type[Block]) -> None:
    secret = {name for name, field in block.model_fields.items() if "SecretStr" in repr(field.annotation)}
    known = set(block.model_json_schema()["secret_fields"])
    assert secret
    assert secret <= known
