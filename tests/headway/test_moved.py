"""Pickles of the last release load, although modules have moved since."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys

import pytest

from headway import _moved
from headway.domain.revision import Artifact

# Classes that are in the results of tasks that 0.1.0 stores, found by following the types of their fields.
PICKLED = [
    *("headway.ledger.records:ReleaseRecord", "headway.model:Artifact", "headway.model:CheckReport"),
    *("headway.model:Condition", "headway.model:Coverage", "headway.model:Failure", "headway.model:SecretRef"),
    *("headway.model:Source", "headway.readiness.checklist:Result", "headway.settings.repository:Settings"),
    *("headway.settings.sections:Approval", "headway.settings.sections:Asking"),
    *("headway.settings.sections:Attestation", "headway.settings.sections:Build", "headway.settings.sections:Check"),
    *("headway.settings.sections:Environment", "headway.settings.sections:Health", "headway.settings.sections:Inputs"),
    *("headway.settings.sections:Instances", "headway.settings.sections:Leaks", "headway.settings.sections:Lint"),
    *("headway.settings.sections:Migrations", "headway.settings.sections:On", "headway.settings.sections:Probes"),
    *("headway.settings.sections:Probing", "headway.settings.sections:Readiness"),
    *("headway.settings.sections:Resources", "headway.settings.strategies:Analysis"),
    *("headway.settings.strategies:BlueGreen", "headway.settings.strategies:Canary"),
    *("headway.settings.strategies:CanaryAnalysis", "headway.settings.strategies:CanaryStep"),
    *("headway.settings.strategies:Metric", "headway.settings.strategies:Probe"),
    *("headway.settings.strategies:Recreate", "headway.settings.strategies:Rolling"),
    *("headway.settings.strategies:Synthetic", "headway.settings.variables:Variable", "tasks.previews:Pull"),
]


@pytest.mark.parametrize("name", PICKLED)
def test_a_class_that_the_last_release_pickles_is_found(name: str) -> None:
    module, _, attribute = name.partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), type)


@pytest.mark.parametrize("old", _moved.MOVED)
def test_a_moved_module_names_modules_that_exist(old: str) -> None:
    assert old not in _moved.MOVED[old]
    assert all(importlib.import_module(new).__name__ == new for new in _moved.MOVED[old])


def test_a_pickle_that_names_an_old_module_is_loaded() -> None:
    made = Artifact(digest=f"sha256:{1:064}", location="/somewhere", size=1)
    old = pickle.dumps(made, protocol=0).replace(b"headway.domain.revision", b"headway.model")
    assert b"headway.model" in old
    assert pickle.loads(old) == made


def test_an_old_module_has_no_names_of_its_own() -> None:
    old = importlib.import_module("headway.settings.sections")
    with pytest.raises(AttributeError, match=r"module 'headway.settings.sections' has no attribute 'Nothing'"):
        old.Nothing  # noqa: B018


def test_importing_an_old_module_warns() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", "import headway; import headway.settings.sections"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "headway.settings has moved to headway.config; the old name goes away in 0.3.0" in done.stderr
