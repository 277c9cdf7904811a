"""What a plan says of its target: what counts the requests of an analysis, and that something does."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from headway import config
from headway.domain.errors import UsageError
from headway.domain.plan import Analyze, Plan
from headway.domain.traffic import Capability, Traffic
from headway.rollout.planning import plan_for
from headway.testing import FakeTarget
from tests.headway.rollout.test_executor import NEW, OLD, SPEC

ASKED = {"requests": [{"get": "/"}], "rate": 10}
METRIC = {"orders": {"source": "prometheus/main", "query": "orders", "limit": ">= 5"}}


class Counting(FakeTarget):
    counted_by: ClassVar[str] = "a fake proxy"


class Uncounted(FakeTarget):
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability) - {Capability.METRICS}


class Sending(Uncounted):
    sends_requests: ClassVar[bool] = True


def planned(target: FakeTarget, analysis: dict[str, Any]) -> Plan:
    target.launch(OLD, SPEC)
    target.route("shop", Traffic.all_to(OLD))
    strategy = {"canary": {"steps": ["50%", "100%"], "analysis": analysis}}
    environment = config.Environment.model_validate({"target": "fake/one", "strategy": strategy})
    return plan_for(target, environment, NEW, SPEC, stable=OLD.id).plan


@pytest.mark.parametrize(
    ("target", "said"),
    [(Counting(), "a fake proxy"), (Sending(), "the answers of its instances to the synthetic requests")],
)
def test_every_analysis_says_what_counts_its_requests(target: FakeTarget, said: str) -> None:
    found = planned(target, {"success_rate": ">= 99", "synthetic": ASKED}).steps
    assert [step.counted_by for step in found if isinstance(step, Analyze)] == [said, said]
    assert all(str(step).endswith(f"; requests counted by {said}") for step in found if isinstance(step, Analyze))


@pytest.mark.parametrize(
    ("target", "analysis"),
    [
        (Uncounted(), {"success_rate": ">= 99"}),
        (Uncounted(), {"success_rate": ">= 99", "synthetic": ASKED}),
        (Sending(), {"p99": "<= 1s"}),
        (Sending(), {"false_rollback": "1%", "metrics": METRIC}),
    ],
)
def test_an_analysis_of_requests_that_nothing_counts_is_refused(target: FakeTarget, analysis: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="fake/one counts no requests of users"):
        planned(target, analysis)


def test_an_analysis_of_a_metric_source_alone_needs_no_requests() -> None:
    found = [step for step in planned(Uncounted(), {"metrics": METRIC}).steps if isinstance(step, Analyze)]
    assert [step.counted_by for step in found] == ["", ""]
