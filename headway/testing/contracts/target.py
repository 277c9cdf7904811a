"""Contract of the Target port.

A target must refuse what it does not declare as a capability: the contract tries that instead, and skips nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from headway.domain.errors import LockLost, TargetError
from headway.domain.log_lines import by_time
from headway.domain.plan import Probe
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import Capability, HeaderRule, Traffic
from headway.system import tls

__all__ = ["SHA", "TargetContract", "start", "until", "versions"]

SHA = {"old": "1" * 40, "new": "2" * 40, "bad": "3" * 40}
"""Commits of the revisions that the tests launch."""


class TargetContract:
    """Subclass it, define the fixtures `target` and `spec`, and override what is different on your platform."""

    single_app: ClassVar[bool] = False
    """A target is one app, as in its Platform: `forget` is refused."""
    serves_requests: ClassVar[bool] = True
    """False for a target in memory: its URL answers nothing."""
    launches_bundles: ClassVar[bool] = True
    """False for a target that runs nothing of a bundle's files."""
    keeps_artifacts: ClassVar[bool] = True
    """False when `forget` removes an artifact that cannot be fetched again."""

    @pytest.fixture
    def target(self) -> Iterator[Target]:
        """A target on which nothing was launched. End whatever it runs after the `yield`."""
        raise NotImplementedError("define the fixture `target`")

    @pytest.fixture
    def spec(self) -> LaunchSpec:
        """A spec of an app that answers with its version, see `sample_bundle`; with two instances where possible."""
        raise NotImplementedError("define the fixture `spec`")

    def unavailable(self, target: Target, spec: LaunchSpec) -> LaunchSpec:
        """The same spec with an artifact that does not exist."""
        location = "127.0.0.1:1/shop@sha256:" + "b" * 64
        gone = spec.artifact.model_copy(update={"location": location, "digest": "sha256:" + "b" * 64})
        return spec.model_copy(update={"artifact": gone})

    def routed(self, target: Target, wanted: Traffic, instances: dict[str, int]) -> dict[str, int]:
        """Weights that the target observes after it routed `wanted` to so many instances; differs where it rounds."""
        return wanted.weights

    # --- launching ---------------------------------------------------------------------------------------------

    def test_an_app_that_was_never_launched_is_empty(self, target: Target) -> None:
        seen = target.observe("shop")
        assert (seen.url, seen.traffic, seen.instances) == (None, Traffic(), {})
        target.route("shop", Traffic())

    def test_a_missing_artifact_is_reported_before_a_launch(self, target: Target, spec: LaunchSpec) -> None:
        assert not target.missing(spec)
        assert target.missing(self.unavailable(target, spec))

    def test_a_bundle_that_was_changed_is_not_launched(self, target: Target, spec: LaunchSpec) -> None:
        if spec.artifact.kind != "bundle" or not self.launches_bundles:
            return
        running = start(target, spec, instances=1)
        file = Path(spec.artifact.location) / "app.py"
        file.chmod(0o644)
        for content in (file.read_text(), "print('another program')"):  # its mode, then its content
            file.write_text(content)
            more = spec.model_copy(update={"instances": _copies(target)})
            others = [running] if Capability.INSTANCES in target.capabilities else []  # a second instance
            for revision in (*others, spec.revision("shop", SHA["new"])):
                with pytest.raises(TargetError, match="was changed"):
                    target.launch(revision, more)
            assert "was changed" in str(target.missing(spec))
        assert set(target.observe("shop").instances) == {running.id}
        assert target.observe("shop").ready(running) == 1

    def test_launching_twice_equals_launching_once(self, target: Target, spec: LaunchSpec) -> None:
        revision = start(target, spec)
        first = _names(target, revision)
        target.launch(revision, spec)
        assert _names(target, revision) == first
        assert target.observe("shop").ready(revision) == _copies(target)

    def test_comparing_changes_nothing_and_needs_no_secret(self, target: Target, spec: LaunchSpec) -> None:
        wanted = spec.model_copy(update={"env": {"TOKEN": SecretRef(secret="a/b")}})
        differences = target.compare(wanted.revision("shop", SHA["old"]), wanted)
        assert differences is None or all(one.unified for one in differences)
        assert target.observe("shop").instances == {}

    def test_a_secret_without_a_value_is_refused(self, target: Target, spec: LaunchSpec) -> None:
        unresolved = spec.model_copy(update={"env": {"TOKEN": SecretRef(secret="a/b")}})
        with pytest.raises(TargetError, match="secrets"):
            target.launch(spec.revision("shop", SHA["old"]), unresolved)
        assert target.observe("shop").instances == {}

    # --- routing -----------------------------------------------------------------------------------------------

    def test_a_launched_revision_gets_no_traffic_before_it_is_routed(self, target: Target, spec: LaunchSpec) -> None:
        revision = start(target, spec)
        assert target.observe("shop").traffic == Traffic()
        target.route("shop", Traffic.all_to(revision))
        assert target.observe("shop").live == revision.id

    def test_traffic_is_split_and_switched_back(self, target: Target, spec: LaunchSpec) -> None:
        old, new = start(target, spec), start(target, spec, "new", 1)
        split = Traffic(weights={old.id: 95, new.id: 5})
        for wanted in (Traffic.all_to(old), split, Traffic.all_to(new), Traffic.all_to(old), Traffic()):
            if wanted == split and Capability.WEIGHTED_ROUTING not in target.capabilities:
                _refused(target, split)
                continue
            target.route("shop", wanted)
            expected = self.routed(target, wanted, {old.id: _copies(target), new.id: 1})
            assert target.observe("shop").traffic.weights == expected
            if wanted.weights and (url := self._public_url(target)):
                answering = versions(target, url, 5)
                assert answering <= {SHA["old" if one == old.id else "new"] for one in wanted.weights}

    def test_header_rules_previews_and_sessions_are_in_force_as_routed(self, target: Target, spec: LaunchSpec) -> None:
        old, new = start(target, spec), start(target, spec, "new", 1)
        target.route("shop", Traffic.all_to(old))
        rule = HeaderRule(name="x-beta", value="yes", revision=new.id)
        ruled = Traffic(weights={old.id: 95, new.id: 5}, headers=(rule,))
        sticky = Traffic(weights={old.id: 95, new.id: 5}, sticky=True)
        shown = Traffic(weights={old.id: 100}, preview=new.id)
        for wanted, needed in (
            (ruled, Capability.HEADER_ROUTING),
            (sticky, Capability.SESSIONS),
            (shown, Capability.PREVIEW),
            (Traffic.all_to(old), Capability.ATOMIC_SWITCH),
        ):
            if needed not in target.capabilities:
                _refused(target, wanted)
                continue
            target.route("shop", wanted)
            seen = target.observe("shop")
            assert seen.traffic == wanted
            assert (seen.preview_url is not None) is (wanted.preview is not None)
            if seen.preview_url and self.serves_requests:
                assert versions(target, seen.preview_url, 1) == {SHA["new"]}
        if Capability.PREVIEW in target.capabilities:
            target.route("shop", shown)
        target.retire(new)
        assert target.observe("shop").traffic == Traffic.all_to(old)

    def test_routing_to_a_revision_without_ready_instances_is_refused(self, target: Target, spec: LaunchSpec) -> None:
        old = start(target, spec)
        target.route("shop", Traffic.all_to(old))
        with pytest.raises(TargetError, match="no ready instance"):
            target.route("shop", Traffic.all_to(spec.revision("shop", SHA["new"])))
        assert target.observe("shop").live == old.id

    # --- retiring ----------------------------------------------------------------------------------------------

    def test_a_revision_with_traffic_is_not_retired(self, target: Target, spec: LaunchSpec) -> None:
        revision = start(target, spec)
        target.route("shop", Traffic.all_to(revision))
        with pytest.raises(TargetError, match="cannot be retired"):
            target.retire(revision)
        target.retire(revision, keep=1)
        assert target.observe("shop").ready(revision) == 1

    def test_retiring_leaves_nothing_and_is_repeatable(self, target: Target, spec: LaunchSpec) -> None:
        old, new = start(target, spec), start(target, spec, "new", 1)
        target.route("shop", Traffic.all_to(new))
        assert target.drain(old, 2)
        target.retire(old)
        target.retire(old)
        assert set(target.observe("shop").instances) == {new.id}
        assert target.drain(old, 2)

    def test_a_forgotten_app_leaves_nothing_but_its_fencing_token(self, target: Target, spec: LaunchSpec) -> None:
        target.claim("shop", 5)
        old = start(target, spec)
        target.route("shop", Traffic.all_to(old))
        with pytest.raises(TargetError, match="one app's" if self.single_app else "runs"):
            target.forget("shop")
        assert target.observe("shop").live == old.id
        if self.single_app:
            return

        target.route("shop", Traffic())
        target.retire(old)
        for _ in range(2):
            target.forget("shop")

        seen = target.observe("shop")
        assert (seen.url, seen.traffic, seen.instances) == (None, Traffic(), {})
        assert list(target.logs("shop")) == []
        with pytest.raises(LockLost):
            target.claim("shop", 4)
        if self.keeps_artifacts:
            again = start(target, spec)
            target.route("shop", Traffic.all_to(again))
            assert target.observe("shop").live == again.id

    def test_an_older_writer_is_refused(self, target: Target, spec: LaunchSpec) -> None:
        target.claim("shop", 5)
        with pytest.raises(LockLost):
            target.claim("shop", 4)
        start(target, spec)

    # --- observing ---------------------------------------------------------------------------------------------

    def test_requests_are_counted_by_revision(self, target: Target, spec: LaunchSpec) -> None:
        revision = start(target, spec)
        target.route("shop", Traffic.all_to(revision))
        before = target.measure("shop")
        if url := self._public_url(target):
            versions(target, url, 30)
        if Capability.METRICS not in target.capabilities:
            assert target.measure("shop").counts == {}
            return
        until(lambda: target.measure("shop").since(before, revision).requests >= 30)
        assert target.measure("shop").since(before, revision).errors == 0

    def test_a_request_is_sent_to_one_revision_only_where_the_target_says_so(
        self, target: Target, spec: LaunchSpec
    ) -> None:
        revision = start(target, spec)
        request = Probe(method="GET", path=spec.health.path)
        if target.sends_requests:
            assert target.send("shop", revision.id, request) == httpx.codes.OK
            assert target.send("shop", "fffffff-ffffff", request) == httpx.codes.SERVICE_UNAVAILABLE
        else:
            with pytest.raises(TargetError):
                target.send("shop", revision.id, request)

    def test_log_lines_name_their_revision(self, target: Target, spec: LaunchSpec) -> None:
        revision = start(target, spec)
        target.route("shop", Traffic.all_to(revision))
        lines = list(target.logs("shop"))
        assert len(lines) >= 1
        assert all(revision.id in line.instance for line in lines)
        assert lines == by_time(lines)
        assert list(target.logs("shop", "fffffff")) == []

    def _public_url(self, target: Target) -> str | None:
        return target.observe("shop").url if self.serves_requests else None


def start(target: Target, spec: LaunchSpec, name: str = "old", instances: int | None = None) -> Revision:
    """Launch a revision of the app `shop`, built from the commit `SHA[name]`, and wait until it is ready."""
    instances = instances or _copies(target)
    revision = spec.revision("shop", SHA[name])
    target.launch(revision, spec.model_copy(update={"instances": instances}))
    until(lambda: target.ready(revision).ready >= instances)
    return revision


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until this is true. Fails after so many seconds."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.05)


def versions(target: Target, url: str, requests: int) -> set[str]:
    """The versions that answer so many requests. Fails unless each of them is answered with 200."""
    found = set()
    with httpx.Client(headers=target.request_headers, trust_env=False, verify=tls.for_url(url), timeout=10) as client:
        for _ in range(requests):
            answer = client.get(url)
            assert answer.status_code == 200
            found.add(answer.json()["version"])
    return found


def _copies(target: Target) -> int:
    """How many instances to ask for."""
    return 2 if Capability.INSTANCES in target.capabilities else 1


def _names(target: Target, revision: Revision) -> list[str]:
    return [instance.name for instance in target.observe("shop").instances[revision.id]]


def _refused(target: Target, wanted: Traffic) -> None:
    """A target refuses what it has not declared, and changes nothing."""
    before = target.observe("shop")
    with pytest.raises(TargetError):
        target.route("shop", wanted)
    assert target.observe("shop") == before
