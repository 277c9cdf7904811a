"""The contracts of Headway, against real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.domain.revision import LaunchSpec
from headway.testing.contracts import TargetContract, launch_spec, sample_bundle
from headway_bare.target import BareTarget


class TestBareTarget(TargetContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[BareTarget]:
        target = BareTarget(directory=tmp_path / "target")
        yield target
        target.destroy()

    @pytest.fixture
    def spec(self, tmp_path: Path) -> LaunchSpec:
        return launch_spec(sample_bundle(tmp_path / "bundle"), instances=2)
