"""Settings of a Kubernetes target, and what follows from them alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from blocks.metrics.prometheus import Prometheus
from blocks.registries.oci import Registry
from blocks.targets._receipts import RequiresReceipts
from blocks.targets.kubernetes import promql, render
from blocks.targets.kubernetes.routing import ByGateway, ByIngress, ByPods, Routing

__all__ = ["KubernetesSettings"]

NAME = "[a-z0-9]([-.a-z0-9]*[a-z0-9])?"


class KubernetesSettings(RequiresReceipts):
    """Fields of the block, checked, with the way to split requests and the rules for all objects."""

    namespace: str = Field(default="default", description="namespace of all objects. It must exist")
    kubeconfig: Path | None = Field(
        default=None,
        description="path of a kubeconfig. Default: the service account of Headway's pod, else the "
        "kubeconfig that kubectl uses",
    )
    kubeconfig_text: SecretStr | None = Field(default=None, description="content of a kubeconfig, instead of its path")
    context: str | None = Field(default=None, description="context of the kubeconfig. Default: the current one")
    url: str | None = Field(
        default=None,
        description="URL of an app, such as https://{app}.example.com. Default: the address of its Service",
    )
    preview_url: str | None = Field(default=None, description="URL of the preview route, likewise")
    gateway: str | None = Field(
        default=None,
        pattern=rf"^{NAME}/{NAME}(/{NAME})?$",
        description="NAMESPACE/NAME or NAMESPACE/NAME/LISTENER of a Gateway that splits the requests to "
        "the host of `url`",
    )
    ingress: str | None = Field(
        default=None,
        pattern=rf"^{NAME}$",
        description="ingress class of an ingress-nginx that splits the requests to the host of `url`, "
        "instead of a Gateway",
    )
    certificate: str | None = Field(
        default=None,
        description="with `ingress`: name of the Secret with the TLS certificate, such as {app}-tls. "
        "Default: that of ingress-nginx",
    )
    prometheus: Prometheus | None = Field(
        default=None,
        description="Prometheus that counts the requests of each revision. Default: an analysis is judged by its "
        "`synthetic` requests, which Headway sends to the pods",
    )
    exporter: promql.Exporter = Field(
        default="app",
        description="source of the counters in Prometheus: the app itself (http_requests_total), "
        "ingress-nginx, or Istio",
    )
    queries: dict[promql.Question, str] = Field(
        default={},
        description="PromQL of counters that replaces the exporter's: requests, errors, and latency by "
        f"`le`. Placeholders: {', '.join(f'${name}' for name in promql.PLACEHOLDERS)}",
    )
    registry: Registry | None = Field(
        default=None,
        description="registry that is asked whether an image still exists. Default: that of the image, without a login",
    )
    pull_secret: str | None = Field(default=None, description="name of the Secret that nodes pull images with")
    service_account: str | None = Field(
        default=None, description="ServiceAccount of the pods. Default: pods get no token"
    )
    keep: int = Field(default=3, ge=0, description="number of earlier revisions whose objects are kept, without pods")
    read_only: bool = Field(default=True, description="mount the root file system read-only, except /tmp")
    cap_add: list[str] = Field(
        default=[], description="Linux capabilities that apps keep, such as CHOWN. Default: none"
    )
    cpu: float = Field(
        default=0.1, gt=0, description="processor cores requested for an app that has no `resources/cpu`"
    )
    memory: int = Field(
        default=128 * 2**20, gt=0, description="memory limit, in bytes, of an app that has no `resources/memory`"
    )
    settle: float = Field(
        default=1.0, ge=0, description="seconds until every node uses changed endpoints: the sync period of kube-proxy"
    )

    @field_validator("url", "preview_url", "certificate")
    @classmethod
    def _names_what_is_known(cls, value: str | None) -> str | None:
        try:
            (value or "").format(app="", environment="", namespace="")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(f"may name {{app}}, {{environment}} and {{namespace}}: {value}") from error
        return value

    @model_validator(mode="after")
    def _has_a_host(self) -> KubernetesSettings:
        if self.gateway and self.ingress:
            raise ValueError("gateway and ingress: requests are split by one of them")
        if (self.gateway or self.ingress) and not self.url:
            raise ValueError("gateway and ingress need url: requests to its host are the app's")
        return self

    @field_validator("queries")
    @classmethod
    def _askable(cls, value: dict[promql.Question, str]) -> dict[promql.Question, str]:
        for question, query in value.items():
            if strange := promql.unknown(query):
                raise ValueError(f"{question}: ${strange[0]} is none of {', '.join(promql.PLACEHOLDERS)}")
        return value

    @property
    def _marked(self) -> str:
        return f"kubernetes/{self._block_document_name or self.namespace}"

    @property
    def _routing(self) -> Routing:
        url = self.url or ""  # see `_has_a_host`
        if self.gateway:
            return ByGateway(gateway=self.gateway, url=url, preview_url=self.preview_url)
        if self.ingress:
            return ByIngress(
                ingress_class=self.ingress, url=url, preview_url=self.preview_url, certificate=self.certificate
            )
        return ByPods()

    @property
    def _rules(self) -> render.Rules:
        return render.Rules(
            namespace=self.namespace,
            cpu=self.cpu,
            memory=self.memory,
            read_only=self.read_only,
            capabilities=tuple(self.cap_add),
            pull_secret=self.pull_secret,
            service_account=self.service_account,
        )
