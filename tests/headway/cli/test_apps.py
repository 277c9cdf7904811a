"""`headway app add`: what is there when an app is registered is not released."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.ledger import Ledger
from tests.standins.repositories import Repository

Add = Callable[..., str]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", "from headway.cli import main; main()", "app", "add", *arguments],
            env={**os.environ, "HEADWAY_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    return run


def test_the_present_head_is_the_baseline_of_a_new_registration_alone(add: Add, tmp_path: Path) -> None:
    repo = Repository(tmp_path / "shop")
    head = repo.commit(headway_dot_yaml="app: shop\n")
    assert f"main is at {head[:7]}: the next push is the first that is released" in add(str(repo.path))
    newer = repo.commit("Newer")
    assert newer[:7] not in add(str(repo.path), "--secret", "another")
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") as ledger:
        assert ledger.deliveries.mentions("shop", "refs/heads/main", head)
        assert not ledger.deliveries.mentions("shop", "refs/heads/main", newer)
        assert ledger.deliveries.due() == []


def test_a_registered_branch_is_the_released_one(add: Add, tmp_path: Path) -> None:
    repo = Repository(tmp_path / "shop")
    head = repo.commit(headway_dot_yaml="app: shop\n")
    repo.git("branch", "stable")
    assert f"stable is at {head[:7]}" in add(str(repo.path), "--branch", "stable")
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") as ledger:
        assert ledger.apps.get("shop").branch == "stable"


def test_a_repository_without_a_commit_is_registered_and_said(add: Add, tmp_path: Path) -> None:
    repo = Repository(tmp_path / "shop")
    assert "the first head that Headway reads is not released: " in add(str(repo.path))
