"""Pods on a Kubernetes cluster: a Deployment for each revision, a Service for each app.

All state is read from the cluster: labels name the app and revision of an object, annotations have what a rollback
needs. A module of `routing` splits the requests: by the number of pods, by a Gateway, or by ingress-nginx.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import PrivateAttr

from blocks.metrics.prometheus import Prometheus
from blocks.registries.oci import Registry
from blocks.targets.kubernetes import (
    field_owners,
    instance_readiness,
    launch_rehearsal,
    logs,
    one_off_pod,
    own_manifests,
    owned_objects,
    pod_requests,
    pod_status,
    promql,
    render,
    scaling,
    state_config_map,
    workloads,
)
from blocks.targets.kubernetes import (
    labels as names,
)
from blocks.targets.kubernetes.api_client import (
    AUTOSCALER,
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    SECRET,
    SERVICE,
    Cluster,
    Kind,
)
from blocks.targets.kubernetes.kubeconfig import connect
from blocks.targets.kubernetes.one_off_pod import GONE
from blocks.targets.kubernetes.pod_requests import PodRequests
from blocks.targets.kubernetes.routing import Router
from blocks.targets.kubernetes.routing.base import routed
from blocks.targets.kubernetes.target_settings import KubernetesSettings
from headway.domain.errors import MetricsUnavailable, RegistryError, TargetError, UsageError
from headway.domain.fencing import FencingTokens
from headway.domain.log_lines import LogLine, by_time
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Analyze, Plan, Probe, Rehearse, Route
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

WHOLE = 100  # percent


class KubernetesTarget(KubernetesSettings, Target):
    """Deployments and Services in one namespace, applied server-side with Headway's own field manager.

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
            Capability.PREVIEW,
        }
    )
    sends_requests: ClassVar[bool] = True

    _cluster_: Cluster | None = PrivateAttr(default=None)
    _tokens: FencingTokens = PrivateAttr(default_factory=FencingTokens)
    _requests: dict[str, PodRequests] = PrivateAttr(default_factory=dict)
    _counters: dict[str, promql.Counters] = PrivateAttr(default_factory=dict)

    @property
    def capabilities(self) -> frozenset[Capability]:
        counts = {Capability.METRICS} if self.prometheus else set()
        return self._always | self._routing.capabilities | counts

    @property
    def counted_by(self) -> str:
        return f"Prometheus, from {'its own queries' if self.queries else promql.EXPORTERS[self.exporter].name}"

    def destroy(self, app: str) -> None:
        """Remove all of Headway's objects of this app. Repeatable."""
        self._clear(app)
        self._cluster.delete(CONFIG_MAP, names.state(app))

    def forget(self, app: str) -> None:
        self._may_write(app)
        if running := [revision for revision, ours in workloads.pods(self._cluster, app).items() if ours]:
            raise TargetError(f"{app}: {', '.join(running)} runs still", "retire it first")
        self._clear(app)
        state_config_map.change(self._cluster, app, lambda kept: state_config_map.State(token=kept.token))

    def _clear(self, app: str) -> None:
        """Remove everything but the state, which still refuses older writers."""
        owned_objects.prune(self._cluster, own_manifests.known(self._cluster, app), (), app)
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
        self._router.found(app)  # the kinds of its objects are known here, and may be read
        for step in plan.steps:
            if isinstance(step, Analyze) and step.synthetic and not self.prometheus:
                pod_requests.require_sendable(self._marked, step.synthetic)
            traffic = step.traffic if isinstance(step, Route) else step.low if isinstance(step, Rehearse) else Traffic()
            if refusal := self._routing.refusal(traffic):
                raise UsageError(f"{self._marked}: {plan.strategy}: {refusal.what}", refusal.hint)

    def remarks(self, app: str, plan: Plan) -> tuple[str, ...]:
        running = {revision: len(ours) for revision, ours in workloads.pods(self._cluster, app).items()}
        return (*self._routing.remarks(plan, running), *field_owners.remarks(self._cluster, app))

    def compare(self, revision: Revision, spec: LaunchSpec) -> tuple[ObjectDiff, ...]:
        """Compare a revision's objects with those of the revision that serves."""
        return launch_rehearsal.differences(
            self._cluster, revision, spec, self._rules, serving=self.observe(revision.app).live
        )

    def observe(self, app: str) -> Observation:
        pods = workloads.pods(self._cluster, app)
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
        spec = workloads.with_secrets(self._cluster, revision, spec)
        name = names.deployment(revision)
        known = cluster.get(DEPLOYMENT, name)
        if (service := cluster.get(SERVICE, app)) is not None:
            owned_objects.require_ours(cluster, spec.environment, service)
        if known is None:  # nothing is applied before the dry run of all objects has succeeded
            launch_rehearsal.objects(cluster, revision, spec, self._rules, conflicts=False)
        if service is not None and not self.observe(app).traffic.weights:
            scaling.await_gone(cluster, app)
        self._router.prepare(app, spec.environment)
        own_manifests.bring(cluster, app, spec)
        for thing in render.app_objects(app, spec, self._rules):
            cluster.offer(thing)
        for thing in render.revision_objects(revision, spec, self._rules):
            cluster.take(thing)
        cluster.patch(DEPLOYMENT, name, {"metadata": {"annotations": {names.ENDED: None}}})
        running = known["spec"].get("replicas", 1) if known else 0
        scaling.scale(cluster, name, max(running, spec.instances), spec, self._rules)

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:
        app, cluster = revision.app, self._cluster
        self._may_write(app)
        spec = workloads.with_secrets(self._cluster, revision, spec)
        *settings, deployment = render.revision_objects(revision, spec, self._rules)
        pod = render.once(app, spec.environment, deployment, command.text, command.timeout + GONE, self._rules)
        one_off_pod.make_way(cluster, app, spec.environment)
        try:
            own_manifests.bring(cluster, app, spec)
            for thing in settings:
                cluster.take(thing)
            return one_off_pod.run(
                cluster, app, pod, command, Masker(str(spec.env.get(one, "")) for one in spec.secrets)
            )
        finally:
            self._settle(app)

    def ready(self, revision: Revision) -> InstanceReadiness:
        return instance_readiness.readiness(self._cluster, revision)

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
            return  # never launched: nothing is routed
        router = self._router
        ready = router.await_one_ready(app, routed(traffic))
        environment = self._environment(app)
        router.show(app, environment, traffic.preview)
        if pool := self._routing.pool(traffic, ready):
            router.share(workloads.pods(self._cluster, app), pool)
        self._may_write(app)  # no other writer has taken over during the wait
        router.put(app, environment, traffic)
        if whole := next((revision for revision, weight in traffic.weights.items() if weight == WHOLE), None):
            scaling.hand_over(self._cluster, app, whole, self._rules)
            self._settle(app)
            state_config_map.change(self._cluster, app, lambda kept: kept.carrying(whole))

    def measure(self, app: str) -> Measurements:
        """What Prometheus has counted. Without one nothing is."""
        if self.prometheus is None:
            return Measurements(at=datetime.now(UTC), counts={})
        counts = {
            revision: self._scraped(self.prometheus, app, revision)
            for revision, ours in workloads.pods(self._cluster, app).items()
            if ours
        }
        return Measurements(at=datetime.now(UTC), counts=counts)

    def send(self, app: str, revision: str, request: Probe) -> int:
        known = names.of_revision(app, revision)
        return self._requests.setdefault(known, PodRequests(self._cluster, app, revision)).send(request)

    def drain(self, revision: Revision, deadline: float) -> bool:  # noqa: ARG002  # nothing to wait for
        """Returns True: requests in flight are not visible; pods finish theirs within their grace after SIGTERM.

        `retire` waits until every node uses the changed endpoints.
        """
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
        spec = workloads.spec_of(found)
        if spec.autoscale:
            cluster.delete(AUTOSCALER, name)  # it would scale them up again
        if keep < found["spec"].get("replicas", 1):
            time.sleep(max(0.0, self.settle - scaling.pause(found)))  # no node sends requests to these pods any more
            scaling.scale(cluster, name, keep, spec, self._rules)
        if keep:
            scaling.await_fewer(cluster, revision, keep)
            return
        left = seen.traffic.without(revision)
        if left.preview != seen.traffic.preview:
            self._router.show(app, self._environment(app), None)
        if left.headers != seen.traffic.headers:
            self._router.put(app, self._environment(app), left)
        scaling.await_fewer(cluster, revision, 0)
        if own_manifests.known(cluster, app):
            scaling.await_gone(cluster, app)  # its last requests may need what is removed next
        ended = {"metadata": {"annotations": {names.ENDED: datetime.now(UTC).isoformat()}}}
        cluster.patch(DEPLOYMENT, name, ended)
        self._settle(app)
        self._forget(app)

    def describe(self, app: str) -> tuple[str, ...]:
        ours = names.selector(app=app)
        found = self._cluster.find(DEPLOYMENT, ours)
        running = {str(pod_status.revision(one)) for one in found if one["spec"].get("replicas", 1)}
        deployments = [
            f"Deployment {one['metadata']['name']}: {one.get('status', {}).get('readyReplicas', 0)} of "
            f"{one['spec'].get('replicas', 1)} ready, {one['metadata'].get('annotations', {}).get(names.RELEASE, '')}"
            for one in found
        ]
        services = [f"Service {one['metadata']['name']}" for one in self._cluster.find(SERVICE, ours)]
        warnings = pod_status.warnings(self._cluster.find(EVENT, fields="type=Warning"), app, running)
        return (*super().describe(app), *deployments, *services, *warnings)

    def remembered(self, app: str) -> AdoptableState:
        kept, live = state_config_map.read(self._cluster, app), self.observe(app).live
        found = {
            one["metadata"]["labels"][names.REVISION]: one["metadata"]["annotations"]
            for one in workloads.deployments(self._cluster, app)
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
            for ours in workloads.pods(self._cluster, app, ending=True).values()
            for pod in ours
            if revision is None or revision in pod["metadata"]["name"]
        ]
        maskers = [workloads.masker(self._cluster, pod) for pod in pods]
        watched = list(zip(pods, maskers, strict=True))
        yield from by_time(
            line for pod, masked in watched for line in logs.last_lines(self._cluster, pod, masked, lines)
        )
        if follow:
            yield from logs.follow(self._cluster, pods, maskers)

    # --- what runs ---------------------------------------------------------------------------------------------

    def _scraped(self, prometheus: Prometheus, app: str, revision: str) -> RequestCounts:
        known = names.of_revision(app, revision)
        if known not in self._counters:
            self._counters[known] = promql.Counters(app, self.namespace, revision, self.exporter, self.queries)
        try:
            return self._counters[known].read(prometheus.series)
        except MetricsUnavailable as error:
            raise TargetError(f"{app}: {error.what}", error.hint) from error

    # --- what is kept ------------------------------------------------------------------------------------------

    def _forget(self, app: str) -> None:
        """Remove the objects of revisions that ended before the kept ones."""
        carried = state_config_map.read(self._cluster, app).carried
        for name in pod_status.expired(workloads.deployments(self._cluster, app), carried, self.keep):
            for kind in (DEPLOYMENT, CONFIG_MAP, SECRET, SERVICE):
                self._cluster.delete(kind, name)

    def _may_write(self, app: str) -> None:
        self._tokens.check(app, state_config_map.read(self._cluster, app).token)

    def _settle(self, app: str) -> None:
        own_manifests.settle(self._cluster, app, self.observe(app).live)

    def _environment(self, app: str) -> str:
        service = self._cluster.get(SERVICE, app)
        if service is None:
            raise TargetError(f"{app}: there is no Service in namespace {self.namespace}", "launch it first")
        return str(service["metadata"]["labels"][names.ENVIRONMENT])

    def _url_of(self, app: str, service: dict[str, Any] | None, named: str | None) -> str | None:
        if service is None:
            return None
        if named:
            environment = service["metadata"].get("labels", {}).get(names.ENVIRONMENT, "")
            return named.format(app=app, environment=environment, namespace=self.namespace)
        return f"http://{service['spec']['clusterIP']}"

    @property
    def _router(self) -> Router:
        return Router(self._cluster, self._routing, self._rules, self.settle)

    @property
    def _cluster(self) -> Cluster:
        if self._cluster_ is None:
            text = self.kubeconfig_text.get_secret_value() if self.kubeconfig_text else None
            self._cluster_ = connect(
                self._marked, self.namespace, path=self.kubeconfig, context=self.context, text=text
            )
        return self._cluster_


def _instance(pod: Mapping[str, Any]) -> Instance:
    return pod_status.instance(pod, pod_status.port(pod))
