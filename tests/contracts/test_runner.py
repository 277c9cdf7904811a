"""The Runner contract, for every runner."""

from __future__ import annotations

import pytest

from headway.domain.ports import Runner
from headway.system.runners.host import HostRunner
from headway.system.runners.sandbox import SandboxRunner
from headway.testing.contracts import IsolationContract, RunnerContract


class TestHost(RunnerContract):
    @pytest.fixture
    def runner(self) -> Runner:
        return HostRunner()


class TestSandbox(IsolationContract):
    @pytest.fixture
    def runner(self) -> Runner:
        runner = SandboxRunner()
        if refusal := runner.missing():
            pytest.skip(f"{refusal.what}: {refusal.hint}")
        return runner
