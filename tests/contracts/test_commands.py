"""The contract of commands, for every target that runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec
from headway.testing.contracts import CommandContract
from tests.contracts import targets
from tests.standins.docker_engine import Engine

pytestmark = pytest.mark.slow


class TestProcess(CommandContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[Target]:
        with targets.process(tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, tmp_path: Path) -> LaunchSpec:
        return targets.bundle_spec(tmp_path)


@pytest.mark.xdist_group("docker")
class TestDocker(CommandContract):
    @pytest.fixture
    def target(self, engine: Engine, tmp_path: Path) -> Iterator[Target]:
        with targets.docker(engine, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, engine: Engine) -> LaunchSpec:
        return targets.image_spec(engine)
