"""Every command on the pages of "Getting started" works as written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Sandbox

PAGES = Path(__file__).parents[2] / "docs" / "getting-started"


@pytest.mark.e2e
def test_a_laptop_a_first_release_and_a_first_rollback(sandbox: Sandbox) -> None:
    for page in ("laptop.md", "first-release.md", "first-rollback.md"):
        sandbox.follow(PAGES / page)
