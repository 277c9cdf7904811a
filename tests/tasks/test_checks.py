"""What a check is told, and whose word counts for another: with a real command, repository and ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.config import Check, Inputs
from headway.domain.source import Source
from headway.ledger import Ledger
from headway.scm import git
from tasks import checks
from tasks.release_record import ReleaseSession
from tests.standins.repositories import Repository

pytestmark = pytest.mark.slow

CHECK = Check(run="env > told", inputs=Inputs(paths=("src",)))


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        monkeypatch.setattr(checks, "get_run_logger", lambda: logging.getLogger("test"))
        yield opened


@pytest.fixture
def commit(tmp_path: Path) -> Source:
    repo = Repository(tmp_path / "shop")
    repo.commit(src__a="1")
    return git.checkout(str(repo.path), "main", tmp_path / "workspaces", "run")


async def run(books: Ledger, commit: Source, *, trusted: bool) -> str:
    """The state in which the check ended."""
    app = "shop" if trusted else "shop-pr-42"
    release = books.releases.start(app, "/repo", "main", flow_run_id=None, requested_by="ann")
    await checks.run_check.fn(
        ReleaseSession(books, release), commit.model_copy(update={"trusted": trusted}), "unit", CHECK
    )
    (stage,) = books.stages.by_release(release.id)
    return stage.state


async def test_strangers_vouch_for_nobody_and_nobody_for_them(books: Ledger, commit: Source) -> None:
    assert await run(books, commit, trusted=False) == "passed"
    assert await run(books, commit, trusted=True) == "passed"
    assert await run(books, commit, trusted=True) == "cached"
    assert await run(books, commit, trusted=False) == "passed"


async def test_a_stranger_s_check_is_not_at_home(
    books: Ledger, commit: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_SECRET_A", "hunter2")
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine")
    await run(books, commit, trusted=False)
    told = (Path(commit.workspace) / "told").read_text()
    assert f"HOME={commit.workspace}.home\n" in told
    assert "hunter2" not in told
    assert "tcp://engine" not in told
