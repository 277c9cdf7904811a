"""The diff of a dry run: without noise, without secrets."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.targets.kubernetes import dry_run, labels, render
from headway.cli import plan
from headway.cli.output import output
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import ObjectDiff
from headway.testing import FakeTarget
from tests.blocks.targets.kubernetes.test_render import RULES, SMALL

REVISION = SMALL.revision("shop", "1" * 40)


def seen(thing: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """As a cluster answers."""
    added = {"uid": "u", "resourceVersion": "7", "generation": 2, "managedFields": [], "creationTimestamp": "now"}
    return {**thing, "metadata": {**thing["metadata"], **added, **metadata}, "status": {"replicas": 3}}


def test_defaults_of_the_cluster_are_not_changes() -> None:
    *_, made = render.revision_objects(REVISION, SMALL, RULES)
    annotations = {
        **made["metadata"]["annotations"],
        labels.ENDED: "yesterday",
        "kubectl.kubernetes.io/last-applied-configuration": "hunter2",
    }
    there = seen(made, annotations=annotations)
    there["spec"] = {**there["spec"], "replicas": 3}
    assert dry_run.in_words(there) == dry_run.in_words(made)
    kept = dry_run.in_words(seen(made, annotations={"team": "carts"}))
    assert "team: carts" in kept


def test_secret_values_are_not_in_the_diff() -> None:
    spec = SMALL.model_copy(update={"env": {"TOKEN": "hunter2hunter2"}, "secrets": ("TOKEN",)})
    _, secret, _ = render.revision_objects(REVISION, spec, RULES)
    told = dry_run.in_words({**secret, "stringData": {"OTHER": "hunter3hunter3"}})
    assert "TOKEN: '********'" in told
    assert "OTHER: '********'" in told
    assert "hunter" not in told
    assert secret["data"]["TOKEN"] not in told


def test_secret_without_a_value_is_compared() -> None:
    spec = render.redacted(SMALL.model_copy(update={"env": {"TOKEN": SecretRef(secret="a/b"), "LEVEL": "info"}}))
    config, secret, _ = render.revision_objects(REVISION, spec, RULES)
    assert "TOKEN" not in config["data"]
    assert render.decoded(secret) == {"TOKEN": "********"}


def test_a_difference_is_a_unified_diff() -> None:
    one = ObjectDiff(name="ConfigMap a", now="data:\n  a: 1\n", then="data:\n  a: 2\n")
    assert one.unified == [
        "--- ConfigMap a\tnow",
        "+++ ConfigMap a\tthen",
        "@@ -1,2 +1,2 @@",
        " data:",
        "-  a: 1",
        "+  a: 2",
    ]
    assert one.model_copy(update={"now": ""}).unified[0] == "--- /dev/null\tnow"
    assert one.model_copy(update={"then": ""}).unified[1] == "+++ /dev/null\tthen"


class Comparing(FakeTarget):
    """A target that has something to compare."""

    def __init__(self, *differences: ObjectDiff) -> None:
        super().__init__()
        self.differences = differences

    def compare(self, revision: Revision, spec: LaunchSpec) -> tuple[ObjectDiff, ...] | None:
        return self.differences


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (FakeTarget(), "fake/a has nothing to compare"),
        (Comparing(), "nothing else changes"),
        (Comparing(ObjectDiff(name="Service a", now="", then="a: 1\n")), "+++ Service a\tthen\n@@ -0,0 +1 @@\n+a: 1"),
    ],
)  # fmt: skip
def test_plan_lists_the_changes(target: FakeTarget, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = SMALL.model_copy(update={"target": "fake/a"})
    document = plan._differences(target, REVISION, spec)
    assert said in capsys.readouterr().out
    assert output.json is False
    assert [one["name"] for one in document["differences"]] == [one.name for one in getattr(target, "differences", ())]  # type: ignore[attr-defined]
