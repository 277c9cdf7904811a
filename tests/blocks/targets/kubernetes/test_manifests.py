"""An app's own manifests: loaded from its repository, validated by file and document, completed."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from blocks.targets.kubernetes import labels, manifest_validation, manifests, render, schemas
from blocks.targets.kubernetes import manifest_files as reading
from headway import config as settings
from headway.config import Settings
from headway.domain.errors import SettingsError
from headway.domain.revision import Autoscale, LaunchSpec, Manifest
from tests.blocks.targets.kubernetes.test_render import ARTIFACT, GOLDEN, RULES, VERSIONS

IMAGE = "ghcr.io/acme/shop"
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, labels: {team: carts}}
spec:
  replicas: 3
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      serviceAccountName: shop
      initContainers:
        - {name: wait, image: busybox}
        - {name: schema, image: "ghcr.io/acme/shop:latest", command: [./schema]}
      containers:
        - name: proxy
          image: envoyproxy/envoy:v1.30
        - name: web
          image: ghcr.io/acme/shop:latest
          ports: [{name: http, containerPort: 3000}]
          env: [{name: LOG_LEVEL, value: debug}, {name: ZONE, value: a}]
          readinessProbe: {httpGet: {path: /mine, port: http}}
          volumeMounts: [{name: config, mountPath: /etc/shop}]
      volumes:
        - name: config
          configMap: {name: shop-config, defaultMode: 0440}
"""
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: shop-config}
data: {since: "2024-01-02", greeting: hello}
"""
WORKER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: shops}
spec:
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      containers: [{name: worker, image: ghcr.io/acme/shop}]
"""
NIGHTLY = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: nightly, image: "ghcr.io/acme/shop:1"}]
"""
SERVICE_MONITOR = """
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: shop}
spec: {endpoints: [{port: http}]}
"""
LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n" for before, after in zip("abcdef", "bcdefg", strict=True)
)
SETTINGS = """
app: shop
build: {image: ghcr.io/acme/shop}
manifests: k8s
env: {LOG_LEVEL: {default: info}}
environments:
  staging: {target: kubernetes/staging}
  production: {target: kubernetes/production, instances: 5}
"""


def written(place: Path, **files: str) -> Path:
    """A repository with these files in k8s/, `web` being k8s/web.yaml."""
    (place / "k8s").mkdir(exist_ok=True)
    for name, text in files.items():
        (place / "k8s" / f"{name}.yaml").write_text(text)
    return place


def read(place: Path, **files: str) -> tuple[Manifest, ...]:
    return reading.read(written(place, **files), "k8s")


def faults(place: Path, **files: str) -> list[str]:
    return manifest_validation.fault_lines("shop", IMAGE, read(place, **files))


def spec_of(found: tuple[Manifest, ...], **changes: Any) -> LaunchSpec:
    told = {"environment": "production", "artifact": ARTIFACT, "release": "shop#7", "manifests": found}
    return LaunchSpec.model_validate(told | {"env": {"LOG_LEVEL": "info"}} | changes)


def rendered(spec: LaunchSpec) -> list[dict[str, Any]]:
    return [
        *render.revision_objects(spec.revision("shop", "1" * 40), spec, RULES),
        *manifests.own_objects("shop", spec, RULES.namespace),
    ]


# --- reading ---------------------------------------------------------------------------------------------------


def test_files_are_read_in_order_with_the_number_of_each_document(tmp_path: Path) -> None:
    found = read(tmp_path, web=f"---{WEB}---{CONFIG}", a=f"# nothing\n---\n---{WORKER}")
    assert [one.source for one in found] == ["k8s/a.yaml#2", "k8s/web.yaml#1", "k8s/web.yaml#2"]
    (config,) = (one.content for one in found if one.content["kind"] == "ConfigMap")
    assert config["data"] == {"since": "2024-01-02", "greeting": "hello"}


def test_document_numbers_match_kubectl(tmp_path: Path) -> None:
    web: dict[str, Any] = read(tmp_path, web=WEB)[0].content
    (volume,) = web["spec"]["template"]["spec"]["volumes"]
    assert volume["configMap"]["defaultMode"] == 0o440


def test_single_file_list_and_json_are_accepted(tmp_path: Path) -> None:
    written(tmp_path, web=WEB)
    assert len(reading.read(tmp_path, "k8s/web.yaml")) == 1
    (tmp_path / "all.json").write_text(
        '{"kind": "List", "apiVersion": "v1", "items": '
        '[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}]}'
    )
    assert [one.source for one in reading.read(tmp_path, "all.json")] == ["all.json#1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "k8s/web.yaml:"),
        ("a: 1\na: 2", "is not YAML"),
        ("- a", "k8s/web.yaml#1: is not an object of Kubernetes: expected a mapping"),
        ("---\n---\nkind: Pod", "k8s/web.yaml#2: is not an object of Kubernetes: it needs apiVersion, metadata/name"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: !!binary aGk=}", "data/a: is a value that"),
        (LAUGHS, "aliases multiply"),
        ("a: &a\n  b: *a", "aliases multiply"),
        ("# nothing", "k8s: holds no objects"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: " + "x" * 200_000 + "}", "is larger than"),
    ],
)  # fmt: skip
def test_unreadable_manifest_is_an_error_with_its_location(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, web=text)
    assert said in raised.value.what


def test_manifests_outside_of_the_repository_are_refused(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "k8s").symlink_to("/etc")
    for where in ("k8s", "nowhere"):
        with pytest.raises(SettingsError, match="no such path"):
            reading.read(tmp_path / "repo", where)


@pytest.fixture
def overlays(tmp_path: Path) -> Path:
    """A base and what production changes in it."""
    (tmp_path / "k8s" / "base").mkdir(parents=True)
    overlay = tmp_path / "k8s" / "production"
    overlay.mkdir()
    (tmp_path / "k8s" / "base" / "web.yaml").write_text(WEB)
    (tmp_path / "k8s" / "base" / "kustomization.yaml").write_text("resources: [web.yaml]\n")
    (overlay / "kustomization.yaml").write_text(
        "resources: [../base]\nreplicas: [{name: shop, count: 7}]\n"
        "configMapGenerator: [{name: shop-config, literals: [a=b]}]\n"
    )
    return tmp_path


@pytest.mark.skipif(not (shutil.which("kubectl") or shutil.which("kustomize")), reason="no kubectl and no kustomize")
def test_a_kustomize_folder_is_built(overlays: Path) -> None:
    found = reading.read(overlays, "k8s/production")
    assert manifests.replicas("shop", found) == 7
    assert {one.source for one in found} == {"k8s/production#1", "k8s/production#2"}
    assert any("'name': 'shop-config-" in str(one.content) for one in found)
    (overlays / "k8s" / "production" / "kustomization.yaml").write_text("resources: [../nowhere]\n")
    with pytest.raises(SettingsError, match=r"k8s/production: kustomize: .*nowhere"):
        reading.read(overlays, "k8s/production")


def program(place: Path, name: str, does: str) -> None:
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{does}\n")
    (place / name).chmod(0o755)


def test_kustomize_or_kubectl_builds_the_folder(
    overlays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(SettingsError, match="neither kustomize nor kubectl"):
        reading.read(overlays, "k8s/production")
    program(programs, "kubectl", 'test "$1 $2" = "kustomize $PWD/k8s/production" || exit 3')
    monkeypatch.chdir(overlays)
    with pytest.raises(SettingsError, match="holds no objects"):
        reading.read(overlays, "k8s/production")
    program(programs, "kustomize", "echo 'no such thing' >&2; exit 1")
    with pytest.raises(SettingsError, match="no such thing"):
        reading.read(overlays, "k8s/production")
    monkeypatch.setattr(reading, "BUILD_TIME", 0.2)
    program(programs, "kustomize", "while :; do :; done")
    with pytest.raises(SettingsError, match=r"has not come to an end in 0\.2 s"):
        reading.read(overlays, "k8s/production")


# --- what may be in them ---------------------------------------------------------------------------------------


def test_valid_manifests_are_accepted(tmp_path: Path) -> None:
    assert faults(tmp_path, web=WEB, config=CONFIG, worker=WORKER, nightly=NIGHTLY, monitor=SERVICE_MONITOR) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config": CONFIG}, "k8s/config.yaml: no Deployment"),
        (
            {"a": WEB.replace("name: shop,", "name: front,"), "b": WORKER},
            "k8s/a.yaml#1: which Deployment is released? There is front (k8s/a.yaml#1), worker (k8s/b.yaml#1)",
        ),
        ({"web": WEB.replace("apps/v1", "v1")}, "k8s/web.yaml#1: Deployment is not in v1: it is in apps/v1"),
        (
            {"web": WEB, "b": CONFIG.replace("ConfigMap", "ConfigMpa")},
            "k8s/b.yaml#1: there is no ConfigMpa in v1 (did you mean 'ConfigMap'?)",
        ),
        ({"web": WEB, "b": CONFIG, "c": f"---\n---{CONFIG}"}, "k8s/c.yaml#2: ConfigMap shop-config is in k8s/b.yaml#1"),
        (
            {"web": WEB.replace("team: carts}", "team: carts}, namespace: other"), "worker": WORKER},
            "k8s/worker.yaml#1: is in namespace shops, and k8s/web.yaml#1 in other",
        ),
        (
            {"web": WEB.replace("{matchLabels: {app: shop}}", "{matchLabels: {app: shopp}}")},
            "k8s/web.yaml#1: spec/selector: does not match its own pods: app is shop, not shopp",
        ),
        (
            {"web": WEB.replace("{matchLabels: {app: shop}}", "{matchExpressions: [{key: tier, operator: Exists}]}")},
            "does not match its own pods: tier Exists",
        ),
        ({"web": WEB.replace("ghcr.io/acme/shop:", "docker.io/other:")}, "none runs ghcr.io/acme/shop"),
        ({"web": WEB.replace("name: http, ", "name: web, ")}, "web has no port that is called http"),
        ({"web": WEB.replace("replicas: 3", "replicaz: 3")}, "spec: unknown key 'replicaz' (did you mean 'replicas'?)"),
        ({"web": WEB.replace("replicas: 3", "replicas: many")}, "spec/replicas: expected integer"),
        ({"web": WEB.split("    metadata")[0].replace("template:", "template: {}")}, "containers: there is none"),
        ({"web": WEB, "b": "apiVersion: v1\nkind: Service\nmetadata: {name: shop}"}, "Service shop is Headway's own"),
        ({"web": WEB, "b": "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}"}, "belongs to no namespace"),
        ({"web": WEB, "b": "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}"}, "Job a cannot be changed"),
        (
            {"web": WEB, "b": "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: hunter2}"},
            "Secret a would be in the repository in clear",
        ),
        (
            {
                "web": WEB,
                "b": "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}\n"
                "spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}",
            },
            "k8s/b.yaml#1: spec/scaleTargetRef: shop is released",
        ),
    ],
)  # fmt: skip
def test_unsupported_object_is_an_error_with_file_and_document(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    found = faults(tmp_path, **files)
    assert any(said in line for line in found), found
    assert "hunter2" not in str(found)


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    written(tmp_path, web=WEB.replace("replicas: 3", "replicas: many"), b=CONFIG.replace("\ndata", "\ndta"))
    (tmp_path / "headway.yaml").write_text(SETTINGS)
    with pytest.raises(SettingsError) as raised:
        settings.load(tmp_path)
    assert raised.value.what.splitlines() == [
        "k8s/b.yaml#1: unknown key 'dta' (did you mean 'data'?)",
        "k8s/web.yaml#1: spec/replicas: expected integer",
    ]


def test_foreign_namespace_is_checked_by_the_target(tmp_path: Path) -> None:
    found = read(tmp_path, web=WEB, worker=WORKER)
    assert manifest_validation.outside_namespace("shops", found) == []
    assert manifest_validation.outside_namespace("prod", found) == [
        "k8s/worker.yaml#1: is in namespace shops, and the target is in prod"
    ]


# --- what Headway sets -----------------------------------------------------------------------------------------


@pytest.fixture
def things(tmp_path: Path) -> list[dict[str, Any]]:
    return rendered(spec_of(read(tmp_path, web=WEB, config=CONFIG, worker=WORKER, nightly=NIGHTLY)))


def test_completed_manifests_match_the_golden_files(things: list[dict[str, Any]]) -> None:
    for thing in things:
        thing["metadata"].get("annotations", {}).pop(labels.SPEC, None)  # with all that is given
    file = GOLDEN / "manifests.yaml"
    yaml = YAML()
    yaml.width = 120
    if os.environ.get("HEADWAY_GOLDEN") == "write":
        with file.open("w") as golden:
            yaml.dump_all(things, golden)
    assert list(YAML(typ="safe").load_all(file)) == things


@pytest.mark.parametrize("version", VERSIONS)
def test_completed_manifests_are_valid_kubernetes_objects(things: list[dict[str, Any]], version: str) -> None:
    assert [fault for thing in things for fault in schemas.faults(thing, version)] == []


def test_existing_fields_are_kept_and_missing_ones_added(things: list[dict[str, Any]]) -> None:
    (web,) = (thing for thing in things if thing["metadata"]["name"].startswith("shop-") and "spec" in thing)
    pod = web["spec"]["template"]["spec"]
    proxy, main = pod["containers"]
    assert proxy == {"name": "proxy", "image": "envoyproxy/envoy:v1.30"}
    assert main["readinessProbe"] == {"httpGet": {"path": "/mine", "port": "http"}}
    assert main["livenessProbe"]["httpGet"]["path"] == "/health"
    assert main["env"] == [{"name": "ZONE", "value": "a"}]
    assert "resources" not in main
    assert [one["image"] for one in pod["initContainers"]] == ["busybox", ARTIFACT.location]
    assert web["metadata"]["labels"]["team"] == "carts"
    assert "replicas" not in web["spec"]


def test_port_comes_from_the_manifest(things: list[dict[str, Any]]) -> None:
    (config,) = (thing for thing in things if thing["kind"] == "ConfigMap" and "PORT" in thing["data"])
    assert config["data"] == config["data"] | {"PORT": "3000", "LOG_LEVEL": "info"}


def test_app_labels_are_only_on_the_released_deployment(things: list[dict[str, Any]]) -> None:
    """The traffic goes to whoever has these labels."""
    for thing in things:
        assert thing["metadata"]["labels"][labels.APP] == "shop"
    workers = [thing for thing in things if thing["metadata"]["name"] in ("worker", "nightly")]
    assert [labels.APP in str(thing["spec"]) for thing in workers] == [False, False]
    assert [ARTIFACT.location in str(thing["spec"]) for thing in workers] == [True, True]


def test_resources_of_headway_yaml_apply_to_a_container_without_any(tmp_path: Path) -> None:
    found = read(tmp_path, web=WEB)
    *_, web = rendered(spec_of(found, memory=2**28))
    assert web["spec"]["template"]["spec"]["containers"][1]["resources"]["limits"] == {"memory": "256Mi"}


def test_only_container_runs_the_built_image(tmp_path: Path) -> None:
    web = WORKER.replace("image: ghcr.io/acme/shop", "image: placeholder, ports: [{containerPort: 80}]")
    other = NIGHTLY.replace("ghcr.io/acme/shop:1", "placeholder")
    assert faults(tmp_path, web=web, other=other) == []
    *_, made, nightly = rendered(spec_of(read(tmp_path)))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["ports"][0]["name"]) == (ARTIFACT.location, "http")
    assert ARTIFACT.location in str(nightly)


@pytest.mark.parametrize(
    ("said", "requested"),
    [
        ("", {"cpu": "100m"}),
        ("resources: {limits: {memory: 1Gi}}", {"cpu": "100m"}),
        ("resources: {requests: {cpu: 2}}", {"cpu": 2}),
        ("resources: {limits: {cpu: 1}}", None),
    ],
)
def test_autoscaled_container_gets_resource_requests(
    tmp_path: Path, said: str, requested: dict[str, object] | None
) -> None:
    web = WEB.replace("ports: [{name: http", f"{said}\n          ports: [{{name: http")
    *_, made = rendered(spec_of(read(tmp_path, web=web), autoscale=Autoscale(min=1, max=3, cpu=70)))
    assert made["spec"]["template"]["spec"]["containers"][1]["resources"].get("requests") == requested


def test_existing_disruption_budget_is_enough(tmp_path: Path) -> None:
    budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: mine}"
    with_one, without = read(tmp_path, web=WEB, budget=budget), read(tmp_path, web=WEB)[1:]
    assert render.app_objects("shop", spec_of(with_one, instances=2), RULES) == []
    assert len(render.app_objects("shop", spec_of(without, instances=2), RULES)) == 1


# --- headway.yaml ----------------------------------------------------------------------------------------------


def loaded(place: Path, text: str = SETTINGS) -> Settings:
    (place / "headway.yaml").write_text(text)
    return settings.load(place)


def test_manifests_are_in_the_launch_spec_and_change_the_revision(tmp_path: Path) -> None:
    written(tmp_path, web=WEB)
    found: Settings = pickle.loads(pickle.dumps(loaded(tmp_path)))
    spec = found.launch_spec("production", ARTIFACT)
    assert LaunchSpec.model_validate_json(spec.model_dump_json()).manifests == reading.read(tmp_path, "k8s")
    written(tmp_path, web=WEB.replace("team: carts", "team: pies"))
    changed = loaded(tmp_path).launch_spec("production", ARTIFACT)
    assert changed.configuration_hash() != spec.configuration_hash()
    moved = spec.model_copy(
        update={"manifests": tuple(one.model_copy(update={"source": "b#1"}) for one in spec.manifests)}
    )
    assert moved.configuration_hash() == spec.configuration_hash()


def test_settings_load_without_the_rest_of_the_tree(tmp_path: Path) -> None:
    """As of a branch that somebody pushed to."""
    (tmp_path / "headway.yaml").write_text(SETTINGS)
    assert settings.load(tmp_path / "headway.yaml").release_path() == ["staging", "production"]
    with pytest.raises(SettingsError, match="k8s: there is no such path in the repository"):
        settings.load(tmp_path)


def test_instances_come_from_headway_yaml_or_the_deployment(tmp_path: Path) -> None:
    found = loaded(written(tmp_path, web=WEB))
    assert found.launch_spec("staging", ARTIFACT).instances == 3
    assert found.launch_spec("production", ARTIFACT).instances == 5


def test_environment_may_have_its_own_manifests(tmp_path: Path) -> None:
    (tmp_path / "k8s").mkdir()
    (tmp_path / "prod.yaml").write_text(WEB.replace("replicas: 3", "replicas: 9"))
    found = loaded(
        tmp_path,
        """
app: shop
build: {image: ghcr.io/acme/shop}
environments:
  staging: {target: docker/staging}
  production: {target: kubernetes/production, manifests: prod.yaml}
""",
    )
    assert found.launch_spec("staging", ARTIFACT).manifests == ()
    assert found.launch_spec("production", ARTIFACT).instances == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SETTINGS.replace("kubernetes/", "docker/"), "none of them takes the manifests: only targets of kubernetes do"),
        (SETTINGS.replace("kubernetes/staging", "docker/a, manifests: k8s"), "docker has no use for manifests"),
        (SETTINGS.replace("manifests: k8s", "manifests: ../k8s"), "expected a path inside the repository"),
    ],
)  # fmt: skip
def test_manifests_need_a_kubernetes_target(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        loaded(tmp_path, text)
