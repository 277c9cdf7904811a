"""Finds the cluster of a target: a kubeconfig as text or path, the pod that this runs in, or kubectl's default."""

from __future__ import annotations

from pathlib import Path

import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from blocks.targets.kubernetes.api_client import Cluster
from blocks.targets.kubernetes.api_errors import first_line
from headway.domain.errors import TargetError

__all__ = ["connect"]


def connect(who: str, namespace: str, *, path: Path | None, context: str | None, text: str | None) -> Cluster:
    """The cluster of a kubeconfig: its text, its path, else the pod this runs in, else what kubectl would take.

    Raises TargetError, which begins with `who`, when there is none or it cannot be read.
    """
    made = client.Configuration()
    made.retries = False  # tried again here, where it is known what may be
    try:
        if text is not None:
            config.load_kube_config_from_dict(
                yaml.safe_load(text), context=context, client_configuration=made, persist_config=False
            )
        elif path is not None:
            config.load_kube_config(str(path), context=context, client_configuration=made, persist_config=False)
        else:
            _around(made, context)
    except (ConfigException, yaml.YAMLError, OSError, TypeError, AttributeError) as error:
        raise TargetError(
            f"{who}: no Kubernetes cluster: {first_line(error)}",
            "name a kubeconfig in the target block: a path, or its text as a secret",
        ) from error
    return Cluster(who, namespace, client.ApiClient(configuration=made))


def _around(made: client.Configuration, context: str | None) -> None:
    """The pod that this runs in says where its cluster is; elsewhere the user's kubeconfig does."""
    try:
        config.load_incluster_config(client_configuration=made)
    except ConfigException:
        config.load_kube_config(context=context, client_configuration=made, persist_config=False)
