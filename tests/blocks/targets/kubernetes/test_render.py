"""Rendered objects, compared with golden files: `HEADWAY_GOLDEN=write pytest` writes them again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from blocks.targets.kubernetes import container_spec, labels, render
from headway.domain.revision import Artifact, Autoscale, Health, LaunchSpec, ProbeSettings

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ("1.30.0", "1.36.0", "1.37.0")
DIGEST = "sha256:" + "d" * 64
ARTIFACT = Artifact(kind="image", digest=DIGEST, location=f"ghcr.io/acme/shop@{DIGEST}", size=1)
RULES = render.Rules(
    namespace="shops",
    cpu=0.1,
    memory=128 * 2**20,
    read_only=True,
    capabilities=(),
    pull_secret=None,
    service_account=None,
)
SMALL = LaunchSpec(environment="production", artifact=ARTIFACT, release="shop#7")
LARGE = LaunchSpec(
    environment="production",
    artifact=ARTIFACT,
    release="shop#7",
    run="node dist/server.js",
    cpu=0.5,
    memory=256 * 2**20,
    instances=4,
    env={"LOG_LEVEL": "info", "TOKEN": "hunter2hunter2"},
    secrets=("TOKEN",),
    health=Health(path="/up", timeout=1.5, startup=150, readiness_probe=ProbeSettings(period=3, failures=1)),
    stop_grace=20,
)
RULED = RULES.model_copy(
    update={"read_only": False, "capabilities": ("CHOWN",), "pull_secret": "pull", "service_account": "shop"}
)
RANGED = SMALL.model_copy(update={"autoscale": Autoscale(min=1, max=10, cpu=70)})
CASES = {"small": (SMALL, RULES), "large": (LARGE, RULED), "ranged": (RANGED, RULES)}


def rendered(spec: LaunchSpec, rules: render.Rules) -> list[dict[str, Any]]:
    revision = spec.revision("shop", "1" * 40)
    return [
        render.service("shop", "shop", "production", rules, {labels.REVISION: revision.id}, f"{revision.id} 100 %"),
        render.service("shop-preview", "shop", "production", rules, None),
        *render.app_objects("shop", spec, rules),
        *render.revision_objects(revision, spec, rules),
        *([render.autoscaler(revision, spec, "app", rules)] if spec.autoscale else []),
    ]


@pytest.mark.parametrize("name", CASES)
def test_rendered_objects_match_the_golden_files(name: str) -> None:
    file, found = GOLDEN / f"{name}.yaml", rendered(*CASES[name])
    yaml = YAML()
    yaml.width = 120
    if os.environ.get("HEADWAY_GOLDEN") == "write":
        with file.open("w") as golden:
            yaml.dump_all(found, golden)
    assert list(YAML(typ="safe").load_all(file)) == found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_rendered_objects_are_valid_kubernetes_objects(name: str, version: str) -> None:
    for thing in rendered(*CASES[name]):
        kubernetes_validate.validate(thing, version, strict=True)


def container(spec: LaunchSpec) -> dict[str, Any]:
    *_, deployment = render.revision_objects(spec.revision("shop", "1" * 40), spec, RULES)
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def test_startup_probe_covers_the_startup_time() -> None:
    probe = container(LARGE)["startupProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (5, 30)
    probe = container(SMALL.model_copy(update={"health": Health(startup=61)}))["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 61


def test_probe_settings_of_the_app_override_the_defaults() -> None:
    ready, alive = container(SMALL)["readinessProbe"], container(SMALL)["livenessProbe"]
    assert (ready["periodSeconds"], ready["failureThreshold"]) == (10, 2)
    assert (alive["periodSeconds"], alive["failureThreshold"], alive["initialDelaySeconds"]) == (30, 3, 10)
    assert container(LARGE)["readinessProbe"]["periodSeconds"] == 3


def test_secret_value_is_only_in_the_secret_object() -> None:
    things = render.revision_objects(LARGE.revision("shop", "1" * 40), LARGE, RULES)
    assert [thing["kind"] for thing in things if "hunter2" in str(thing)] == []
    (secret,) = (thing for thing in things if thing["kind"] == "Secret")
    assert render.decoded(secret) == {"TOKEN": "hunter2hunter2"}


def test_stored_spec_launches_the_same_objects() -> None:
    revision = LARGE.revision("shop", "1" * 40)
    *_, deployment = render.revision_objects(revision, LARGE, RULES)
    again = LaunchSpec.model_validate_json(deployment["metadata"]["annotations"][labels.SPEC])
    env = {**again.env, "TOKEN": "hunter2hunter2"}
    assert render.revision_objects(revision, again.model_copy(update={"env": env}), RULES)[1:] != []
    assert again.model_copy(update={"env": env}) == LARGE


@pytest.mark.parametrize(("size", "written"), [(2**20, "1Mi"), (256 * 2**20, "256Mi"), (1000, "1000")])
def test_quantities_of_cpu_and_memory(size: int, written: str) -> None:
    assert container_spec.quantity(size) == written
