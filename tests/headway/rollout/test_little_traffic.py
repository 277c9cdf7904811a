"""A plan whose analyses will get too few requests says so, with the ways out."""

from __future__ import annotations

import pytest

from headway.config import Environment
from headway.domain.errors import TargetError
from headway.domain.revision import Artifact, LaunchSpec
from headway.domain.traffic import Traffic
from headway.rollout import little_traffic
from headway.rollout.planning import plan_for
from headway.testing import FakeTarget

SPEC = LaunchSpec(
    environment="production",
    target="fake/one",
    artifact=Artifact(digest="sha256:" + "a" * 64, location="/", size=1),
    run="serve",
)
OLD, NEW = SPEC.revision("shop", "1" * 40), SPEC.revision("shop", "2" * 40)
CANARY = {"canary": {"steps": ["5%", "100%"], "analysis": {"window": "10s", "success_rate": ">= 99"}}}
SYNTHETIC = {"window": "10s", "success_rate": ">= 99", "synthetic": {"requests": [{"get": "/"}]}}


@pytest.fixture(autouse=True)
def short_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(little_traffic, "SAMPLE", 0.01)


def remarks(strategy: object, requests: int, faults: dict[str, list[Exception | None]] | None = None) -> str:
    """Remarks on the plan when users send so many requests during a sample of 10 ms."""
    target = FakeTarget()
    target.requests = requests
    target.launch(OLD, SPEC)
    target.route("shop", Traffic.all_to(OLD))
    target.faults = faults or {}
    environment = Environment.model_validate({"target": "fake/one", "strategy": strategy})
    return " ".join(plan_for(target, environment, NEW, SPEC, stable=OLD.id).remarks)


@pytest.mark.parametrize(
    "strategy",
    [CANARY, {"blue_green": {"post_promotion": CANARY["canary"]["analysis"]}}, {"rolling": {"analysis": SYNTHETIC}}],
    ids=["canary", "blue_green", "synthetic"],
)
def test_no_traffic_is_said_with_three_ways_out(strategy: dict[str, object]) -> None:
    said = remarks(strategy, 0)
    if "rolling" in strategy:
        assert said == ""  # synthetic requests are enough
        return
    assert said.startswith("users send 0 requests a second now: at ")
    assert "the analysis gets about 0 of the 20 requests that it needs within 10 s, then it waits" in said
    for way in ("`synthetic`", "`min_requests`", "headway skip, promote or abort"):
        assert way in said


def test_traffic_is_compared_with_the_smallest_share() -> None:
    assert "at 5 % the analysis gets about 5" in remarks(
        {"canary": {"steps": ["5%", "100%"], "analysis": {"window": "100ms", "success_rate": ">= 99"}}}, 10
    )
    assert remarks(CANARY, 10) == ""


def test_a_target_that_does_not_answer_is_no_reason_for_a_remark() -> None:
    assert remarks(CANARY, 0, {"measure": [TargetError("away")]}) == ""
