"""State files of apps: files of older installations stay readable."""

from __future__ import annotations

import json
from pathlib import Path

from blocks.envoy.xds import Endpoint
from blocks.targets._app_state import AppState, InstanceState, PublicPorts, RevisionState, endpoints
from blocks.targets._hosted import HostedState
from headway.domain.revision import Artifact, Health, LaunchSpec, ProbeSettings

# As version 0.1.0 wrote it, during a rollout.
WRITTEN_BY_0_1_0 = """
{"token": 7, "port": 8100, "preview_port": 8101, "instances": {"1111111-f3b4a1": {"shop-1111111-f3b4a1-0c2e": {"host":
"127.0.0.1", "port": 44321, "draining": true}, "shop-1111111-f3b4a1-9a7b": {"host": "127.0.0.1", "port": 44322,
"draining": false}}, "2222222-aa01ce": {"shop-2222222-aa01ce-77f0": {"host": "127.0.0.1", "port": 44323, "draining":
false}}}, "specs": {"1111111-f3b4a1": {"sha": "1111111111111111111111111111111111111111", "health": {"path": "/health",
"timeout": 2.0, "startup": 20.0, "startup_probe": {"period": 1.0, "failures": 1, "delay": 0.0}, "readiness_probe":
{"period": 10.0, "failures": 2, "delay": 0.0}, "liveness_probe": {"period": 30.0, "failures": 3, "delay": 10.0}},
"drain": 2.0}, "2222222-aa01ce": {"sha": "2222222222222222222222222222222222222222", "health": {"path": "/healthz",
"timeout": 0.5, "startup": 60.0, "startup_probe": {"period": 5.0, "failures": 1, "delay": 0.0}, "readiness_probe":
{"period": 10.0, "failures": 2, "delay": 0.0}, "liveness_probe": {"period": 30.0, "failures": 3, "delay": 10.0}},
"drain": 30.0}}, "stopping": ["shop-0000000-123456-abcd"], "carried": ["1111111-f3b4a1", "0000000-123456"]}
"""


def test_file_of_0_1_0_is_read_and_keeps_its_fields(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(WRITTEN_BY_0_1_0)
    state = AppState.read(tmp_path)
    assert (state.token, state.port, state.preview_port) == (7, 8100, 8101)
    assert state.instances["1111111-f3b4a1"]["shop-1111111-f3b4a1-0c2e"].draining
    assert state.addresses() == {("127.0.0.1", port) for port in (44321, 44322, 44323)}
    assert state.specs["2222222-aa01ce"].health.timeout == 0.5
    assert state.stopping == ["shop-0000000-123456-abcd"]

    state.write(tmp_path)

    assert _differences(json.loads(WRITTEN_BY_0_1_0), json.loads((tmp_path / "state.json").read_text())) == []
    assert AppState.read(tmp_path) == state


def _differences(old: object, new: object, place: str = "") -> list[str]:
    """Places where the new content lacks something of the old one, or has another value. It may have more fields."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [place]
    return [found for key, value in old.items() for found in _differences(value, new.get(key), f"{place}/{key}")]


def test_a_file_of_an_app_that_was_only_claimed_is_read(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"token": 3, "port": null, "preview_port": null, "instances": {}}')
    assert AppState.read(tmp_path) == AppState(token=3)


def test_an_app_without_a_file_was_never_launched(tmp_path: Path) -> None:
    assert AppState.read(tmp_path) == AppState()


def test_the_ports_of_another_installation_are_respected_whatever_version_wrote_its_state(tmp_path: Path) -> None:
    newer = WRITTEN_BY_0_1_0.replace('"timeout": 2.0', '"timeout": 2.0, "setting_of_a_later_version": null')
    (tmp_path / "state.json").write_text(newer)
    assert {8100, 8101} < PublicPorts.read(tmp_path).ports()


def test_a_forgotten_app_keeps_its_token(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(WRITTEN_BY_0_1_0)
    state = AppState.read(tmp_path)
    state.forget()
    assert state == AppState(token=7)


def test_revisions_with_all_the_traffic_are_remembered_newest_first() -> None:
    state = AppState(carried=[f"r{n}" for n in range(100)])
    state.add_carried(["r5"])
    state.add_carried(["new"])
    assert state.carried[:3] == ["new", "r5", "r0"]
    assert len(state.carried) == 100


def test_the_label_of_a_container_made_by_0_1_0_is_read() -> None:
    spec = LaunchSpec(
        environment="staging",
        artifact=Artifact(digest="sha256:" + "a" * 64, location="/bundle", size=1),
        health=Health(path="/healthz", startup_probe=ProbeSettings(period=2, failures=3)),
    )
    revision = spec.revision("shop", "1" * 40)
    label = json.dumps({"sha": revision.sha, "health": spec.health.model_dump(), "drain": spec.drain})
    assert RevisionState.model_validate_json(label) == RevisionState.of(revision, spec)


def test_envoy_gets_each_address_and_whether_it_drains() -> None:
    instances = {"a": InstanceState(host="10.0.0.2", port=8080), "b": InstanceState(host="10.0.0.3", port=8080)}
    instances["a"].health_port = 20001
    instances["b"].draining = True
    assert endpoints(instances) == {
        ("10.0.0.2", 8080): Endpoint(drains=False, health_port=20001),
        ("10.0.0.3", 8080): Endpoint(drains=True),
    }


def test_a_file_of_a_hosted_target_of_0_1_0_is_read() -> None:
    written = '{"token": 3, "launched": {"1111111-f3b4a1": "dpl_1"}, "preview": null}'
    assert HostedState.model_validate_json(written) == HostedState(token=3, launched={"1111111-f3b4a1": "dpl_1"})
    assert HostedState.model_validate_json('{"token": 3, "others": "dpl_0"}').others == "dpl_0"
