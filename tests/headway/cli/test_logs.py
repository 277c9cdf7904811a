"""`headway logs` of an app with a live and an earlier revision."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headway.cli import logs as command
from headway.cli.main import app
from headway.cli.output import output
from headway.domain.log_lines import LogLine, by_time
from headway.domain.plan import Plan
from headway.domain.revision import Artifact, LaunchSpec
from headway.ledger import Ledger
from headway.system.paths import ledger_url
from headway.testing.fakes import FakeTarget

SPEC = LaunchSpec(
    environment="production",
    target="fake/production",
    artifact=Artifact(digest="sha256:" + "a" * 64, location="/", size=1),
)
OLD, LIVE, NEXT = (SPEC.revision("shop", digit * 40) for digit in "abc")
AT = datetime(2026, 5, 4, 3, 2, 1, 250_000, tzinfo=UTC)


class Talking(FakeTarget):
    """A target whose instances print lines; `coming` are those that a follower sees."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[LogLine] = []
        self.coming: list[Callable[[], LogLine]] = []

    def logs(
        self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        def wanted(line: LogLine) -> bool:
            return revision is None or revision in line.instance

        yield from filter(wanted, by_time(self.said)[-lines:])
        if follow:
            yield from filter(wanted, (line() for line in self.coming))


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talking:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    monkeypatch.setattr(output, "json", False)
    talking = Talking()

    class Blocks:
        async def load_target(self, name: str) -> Talking:
            assert name == SPEC.target
            return talking

    monkeypatch.setattr(command, "connections", Blocks)
    with Ledger.open(ledger_url()) as ledger:
        for revision in (OLD, LIVE):
            ledger.revisions.save(revision, SPEC)
            lock = ledger.locks.acquire("shop", "production", holder="test", revision=revision.id, lease=60)
            assert lock is not None
            plan = Plan(strategy="rolling", new=revision.id, old=None, steps=())
            rollout = ledger.rollouts.start(
                None, "shop", "production", plan, kind="release", reason="", token=lock.token
            )
            ledger.rollouts.finish(rollout.id, "done")
            ledger.locks.release(lock)
    for second, (revision, instance, text) in enumerate(
        [(LIVE, "a", "one"), (OLD, "z", "earlier"), (LIVE, "b", "two"), (LIVE, "a", "three")]
    ):
        talking.said.append(LogLine(f"shop-{revision.id}-{instance}", text, AT + timedelta(seconds=second)))
    talking.said.sort()  # by instance, as they are read
    return talking


def run(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["logs", "shop", "production", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output.splitlines()


def test_the_lines_are_of_the_live_revision_in_order_with_their_times(target: Talking) -> None:
    assert run() == [
        f"2026-05-04 03:02:01.250 shop-{LIVE.id}-a: one",
        f"2026-05-04 03:02:03.250 shop-{LIVE.id}-b: two",
        f"2026-05-04 03:02:04.250 shop-{LIVE.id}-a: three",
    ]


def test_other_revisions_are_printed_when_asked_for(target: Talking) -> None:
    assert [line[-7:] for line in run("--revision", OLD.sha[:7])] == ["earlier"]
    assert [line.rpartition(": ")[2] for line in run("--all")] == ["one", "earlier", "two", "three"]


def test_following_shows_the_new_lines_of_the_next_release_too(target: Talking) -> None:
    def said(revision: str, text: str) -> Callable[[], LogLine]:
        return lambda: LogLine(f"shop-{revision}-n", text, datetime.now(UTC))

    target.coming = [said(LIVE.id, "four"), said(NEXT.id, "started"), said(OLD.id, "stopped")]

    followed = [line.rpartition(": ")[2] for line in run("--follow")]
    only = [line.rpartition(": ")[2] for line in run("--follow", "--revision", LIVE.id)]

    assert followed == ["one", "two", "three", "four", "started", "stopped"]
    assert only == ["one", "two", "three", "four"]


def test_json_has_the_time_the_instance_and_the_text(target: Talking) -> None:
    (first, *_) = json.loads("\n".join(run("--json")))

    assert first == {"instance": f"shop-{LIVE.id}-a", "text": "one", "at": str(AT)}
