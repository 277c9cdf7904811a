"""Pods on a Kubernetes cluster: a Deployment for each revision, a Service for each app.

The cluster alone shows what runs: labels name the app and revision of an object, annotations hold what a rollback
needs. A module of `routing` splits the requests: by the number of pods, by a Gateway, or by ingress-nginx.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from blocks.metrics.prometheus import Prometheus
from blocks.registries.oci import Registry
from blocks.targets.kubernetes import (
    dry_run,
    logs,
    manifest_validation,
    manifests,
    one_off_pod,
    owned_objects,
    pod_status,
    promql,
    render,
    state_config_map,
)
from blocks.targets.kubernetes import (
    labels as names,
)
from blocks.targets.kubernetes.api_client import (
    AUTOSCALER,
    CONFIG_MAP,
    DEPLOYMENT,
    POD,
    SECRET,
    SERVICE,
    WATCHED,
    Cluster,
    Kind,
    connect,
    kind_of,
)
from blocks.targets.kubernetes.one_off_pod import GONE
from blocks.targets.kubernetes.pod_prober import probed
from blocks.targets.kubernetes.routing import ByGateway, ByIngress, ByPods, Router, Routing
from blocks.targets.kubernetes.routing.base import routed
from headway.domain.errors import MetricsUnavailable, RegistryError, TargetError, UsageError
from headway.domain.fencing import FencingTokens
from headway.domain.log_lines import LogLine, by_time
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Plan, Rehearse, Route
from headway.domain.ports import Command, Target
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import (
    AdoptableState,
    Capability,
    Instance,
    InstanceReadiness,
    ObjectDiff,
    Observation,
    Traffic,
)
from headway.system.redaction import Masker

__all__ = ["KubernetesTarget"]

EVENT = Kind("v1", "Event")
WHOLE = 100  # percent
NAME = "[a-z0-9]([-.a-z0-9]*[a-z0-9])?"


class KubernetesTarget(Block, Target):
    """Deployments and Services in one namespace, applied server-side with a field manager of Headway's own.

    With a `gateway` or an `ingress`, weights are exact; with a `gateway`, requests can be routed by header.
    """

    _block_type_name = "Headway Kubernetes Target"
    _block_type_slug = "kubernetes"
    _description = "Runs apps as pods on a Kubernetes cluster."

    _always: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.WEIGHTED_ROUTING,
            Capability.ATOMIC_SWITCH,
            Capability.INSTANCES,
            Capability.LOGS,
            Capability.METRICS,
            Capability.PREVIEW,
        }
    )

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
        description="Prometheus that counts the requests of each revision. Default: Headway sends "
        "requests of its own to the pods",
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
    _cluster_: Cluster | None = PrivateAttr(default=None)
    _tokens: FencingTokens = PrivateAttr(default_factory=FencingTokens)
    _counted: dict[str, RequestCounts] = PrivateAttr(default_factory=dict)
    _counters: dict[str, promql.Counters] = PrivateAttr(default_factory=dict)

    @field_validator("url", "preview_url", "certificate")
    @classmethod
    def _names_what_is_known(cls, value: str | None) -> str | None:
        try:
            (value or "").format(app="", environment="", namespace="")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(f"may name {{app}}, {{environment}} and {{namespace}}: {value}") from error
        return value

    @model_validator(mode="after")
    def _has_a_host(self) -> KubernetesTarget:
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
    def capabilities(self) -> frozenset[Capability]:
        return self._always | self._routing.capabilities

    def destroy(self, app: str) -> None:
        """Remove all of Headway's objects of this app. Repeatable."""
        self._clear(app)
        self._cluster.delete(CONFIG_MAP, names.state(app))

    def forget(self, app: str) -> None:
        self._may_write(app)
        if running := [revision for revision, ours in self._pods(app).items() if ours]:
            raise TargetError(f"{app}: {', '.join(running)} runs still", "retire it first")
        self._clear(app)
        state_config_map.change(self._cluster, app, lambda kept: state_config_map.State(token=kept.token))

    def _clear(self, app: str) -> None:
        """Remove everything but the state, by which an older writer is still refused."""
        owned_objects.prune(self._cluster, self._known(app), (), app)
        ours = names.selector(app=app)
        for kind, name in self._routing.reads(app):
            self._cluster.delete(kind, name)
        for kind in (AUTOSCALER, DEPLOYMENT, SERVICE, CONFIG_MAP, SECRET, Kind("policy/v1", "PodDisruptionBudget")):
            for thing in self._cluster.find(kind, ours):
                if thing["metadata"]["name"] != names.state(app):
                    self._cluster.delete(kind, thing["metadata"]["name"])

    # --- the port ----------------------------------------------------------------------------------------------

    def claim(self, app: str, token: int) -> None:
        def higher(kept: state_config_map.State) -> state_config_map.State:
            return kept.model_copy(update={"token": self._tokens.claim(app, token, kept.token)})

        state_config_map.change(self._cluster, app, higher)

    def check(self, app: str, plan: Plan) -> None:
        self._router.found(app)  # its kinds of objects are known here, and may be read
        for step in plan.steps:
            traffic = step.traffic if isinstance(step, Route) else step.low if isinstance(step, Rehearse) else Traffic()
            if refusal := self._routing.refusal(traffic):
                raise UsageError(f"{self._marked}: {plan.strategy}: {refusal.what}", refusal.hint)

    def remarks(self, app: str, plan: Plan) -> tuple[str, ...]:
        return self._routing.remarks(plan, {revision: len(ours) for revision, ours in self._pods(app).items()})

    def compare(self, revision: Revision, spec: LaunchSpec) -> tuple[ObjectDiff, ...]:
        """Compare a revision's objects with those of the revision that serves."""
        app, serving = revision.app, self.observe(revision.app).live
        made = self._rehearsed(revision, render.redacted(spec))
        keys = {owned_objects.key(one) for one in made}
        left = [one for one in self._known(app) if one not in keys and one[1] != owned_objects.DATA]
        differences = [
            *(_difference(self._current(revision, one, serving), one) for one in made),
            *(_difference(found, None) for one in left if (found := owned_objects.ours(self._cluster, one, app))),
        ]
        return tuple(one for one in differences if one.now != one.then)

    def observe(self, app: str) -> Observation:
        pods = self._pods(app)
        service, preview = self._cluster.get(SERVICE, app), self._cluster.get(SERVICE, names.preview(app))
        shown = render.selected(preview)
        traffic = self._routing.traffic(app, service, pods, self._router.found(app))
        return Observation(
            app=app,
            url=self._url_of(app, service, self.url),
            preview_url=self._url_of(app, preview, self.preview_url) if shown else None,
            traffic=traffic.model_copy(update={"preview": shown}),
            instances={revision: tuple(map(_instance, ours)) for revision, ours in pods.items()},
        )

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        secret = [name for name, value in spec.env.items() if isinstance(value, SecretRef)]
        if secret:
            raise TargetError(f"{spec.environment}: secrets without a value: {', '.join(secret)}", "resolve them first")
        app, cluster = revision.app, self._cluster
        self._may_write(app)
        spec = self._with_secrets(revision, spec)
        service = cluster.get(SERVICE, app)
        if service is not None:
            owned_objects.require_ours(cluster, spec.environment, service)
        if cluster.get(DEPLOYMENT, names.deployment(revision)) is None:
            self._rehearsed(revision, spec)  # nothing is sent before all of it would be taken
        if service is None:
            cluster.apply(render.service(app, app, spec.environment, self._rules, None))
        self._bring(app, spec)
        for thing in render.app_objects(app, spec, self._rules):
            cluster.apply(thing)
        for thing in render.revision_objects(revision, spec, self._rules):
            applied = cluster.apply(thing)
        name = names.deployment(revision)
        cluster.patch(DEPLOYMENT, name, {"metadata": {"annotations": {names.ENDED: None}}})
        running = applied["spec"].get("replicas", 0) if self._scaled(applied) else 0
        self._scale(name, max(running, spec.instances), spec)

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:
        app, cluster = revision.app, self._cluster
        self._may_write(app)
        spec = self._with_secrets(revision, spec)
        *settings, deployment = render.revision_objects(revision, spec, self._rules)
        pod = render.once(app, spec.environment, deployment, command.text, command.timeout + GONE, self._rules)
        one_off_pod.make_way(cluster, app, spec.environment)
        try:
            self._bring(app, spec)
            for thing in settings:
                cluster.apply(thing)
            return one_off_pod.run(
                cluster, app, pod, command, Masker(str(spec.env.get(one, "")) for one in spec.secrets)
            )
        finally:
            self._settle(app)

    def ready(self, revision: Revision) -> InstanceReadiness:
        """Waits a moment for a change if not all instances are ready, so that callers need not sleep between polls."""
        ours = names.selector(app=revision.app, revision=revision.id)
        pods, version = self._cluster.find_at(POD, ours)
        readiness = self._readiness(revision, pods)
        if readiness.failed or readiness.ready >= readiness.wanted:
            return readiness
        self._cluster.changed(POD, ours, version, WATCHED)
        return self._readiness(revision, self._cluster.find(POD, ours))

    def missing(self, spec: LaunchSpec) -> Refusal | None:
        repository, _, digest = spec.artifact.location.partition("@")
        host = repository.partition("/")[0]
        try:
            if (self.registry or Registry(host=host)).exists(repository, digest):
                return None
        except RegistryError as error:
            return Refusal(f"image {spec.artifact.location}: {error.what}")
        return Refusal(f"image {spec.artifact.location} is not in its registry any more")

    def route(self, app: str, traffic: Traffic) -> None:
        self._may_write(app)
        if refusal := self._routing.refusal(traffic):
            raise TargetError(f"{app}: {refusal.what}", refusal.hint)
        service = self._cluster.get(SERVICE, app)
        if service is None and not routed(traffic):
            return  # nothing was ever launched: nothing is routed already
        router = self._router
        ready = router.await_one_ready(app, routed(traffic))
        environment = self._environment(app)
        router.show(app, environment, traffic.preview)
        if pool := self._routing.pool(traffic, ready):
            router.share(self._pods(app), pool)
        self._may_write(app)  # nobody has taken over while it was waited for
        router.put(app, environment, traffic)
        if whole := next((revision for revision, weight in traffic.weights.items() if weight == WHOLE), None):
            self._hand_over(app, whole)
            self._settle(app)
            state_config_map.change(self._cluster, app, lambda kept: kept.carrying(whole))

    def measure(self, app: str) -> Measurements:
        """What Prometheus has counted; without one, requests of Headway's own to every revision that runs, through the
        API server: users are not counted then.
        """
        asked = {revision: ours for revision, ours in self._pods(app).items() if ours}
        if self.prometheus is not None:
            counts = {revision: self._scraped(self.prometheus, app, revision) for revision in asked}
            return Measurements(at=datetime.now(UTC), counts=counts)
        for revision, ours in asked.items():
            path = self._spec(ours[0]).health.path
            self._counted[revision] = self._counted.get(revision, RequestCounts()).plus(
                probed(self._cluster, ours, path)
            )
        return Measurements(at=datetime.now(UTC), counts={revision: self._counted[revision] for revision in asked})

    def drain(self, revision: Revision, deadline: float) -> bool:  # noqa: ARG002  # see below
        """Returns True: requests in flight are not visible; pods finish theirs within their grace after SIGTERM."""
        time.sleep(min(self.settle, deadline))
        return True

    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:  # noqa: ARG002  # see `drain`
        app, cluster, name = revision.app, self._cluster, names.deployment(revision)
        self._may_write(app)
        found = cluster.get(DEPLOYMENT, name)
        if found is None:
            return
        seen = self.observe(app)
        weight = seen.traffic.weights.get(revision.id)
        if not keep and weight:
            raise TargetError(
                f"{app}: {revision} gets {weight} % of the traffic and cannot be retired",
                "route to another revision first",
            )
        spec = _spec_of(found)
        if spec.autoscale:
            cluster.delete(AUTOSCALER, name)  # it would have them back
        if keep < found["spec"].get("replicas", 1):
            self._scale(name, keep, spec)
        if keep:
            self._await_fewer(revision, found, keep)
            return
        left = seen.traffic.without(revision)
        if left.preview != seen.traffic.preview:
            self._router.show(app, self._environment(app), None)
        if left.headers != seen.traffic.headers:
            self._router.put(app, self._environment(app), left)
        self._await_fewer(revision, found, 0)
        ended = {"metadata": {"annotations": {names.ENDED: datetime.now(UTC).isoformat()}}}
        cluster.patch(DEPLOYMENT, name, ended)
        self._settle(app)
        self._forget(app)

    def describe(self, app: str) -> tuple[str, ...]:
        ours = names.selector(app=app)
        deployments = [
            f"Deployment {one['metadata']['name']}: {one.get('status', {}).get('readyReplicas', 0)} of "
            f"{one['spec'].get('replicas', 1)} ready, {one['metadata'].get('annotations', {}).get(names.RELEASE, '')}"
            for one in self._cluster.find(DEPLOYMENT, ours)
        ]
        services = [f"Service {one['metadata']['name']}" for one in self._cluster.find(SERVICE, ours)]
        events = pod_status.warnings(self._cluster.find(EVENT, fields="type=Warning"), app)
        return (*super().describe(app), *deployments, *services, *events)

    def remembered(self, app: str) -> AdoptableState:
        kept, live = state_config_map.read(self._cluster, app), self.observe(app).live
        found = {
            one["metadata"]["labels"][names.REVISION]: one["metadata"]["annotations"] for one in self._deployments(app)
        }
        way = [revision for revision in reversed(kept.carried) if revision in found and revision != live]
        return AdoptableState(
            token=kept.token,
            revisions=tuple(
                (
                    Revision.model_validate_json(found[one][names.REVISION_OF]),
                    LaunchSpec.model_validate_json(found[one][names.SPEC]),
                )
                for one in (*way, *([live] if live else []))
            ),
        )

    def logs(
        self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        pods = [
            pod
            for ours in self._pods(app, ending=True).values()
            for pod in ours
            if revision is None or revision in pod["metadata"]["name"]
        ]
        maskers = [self._masker(pod) for pod in pods]
        watched = list(zip(pods, maskers, strict=True))
        yield from by_time(line for pod, masked in watched for line in logs.said(self._cluster, pod, masked, lines))
        if follow:
            yield from logs.follow(self._cluster, pods, maskers)

    # --- what runs ---------------------------------------------------------------------------------------------

    def _pods(self, app: str, *, ending: bool = False) -> dict[str, list[dict[str, Any]]]:
        """Pods of each revision, except terminating ones."""
        found: dict[str, list[dict[str, Any]]] = {}
        for pod in self._cluster.find(POD, names.selector(app=app)):
            if ending or not (pod_status.is_terminating(pod) or pod_status.is_finished(pod)):
                found.setdefault(pod["metadata"]["labels"][names.REVISION], []).append(pod)
        return found

    def _readiness(self, revision: Revision, pods: Sequence[dict[str, Any]]) -> InstanceReadiness:
        found = self._cluster.get(DEPLOYMENT, names.deployment(revision))
        if found is None:
            return InstanceReadiness(wanted=0, ready=0, failed=True, detail=f"{names.deployment(revision)} is gone")
        ours = [pod for pod in pods if not pod_status.is_terminating(pod)]
        wanted, ready = found["spec"].get("replicas", 1), sum(map(pod_status.is_ready, ours))
        if ready >= wanted:
            return InstanceReadiness(wanted=wanted, ready=ready)
        if refusal := pod_status.replica_failure(found):
            return InstanceReadiness(wanted=wanted, ready=ready, failed=True, detail=refusal.what)
        for pod in ours:
            if failure := pod_status.failure(pod):
                return InstanceReadiness(
                    wanted=wanted, ready=ready, failed=True, detail=self._with_log(pod, failure.what)
                )
        late = next((pod for pod in ours if not pod_status.is_ready(pod)), None)
        detail = pod_status.unready_reason(late, self._events(late)) if late else "no pod has been made yet"
        return InstanceReadiness(wanted=wanted, ready=ready, detail=detail)

    def _with_log(self, pod: dict[str, Any], reason: str) -> str:
        detail = f"{pod['metadata']['name']} {reason}"
        last = logs.last_words(self._cluster, pod, self._masker(pod))
        return f"{detail}: {last}" if last else detail

    def _events(self, pod: dict[str, Any]) -> list[dict[str, Any]]:
        return self._cluster.find(EVENT, fields=f"involvedObject.name={pod['metadata']['name']}")

    def _with_secrets(self, revision: Revision, spec: LaunchSpec) -> LaunchSpec:
        """The spec with secret values from the cluster: those of an adopted revision are known only there."""
        lacking = [name for name in spec.secrets if name not in spec.env]
        if not lacking:
            return spec
        kept = render.decoded(self._cluster.get(SECRET, names.deployment(revision)) or {})
        if gone := [name for name in lacking if name not in kept]:
            raise TargetError(
                f"{spec.environment}: Secret {names.deployment(revision)} has no {', '.join(gone)} any more",
                "release that commit again: its secrets are looked up then",
            )
        return spec.model_copy(update={"env": spec.env | {name: kept[name] for name in lacking}})

    def _masker(self, pod: dict[str, Any]) -> Masker:
        labels = pod["metadata"]["labels"]
        found = self._cluster.get(SECRET, f"{labels[names.APP]}-{labels[names.REVISION]}") or {}
        return Masker(render.decoded(found).values())

    def _deployments(self, app: str) -> list[dict[str, Any]]:
        """Deployments of the app's revisions. An app may have others."""
        found = self._cluster.find(DEPLOYMENT, names.selector(app=app))
        return [one for one in found if names.REVISION in one["metadata"]["labels"]]

    def _spec(self, pod: dict[str, Any]) -> LaunchSpec:
        labels = pod["metadata"]["labels"]
        found = self._cluster.get(DEPLOYMENT, f"{labels[names.APP]}-{labels[names.REVISION]}")
        if found is None:
            raise TargetError(f"{self._marked}: the Deployment of {pod['metadata']['name']} is gone", "release again")
        return _spec_of(found)

    def _scraped(self, prometheus: Prometheus, app: str, revision: str) -> RequestCounts:
        known = names.of_revision(app, revision)
        if known not in self._counters:
            self._counters[known] = promql.Counters(app, self.namespace, revision, self.exporter, self.queries)
        try:
            return self._counters[known].read(prometheus.series)
        except MetricsUnavailable as error:
            raise TargetError(f"{app}: {error.what}", error.hint) from error

    # --- who gets what -----------------------------------------------------------------------------------------

    def _hand_over(self, app: str, revision: str) -> None:
        """Have an autoscaler for the revision that serves only. Other revisions keep their number of pods."""
        for one in self._deployments(app):
            name, spec = one["metadata"]["name"], _spec_of(one)
            if spec.autoscale and one["metadata"]["labels"][names.REVISION] == revision:
                self._cluster.apply(self._autoscaler(one, spec))
            elif spec.autoscale and one["spec"].get("replicas", 1):
                self._cluster.delete(AUTOSCALER, name)

    def _autoscaler(self, deployment: dict[str, Any], spec: LaunchSpec) -> dict[str, Any]:
        revision = Revision.model_validate_json(deployment["metadata"]["annotations"][names.REVISION_OF])
        return render.autoscaler(revision, spec, pod_status.main_container(deployment["spec"]["template"]), self._rules)

    def _scale(self, name: str, number: int, spec: LaunchSpec) -> None:
        """Take the field `replicas` back from an autoscaler, but from no other field manager."""
        thing = render.replicas(name, self._rules, number)
        self._cluster.apply(thing, manager=names.SCALER, force=spec.autoscale is not None)

    def _await_fewer(self, revision: Revision, deployment: dict[str, Any], keep: int) -> None:
        """Wait until the other pods terminate; if none is kept, until they are gone: some apps may not run twice."""
        grace = deployment["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", GONE)

        def left(pods: list[dict[str, Any]]) -> str:
            still = [pod["metadata"]["name"] for pod in pods if not (keep and pod_status.is_terminating(pod))]
            return still[-1] if len(still) > keep else ""

        ours = names.selector(app=revision.app, revision=revision.id)
        if late := self._cluster.until(POD, ours, grace + GONE, left):
            raise TargetError(f"{revision.app}: pods of {revision} have not ended: {late}", "is their node well?")

    # --- what belongs to it ------------------------------------------------------------------------------------

    def _current(self, revision: Revision, thing: dict[str, Any], serving: str | None) -> dict[str, Any] | None:
        """The existing counterpart of this object, with the name and labels of the new revision."""
        kind, name = kind_of(thing), thing["metadata"]["name"]
        found = self._cluster.get(kind, name)
        if found is None and serving and name == names.deployment(revision):
            found = self._cluster.get(kind, names.of_revision(revision.app, serving))
            found = found and json.loads(json.dumps(found).replace(serving, revision.id))
        return found

    def _rehearsed(self, revision: Revision, spec: LaunchSpec) -> list[dict[str, Any]]:
        """Dry run of a launch: its objects as the cluster would store them. Raises TargetError with all refusals."""
        app = revision.app
        if lost := manifest_validation.outside_namespace(self.namespace, spec.manifests):
            raise TargetError("\n".join(lost), "leave the namespace out, or give the target that one")
        things = [*manifests.own_objects(app, spec, self.namespace), *render.app_objects(app, spec, self._rules)]
        things += render.revision_objects(revision, spec, self._rules)
        if spec.autoscale:
            things.append(self._autoscaler(things[-1], spec))
        return dry_run.rehearsed(self._cluster, things, manifests.sources(revision, spec))

    def _bring(self, app: str, spec: LaunchSpec) -> None:
        """Apply the objects of the app's manifests besides the Deployment, before its pods need them.

        Whoever runs pods of its own follows when the revision has all the traffic, see `_settle`.
        """
        things = manifests.own_objects(app, spec, self.namespace)
        if not things:
            return
        for thing in things:
            if refusal := owned_objects.conflict(self._cluster, thing):
                raise TargetError(f"{self._marked}: {thing['kind']} {thing['metadata']['name']} {refusal}")
        self._keep_known(app, dict.fromkeys([*self._known(app), *map(owned_objects.key, things)]))
        for thing in things:
            if not manifests.runs_pods(thing):
                self._cluster.apply(thing)

    def _settle(self, app: str) -> None:
        """Apply the objects of the revision with all the traffic. Remove those that no running revision wants."""
        known = self._known(app)
        if not known:
            return
        running = {
            one["metadata"]["labels"][names.REVISION]: _spec_of(one)
            for one in self._deployments(app)
            if one["spec"].get("replicas", 1)
        }
        things = {revision: manifests.own_objects(app, spec, self.namespace) for revision, spec in running.items()}
        for thing in things.get(self.observe(app).live or "", []):
            self._cluster.apply(thing)
        wanted = {owned_objects.key(thing) for ours in things.values() for thing in ours}
        self._keep_known(app, owned_objects.prune(self._cluster, known, wanted, app))

    def _known(self, app: str) -> list[owned_objects.Key]:
        return list(state_config_map.read(self._cluster, app).belongings)

    def _keep_known(self, app: str, keys: Iterable[owned_objects.Key]) -> None:
        listed = tuple(keys)
        state_config_map.change(self._cluster, app, lambda kept: kept.model_copy(update={"belongings": listed}))

    # --- what is kept ------------------------------------------------------------------------------------------

    def _forget(self, app: str) -> None:
        """Remove the objects of revisions that ended before the kept ones."""
        carried = state_config_map.read(self._cluster, app).carried
        for name in pod_status.expired(self._deployments(app), carried, self.keep):
            for kind in (DEPLOYMENT, CONFIG_MAP, SECRET, SERVICE):
                self._cluster.delete(kind, name)

    def _may_write(self, app: str) -> None:
        self._tokens.check(app, state_config_map.read(self._cluster, app).token)

    def _environment(self, app: str) -> str:
        service = self._cluster.get(SERVICE, app)
        if service is None:
            raise TargetError(f"{app}: there is no Service in namespace {self.namespace}", "launch it first")
        return str(service["metadata"]["labels"][names.ENVIRONMENT])

    def _scaled(self, deployment: dict[str, Any]) -> bool:
        """Whether its `replicas` was set by Headway or through the scale subresource, after it was created with 1."""
        managers = deployment["metadata"].get("managedFields") or []
        return any(one.get("manager") == names.SCALER or one.get("subresource") == "scale" for one in managers)

    def _url_of(self, app: str, service: dict[str, Any] | None, named: str | None) -> str | None:
        if service is None:
            return None
        if named:
            environment = service["metadata"].get("labels", {}).get(names.ENVIRONMENT, "")
            return named.format(app=app, environment=environment, namespace=self.namespace)
        return f"http://{service['spec']['clusterIP']}"

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
    def _router(self) -> Router:
        return Router(self._cluster, self._routing, self._rules, self.settle)

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

    @property
    def _cluster(self) -> Cluster:
        if self._cluster_ is None:
            text = self.kubeconfig_text.get_secret_value() if self.kubeconfig_text else None
            self._cluster_ = connect(
                self._marked, self.namespace, path=self.kubeconfig, context=self.context, text=text
            )
        return self._cluster_


def _difference(now: dict[str, Any] | None, then: dict[str, Any] | None) -> ObjectDiff:
    one = then or now
    assert one is not None
    name = f"{one['kind']} {one['metadata']['name']}"
    return ObjectDiff(name=name, now=dry_run.in_words(now), then=dry_run.in_words(then))


def _spec_of(deployment: Mapping[str, Any]) -> LaunchSpec:
    """The spec that a revision was launched with, without its secrets."""
    return LaunchSpec.model_validate_json(deployment["metadata"]["annotations"][names.SPEC])


def _instance(pod: Mapping[str, Any]) -> Instance:
    return pod_status.instance(pod, pod_status.port(pod))
