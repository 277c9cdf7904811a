"""What an analysis on Kubernetes is judged by: the declared requests or Prometheus, and nothing else."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.metrics.prometheus import Prometheus
from blocks.targets.kubernetes import api_errors, labels
from blocks.targets.kubernetes.target import KubernetesTarget
from headway import config
from headway.domain.errors import RolloutFailed, UsageError
from headway.domain.plan import Analyze, Plan, Step
from headway.domain.revision import Artifact, Health, LaunchSpec, Revision
from headway.domain.traffic import Traffic
from headway.ledger import RolloutRecord
from headway.rollout import availability
from headway.rollout.analysis import instance_health
from headway.rollout.executor import RolloutContext, walk
from headway.rollout.planning import plan_for
from tests.blocks.targets.kubernetes.test_target import get_well, until
from tests.headway.rollout.test_executor import Journal
from tests.standins.kubernetes_api import ApiServer, Object, Trouble, serving

pytestmark = pytest.mark.slow

ARTIFACT = Artifact(kind="image", digest="sha256:" + "a" * 64, location="127.0.0.1:1/shop@sha256:" + "a" * 64, size=1)
SPEC = LaunchSpec(
    environment="production",
    target="kubernetes/prod",
    artifact=ARTIFACT,
    instances=2,
    health=Health(path="/health", startup=20),
    stop_grace=1,
)
OLD, NEW = (SPEC.revision("shop", digit * 40) for digit in "12")
ASKED = {"requests": [{"get": "/"}, {"post": "/orders", "json": {"item": 1}}], "rate": 60}
LIMIT = {"window": "1s", "success_rate": ">= 99"}
JUDGED: dict[str, Any] = {
    "canary": {"steps": ["50%", "100%"], "analysis": {**LIMIT, "synthetic": ASKED}},
    "blue_green": {"pre_promotion": {**LIMIT, "synthetic": ASKED}},
    "rolling": {"analysis": {**LIMIT, "synthetic": ASKED}},
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[ApiServer, Path]]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def api(served: tuple[ApiServer, Path]) -> ApiServer:
    return served[0]


@pytest.fixture
def target(served: tuple[ApiServer, Path]) -> KubernetesTarget:
    made = KubernetesTarget(kubeconfig=served[1], namespace="shops", settle=0)
    made.launch(OLD, SPEC)
    until(lambda: made.ready(OLD).ready == SPEC.instances)
    made.route("shop", Traffic.all_to(OLD))
    return made


def planned(target: KubernetesTarget, strategy: dict[str, Any]) -> Plan:
    environment = config.Environment.model_validate({"target": "kubernetes/prod", "strategy": strategy})
    return plan_for(target, environment, NEW, SPEC, stable=OLD.id).plan


def rollout(target: KubernetesTarget, plan: Plan, *, deadline: float = 1.0) -> tuple[RolloutContext, Journal]:
    journal = Journal()
    record = RolloutRecord(
        id="r1",
        release_id=None,
        app="shop",
        environment="production",
        sequence=1,
        kind="release",
        state="running",
        reason="",
        token=1,
        plan=plan,
        started_at=datetime.now(UTC),
        finished_at=None,
    )
    specs: dict[str, tuple[Revision, LaunchSpec]] = {one.id: (one, SPEC) for one in (OLD, NEW)}
    context = RolloutContext(
        record=record,
        target=target,
        specs=specs,
        journal=journal,
        on_line=lambda _: None,
        progress_deadline=deadline,
    )
    return context, journal


def fails_often(api: ApiServer) -> None:
    """The new revision is healthy, and answers 500 to three of ten requests to `/`."""
    numbers = itertools.count()

    def answer(_method: str, path: str, pod: Object) -> int:
        new = pod["metadata"]["labels"][labels.REVISION] == NEW.id
        return 500 if new and path == "/" and next(numbers) % 10 < 3 else 200

    api.app = answer


@pytest.mark.parametrize("strategy", JUDGED)
async def test_a_version_that_fails_the_declared_requests_is_not_promoted(
    api: ApiServer, target: KubernetesTarget, strategy: str
) -> None:
    fails_often(api)
    context, _ = rollout(target, planned(target, {strategy: JUDGED[strategy]}))
    with pytest.raises(RolloutFailed, match=r"success_rate >= 99 % does not hold.*requests counted by the answers of"):
        await walk(context)
    assert {(method, path) for _, method, path, _ in api.passed_on} == {("GET", "/"), ("POST", "/orders")}


async def test_a_good_version_passes_by_the_declared_requests_alone(api: ApiServer, target: KubernetesTarget) -> None:
    context, journal = rollout(target, planned(target, {"canary": JUDGED["canary"]}))
    await walk(context)
    assert target.observe("shop").live == NEW.id
    (said, *_) = [line for line in journal.lines if "done success_rate 100.00 %" in line]
    assert said.endswith("requests counted by the answers of its instances to the synthetic requests")
    assert {path for *_, path, _ in api.passed_on} == {"/", "/orders"}
    assert {body for _, method, _, body in api.passed_on if method == "POST"} == {b'{"item": 1}'}


async def test_the_stable_version_gets_the_same_requests_to_be_compared_with(
    api: ApiServer, target: KubernetesTarget
) -> None:
    fails_often(api)
    analysis = {"window": "1s", "false_rollback": "1%", "synthetic": ASKED}
    context, _ = rollout(target, planned(target, {"canary": {"steps": ["50%", "100%"], "analysis": analysis}}))
    with pytest.raises(RolloutFailed, match="error"):
        await walk(context)
    asked = [pod.partition("-rs-")[0] for pod, *_ in api.passed_on]
    assert abs(asked.count(labels.deployment(OLD)) - asked.count(labels.deployment(NEW))) <= 1


def test_the_plan_says_what_counts_the_requests(target: KubernetesTarget) -> None:
    steps = [step for step in planned(target, {"canary": JUDGED["canary"]}).steps if isinstance(step, Analyze)]
    assert str(steps[0]).endswith(
        "success_rate >= 99 %; requests counted by the answers of its instances to the synthetic requests"
    )
    target.prometheus = Prometheus(url="http://prometheus.test")
    steps = [step for step in planned(target, {"canary": {"analysis": LIMIT}}).steps if isinstance(step, Analyze)]
    assert str(steps[0]).endswith("requests counted by Prometheus, from the counters of the app itself")


@pytest.mark.parametrize("strategy", ["canary", "rolling"])
def test_an_analysis_is_refused_where_nothing_is_counted(target: KubernetesTarget, strategy: str) -> None:
    with pytest.raises(UsageError, match="counts no requests of users") as refused:
        planned(target, {strategy: {"analysis": LIMIT}})
    assert "synthetic requests" in refused.value.hint


def test_header_reserved_by_the_api_server_is_refused(target: KubernetesTarget) -> None:
    asked = {"requests": [{"get": "/", "headers": {"Authorization": "Bearer x"}}]}
    with pytest.raises(UsageError, match="keeps the header Authorization for itself"):
        planned(target, {"canary": {"analysis": {**LIMIT, "synthetic": asked}}})


async def test_a_refusal_of_the_api_server_is_not_an_answer_of_the_app(
    api: ApiServer, target: KubernetesTarget
) -> None:
    api.forbidden |= {"get", "create"}
    context, _ = rollout(target, planned(target, {"canary": JUDGED["canary"]}))
    with pytest.raises(RolloutFailed, match=r"no verdict after .*: nothing can be measured: .*is forbidden"):
        await walk(context)


async def test_an_api_server_that_breaks_off_is_not_an_error_of_the_app(
    api: ApiServer, target: KubernetesTarget
) -> None:
    api.trouble += [Trouble("GET", "/proxy", *[0] * 15), Trouble("POST", "/proxy", *[0] * 15)]
    context, _ = rollout(target, planned(target, {"canary": JUDGED["canary"]}), deadline=30)
    await walk(context)
    assert [one.answers for one in api.trouble] == [[], []]
    assert target.observe("shop").live == NEW.id


@pytest.mark.parametrize("at", ["launch", "route", "analyze", "retire"])
async def test_rollout_goes_on_after_an_outage_of_the_api_server(
    api: ApiServer, target: KubernetesTarget, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_errors, "RETRIES", replace(api_errors.RETRIES, attempts=1))
    monkeypatch.setattr(availability, "POLL", 0.05)
    context, journal = rollout(target, planned(target, {"canary": JUDGED["canary"]}), deadline=60)
    started, outages = journal.started, list[float]()

    def begins(index: int, step: Step) -> None:
        started(index, step)
        if step.kind == at and not outages:
            outages.append(time.monotonic() + 2)
            api.away_until = outages[0]

    monkeypatch.setattr(journal, "started", begins)
    await walk(context)
    assert outages[0] < time.monotonic()
    assert target.observe("shop").live == NEW.id
    assert set(target.observe("shop").instances) == {NEW.id}


@pytest.mark.parametrize("slow", [False, True])
async def test_deleted_pod_does_not_fail_the_analysis_if_its_replacement_becomes_ready(
    api: ApiServer, target: KubernetesTarget, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_health, "UNHEALTHY", 0.5)
    removed: list[str] = []

    def drained(_method: str, _path: str, pod: Object) -> int:
        if len(api.passed_on) == 10:
            removed.append(pod["metadata"]["name"])
            with api.changed:
                api.unready |= {ARTIFACT.location} if slow else set()
                api.write("pods", pod, "DELETED")
                api.reconcile()
            threading.Timer(1.5, lambda: get_well(api)).start()
        return 200

    api.app = drained
    context, _ = rollout(target, planned(target, {"canary": JUDGED["canary"]}), deadline=30)
    await walk(context)
    assert len(removed) == 1
    assert target.observe("shop").live == NEW.id
