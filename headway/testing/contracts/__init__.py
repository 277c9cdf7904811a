"""Port contract tests: what every implementation of a port promises. They need pytest: `pip install headway[testing]`.

An implementation passes them by subclassing, in a test module of its own:

    class TestMyTarget(TargetContract):
        @pytest.fixture
        def target(self, tmp_path):
            yield MyTarget(directory=tmp_path / "target")

        @pytest.fixture
        def spec(self, tmp_path):
            return launch_spec(sample_bundle(tmp_path / "bundle"), instances=2)
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("target", "commands", "runner", "secret_store")))

from headway.testing.contracts.commands import CommandContract  # noqa: E402  # after the line that rewrites its asserts
from headway.testing.contracts.runner import IsolationContract, RunnerContract  # noqa: E402
from headway.testing.contracts.samples import SAMPLE_APP, launch_spec, sample_bundle  # noqa: E402
from headway.testing.contracts.secret_store import SecretStoreContract  # noqa: E402
from headway.testing.contracts.target import SHA, TargetContract, start, until, versions  # noqa: E402

__all__ = [
    "SAMPLE_APP",
    "SHA",
    "CommandContract",
    "IsolationContract",
    "RunnerContract",
    "SecretStoreContract",
    "TargetContract",
    "launch_spec",
    "sample_bundle",
    "start",
    "until",
    "versions",
]
