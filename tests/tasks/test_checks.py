"""Environment and cached results of checks, with a real command, repository and ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.config import Check, Inputs
from headway.domain.errors import CheckFailed
from headway.domain.source import Source
from headway.ledger import Ledger
from headway.scm import git
from headway.system.runners.sandbox import SandboxRunner
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


async def run(books: Ledger, commit: Source, *, trusted: bool, app: str | None = None) -> str:
    """The state in which the check ended."""
    app = app or ("shop" if trusted else "shop-pr-42")
    release = books.releases.start(app, "/repo", "main", flow_run_id=None, requested_by="ann")
    await checks.run_check.fn(
        ReleaseSession(books, release), commit.model_copy(update={"trusted": trusted}), "unit", CHECK
    )
    (stage,) = books.stages.by_release(release.id)
    return stage.state


async def test_check_results_are_not_shared_between_forks_and_the_repository(books: Ledger, commit: Source) -> None:
    assert await run(books, commit, trusted=False) == "passed"
    assert await run(books, commit, trusted=True) == "passed"
    assert await run(books, commit, trusted=True) == "cached"
    assert await run(books, commit, trusted=False) == "passed"


async def test_check_results_are_not_shared_between_apps_and_repositories(books: Ledger, commit: Source) -> None:
    """The same files and command can pass there for a reason that does not hold here."""
    other = commit.model_copy(update={"repo": "https://git.example/other"})
    assert await run(books, commit, trusted=True) == "passed"
    assert await run(books, commit, trusted=True, app="other") == "passed"
    assert await run(books, other, trusted=True) == "passed"
    assert await run(books, commit, trusted=True) == "cached"


async def test_check_of_a_fork_does_not_run_in_the_users_home(
    books: Ledger, commit: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_SECRET_A", "hunter2")
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine")
    await run(books, commit, trusted=False)
    told = (Path(commit.workspace) / "told").read_text()
    assert f"HOME={commit.workspace}.home\n" in told
    assert "hunter2" not in told
    assert "tcp://engine" not in told


async def test_a_check_without_a_network(books: Ledger, commit: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    release = ReleaseSession(books, books.releases.start("shop", "/repo", "main", flow_run_id=None, requested_by="ann"))
    count = "python3 -c 'import socket; raise SystemExit(len(socket.if_nameindex()) - 1)'"
    monkeypatch.setenv("HEADWAY_RUNNER", "host")
    with pytest.raises(CheckFailed, match="unit: its `network` is limited, which the host runner cannot do"):
        await checks.run_check.fn(release, commit, "unit", Check(run=count, network="none"))
    if refusal := SandboxRunner().missing():
        pytest.skip(f"{refusal.what}: {refusal.hint}")
    monkeypatch.setenv("HEADWAY_RUNNER", "sandbox")
    assert (await checks.run_check.fn(release, commit, "unit", Check(run=count, network="none"))).passed
    with pytest.raises(CheckFailed, match="open: exit code 1"):
        await checks.run_check.fn(release, commit, "open", Check(run=count))


class Shown(logging.Handler):
    """The messages of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


NOISE = """
import sys
write = sys.stdout.buffer.write
write(b"\\x1b[31mred\\x1b[0m caf\\xe9 \\xff\\xfe\\x00nul\\n")
write(b"x" * 5_000_000 + b"\\n")
for number in range(60_000):
    write(b"line %d of a chatty test\\n" % number)
write(b"progress 1%\\rprogress 50%\\rprogress 100%\\n")
write(b"no newline at the end " + b"z" * 50_000)
sys.exit(3)
"""


async def test_a_chatty_check_does_not_flood_the_run_s_log(
    books: Ledger, commit: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every line of the run's log is a row in the database of the Prefect server."""
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    logger = logging.Logger("noise")
    logger.addHandler(handler := Shown())
    monkeypatch.setattr(checks, "get_run_logger", lambda: logger)
    (Path(commit.workspace) / "noise.py").write_text(NOISE)
    release = books.releases.start("shop", "/repo", "main", flow_run_id=None, requested_by="ann")
    with pytest.raises(CheckFailed) as failed:
        await checks.run_check.fn(ReleaseSession(books, release), commit, "noisy", Check(run="python3 noise.py"))
    assert failed.value.what.startswith("noisy: exit code 3: no newline at the end zzz")
    assert len(failed.value.what) < 400
    said = handler.messages
    assert len(said) < 2_000
    assert sum(map(len, said)) < 500_000
    assert said[0] == "red caf\ufffd \ufffd\ufffdnul"
    assert "progress 100%" in said
    (gap,) = (line for line in said if "lines left out here" in line)
    whole = tmp_path / "home" / "output" / release.id / "noisy.log"
    assert str(whole) in gap
    kept = whole.read_text().splitlines()
    assert [line for line in kept if line.startswith("line ")] == [
        f"line {number} of a chatty test" for number in range(60_000)
    ]
    (stage,) = books.stages.by_release(release.id)
    assert len(stage.detail) < 400
