"""Comparison of the version that an app reports with the release."""

from __future__ import annotations

import pytest

from headway.domain.version_check import is_release

SHA = "3f2a9c1" + "0" * 33
REVISION = "3f2a9c1-5be01f"


@pytest.mark.parametrize("said", [SHA, SHA[:12], "3f2a9c1", REVISION])
def test_commit_or_revision_id_matches_the_release(said: str) -> None:
    assert is_release(said, SHA, REVISION) is True


@pytest.mark.parametrize("said", ["9" * 40, "b0b0b0b", "3f2a9c1-5be020", "3f2a9c1f"])
def test_other_commit_or_revision_id_does_not_match(said: str) -> None:
    assert is_release(said, SHA, REVISION) is False


@pytest.mark.parametrize("said", [None, "", "5.4.1", "v2", "20261102", "3f2a9c", "dev", 3, {"major": 1}])
def test_version_number_of_the_app_is_inconclusive(said: object) -> None:
    assert is_release(said, SHA, REVISION) is None
