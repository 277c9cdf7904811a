"""The preview reconciler with a real ledger and a git host. Only the Prefect API is a fake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from headway.domain.errors import GitHostError
from headway.domain.events import NOTHING
from headway.domain.git import PullRequest
from headway.domain.plan import Plan
from headway.domain.ports import GitHost
from headway.ledger import Delivery, Ledger, PreviewRecord
from headway.rollout.strategies import TEARDOWN
from headway.scm.webhooks import PullRequestEvent
from headway.service.controllers import preview_reconciler as module
from headway.service.controllers.preview_reconciler import POLL_INTERVAL, START_LIMIT, STUCK_PAUSE, PreviewReconciler
from headway.service.controllers.run_retries import MAX_ATTEMPTS
from headway.testing import FakeGitHost
from tests.headway.service.controllers.test_recovery import Clock, Outside

SHA = "a" * 40
CLOSED = "the pull request is not open any more"


class Place:
    """An app at a host, and its previews."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        monkeypatch.setattr(module, "datetime", self.clock)
        monkeypatch.setattr("headway.service.controllers.run_retries.datetime", self.clock)
        monkeypatch.setattr(time, "monotonic", lambda: self.clock.time.timestamp())
        self.ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", self.clock)
        self.host = FakeGitHost()
        self.outside = Outside()
        self.wake = asyncio.Event()
        self.reconciler = PreviewReconciler(self.ledger, self.outside, self._host, self.wake)
        self.register("gitlab/acme")

    def register(self, reports: str | None) -> None:
        repo = "https://git.example/acme/shop"
        self.ledger.apps.register("shop", repo=repo, host="gitlab", secret="s", reports=reports, by="ann")

    async def _host(self, slug: str) -> GitHost:
        assert slug == "gitlab/acme"
        return self.host

    def deployed(self, number: int, *, ttl: float | None = None) -> PreviewRecord:
        name = f"shop-pr-{number}"
        self.ledger.previews.open(name, of="shop", number=number, head=SHA, fork=False)
        until = self.clock.time + timedelta(seconds=ttl) if ttl else None
        self.ledger.previews.mark_deployed(name, f"http://{name}", until)
        event = PullRequestEvent(places=(), number=number, open=True, head=SHA, ref="r", base="main", fork=False, by="")
        self.ledger.deliveries.receive([Delivery(app="shop", delivery=f"guid-{number}", event=event)])
        (came,) = self.ledger.deliveries.recent("shop", 1)
        self.ledger.deliveries.settle([came.id], "started", "")
        found = self.ledger.previews.get(name)
        assert found
        return found

    def torn_down(self) -> list[tuple[int, str]]:
        return [(asked["number"], asked["reason"]) for _, asked in self.outside.started.values()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path, monkeypatch)
    yield made
    made.ledger.close()


async def test_preview_of_an_open_pull_request_is_kept(place: Place) -> None:
    place.deployed(42)
    place.host.has_pull(42, SHA)
    assert await place.reconciler.reconcile() == []
    assert place.torn_down() == []


async def test_preview_is_torn_down_if_the_close_webhook_was_lost(place: Place) -> None:
    seen = [place.deployed(number).updated_at.isoformat() for number in (41, 42, 43)][1]
    for number in (41, 42, 43):
        place.host.has_pull(number, SHA, open=number != 42)
    assert await place.reconciler.reconcile() == [f"shop-pr-42: {CLOSED}: tearing it down"]
    assert list(place.outside.started.values()) == [
        ("teardown/remove-preview", {"app": "shop", "number": 42, "reason": CLOSED, "by": "headway", "seen": seen})
    ]


async def test_preview_unknown_to_the_host_is_kept(place: Place) -> None:
    """The token may have no access to it."""
    place.deployed(42)
    assert await place.reconciler.reconcile() == []
    assert place.torn_down() == []


async def test_unresponsive_host_leaves_only_expired_previews_to_tear_down(place: Place) -> None:
    place.deployed(41)
    place.deployed(42, ttl=60)
    place.host.has_pull(41, SHA, open=False)
    place.host.faults = [GitHostError("it does not answer")]
    assert await place.reconciler.reconcile() == ["shop: previews not compared: it does not answer"]
    place.clock.passes(60)
    await place.reconciler.reconcile()
    assert place.torn_down() == [(42, "it expired at 2026-01-01 12:01 UTC")]
    place.clock.passes(POLL_INTERVAL)
    await place.reconciler.reconcile()
    assert place.torn_down()[1:] == [(41, CLOSED)]


async def test_failing_host_is_called_once_for_all_apps(place: Place) -> None:
    for app in ("bank", "cafe"):
        where = {"repo": f"https://git.example/acme/{app}", "host": "gitlab", "reports": "gitlab/acme"}
        place.ledger.apps.register(app, **where, secret="s", by="ann")
    place.host.faults = [GitHostError("it does not answer", after=30)] * 3
    assert len(await place.reconciler.reconcile()) == 1
    place.clock.passes(29)
    assert await place.reconciler.reconcile() == []
    place.clock.passes(1)
    assert len(await place.reconciler.reconcile()) == 1  # about another app
    assert len(place.host.faults) == 1


async def test_expired_previews_do_not_wait_for_slow_hosts(place: Place) -> None:
    place.deployed(42, ttl=60)
    place.clock.passes(60)
    real = place.host.open_pull_requests
    asked: list[str] = []

    def slowly(repo: str) -> dict[int, PullRequest]:
        asked.append(repo)
        place.clock.passes(POLL_INTERVAL)
        return real(repo)

    place.host.open_pull_requests = slowly  # type: ignore[method-assign]  # of this one
    for app in ("bank", "cafe"):
        where = {"repo": f"https://git.example/acme/{app}", "host": "gitlab", "reports": "gitlab/acme"}
        place.ledger.apps.register(app, **where, secret="s", by="ann")
    await place.reconciler.reconcile()
    assert (len(place.torn_down()), len(asked)) == (1, 1)
    await place.reconciler.reconcile()
    await place.reconciler.reconcile()
    assert sorted(asked) == ["acme/bank", "acme/cafe", "acme/shop"]  # every app gets its turn


async def test_host_is_not_polled_every_round(place: Place) -> None:
    await place.reconciler.reconcile()
    place.deployed(42)
    place.host.has_pull(42, SHA, open=False)
    place.clock.passes(POLL_INTERVAL - 1)
    await place.reconciler.reconcile()
    assert place.torn_down() == []
    place.clock.passes(1)
    await place.reconciler.reconcile()
    assert place.torn_down() == [(42, CLOSED)]


async def test_without_a_host_only_the_ttl_decides(place: Place) -> None:
    place.register(None)
    place.deployed(42, ttl=60)
    place.clock.passes(59)
    assert await place.reconciler.reconcile() == []
    place.clock.passes(1)
    await place.reconciler.reconcile()
    assert len(place.torn_down()) == 1


async def test_preview_being_deployed_is_not_torn_down(place: Place) -> None:
    place.deployed(42, ttl=60)
    place.host.has_pull(42, SHA)
    going = place.ledger.releases.start("shop-pr-42", "/repo", SHA, flow_run_id="r", requested_by="x", preview=True)
    place.clock.passes(60)
    assert await place.reconciler.reconcile() == []
    place.ledger.releases.set_waiting(going.id)  # for a person, maybe for days
    await place.reconciler.reconcile()
    assert len(place.torn_down()) == 1


async def fails_to_go(place: Place) -> None:
    """A preview has expired, and every attempt to tear it down fails."""
    place.deployed(42, ttl=60)
    place.host.has_pull(42, SHA)
    place.clock.passes(60)
    for _ in range(MAX_ATTEMPTS):
        await place.reconciler.reconcile()
        place.outside.fail(place.clock.time)
        place.clock.passes(61)


async def test_failed_teardown_is_retried_up_to_a_limit(place: Place) -> None:
    await fails_to_go(place)
    (said,) = await place.reconciler.reconcile()
    assert said.endswith(f"teardown failed {MAX_ATTEMPTS} times: see the runs of the flow teardown in Prefect")
    for _ in range(2):
        place.clock.passes(5)
        assert await place.reconciler.reconcile() == [said]
    assert len(place.torn_down()) == MAX_ATTEMPTS
    known = place.ledger.previews.get("shop-pr-42")
    assert known
    assert known.given_up_at  # headway previews says so


async def test_abandoned_teardown_is_retried_later(place: Place) -> None:
    await fails_to_go(place)
    await place.reconciler.reconcile()
    place.clock.passes(STUCK_PAUSE.total_seconds())
    (said,) = await place.reconciler.reconcile()
    assert said.endswith(": tearing it down")
    assert len(place.torn_down()) == MAX_ATTEMPTS + 1


async def test_teardown_started_by_a_webhook_is_retried(place: Place) -> None:
    place.register(None)
    place.deployed(42)
    event = PullRequestEvent(places=(), number=42, open=False, head=SHA, ref="r", base="main", fork=False, by="")
    place.ledger.deliveries.receive([Delivery(app="shop", delivery="guid", event=event)])
    (came,) = place.ledger.deliveries.recent("shop", 1)
    place.ledger.deliveries.claim_start([came.id], came.id, "shop", "#42", NOTHING)
    place.ledger.deliveries.mark_started(came.id, "run of the webhook")
    place.outside.has("run of the webhook", "RUNNING")
    assert await place.reconciler.reconcile() == []
    place.outside.has("run of the webhook", "CRASHED", ended=place.clock.time)
    await place.reconciler.reconcile()
    assert place.torn_down() == [(42, "the pull request was closed")]


async def test_dead_teardown_is_retried_when_no_run_is_active(place: Place) -> None:
    place.deployed(42)
    place.host.has_pull(42, SHA)
    lock = place.ledger.locks.acquire("shop-pr-42", "preview", holder="teardown", revision="nothing", lease=30)
    assert lock
    plan = Plan(strategy=TEARDOWN, new="", old="r1", steps=())
    place.ledger.rollouts.start(
        None, "shop-pr-42", "preview", plan, kind="rollback", reason="asked for by ann", token=lock.token
    )
    assert await place.reconciler.reconcile() == []
    place.clock.passes(31)
    await place.reconciler.reconcile()
    assert place.torn_down() == [(42, "asked for by ann")]


# --- orphans ---------------------------------------------------------------------------------------------------


async def test_preview_of_an_unregistered_app_is_listed_and_expires(place: Place) -> None:
    place.deployed(41)
    place.deployed(42, ttl=60)
    place.ledger.apps.unregister("shop")
    assert await place.reconciler.reconcile() == [
        f"shop-pr-{n}: app shop is not registered any more: run `headway preview shop {n} --teardown`" for n in (41, 42)
    ]
    place.clock.passes(60)
    await place.reconciler.reconcile()
    assert [number for number, _ in place.torn_down()] == [42]


# --- lost webhooks ---------------------------------------------------------------------------------------------


async def test_open_pull_request_with_a_lost_webhook_is_queued_once(place: Place) -> None:
    place.host.has_pull(42, SHA, fork=True)
    assert await place.reconciler.reconcile() == ["shop: pull request 42 has aaaaaaa, and no webhook delivered it"]
    assert place.wake.is_set()
    (came,) = place.ledger.deliveries.recent("shop")
    assert isinstance(came.event, PullRequestEvent)
    assert (came.event.number, came.event.ref, came.event.base) == (42, "refs/merge-requests/42/head", "main")
    assert (came.event.head, came.event.open, came.event.fork) == (SHA, True, True)
    place.clock.passes(POLL_INTERVAL)
    assert await place.reconciler.reconcile() == []


async def test_newer_commit_with_a_lost_webhook_is_queued(place: Place) -> None:
    place.deployed(42)
    place.host.has_pull(42, "b" * 40)
    assert await place.reconciler.reconcile() == ["shop: pull request 42 has bbbbbbb, and no webhook delivered it"]


async def test_queue_limit_is_shared_by_all_apps(place: Place) -> None:
    repo = "https://git.example/acme/bank"
    place.ledger.apps.register("bank", repo=repo, host="gitlab", secret="s", reports="gitlab/acme", by="ann")
    for number in range(1, START_LIMIT + 3):
        place.host.has_pull(number, SHA)
    assert len(await place.reconciler.reconcile()) == START_LIMIT


async def test_reopened_pull_request_with_a_lost_webhook_is_queued_once(place: Place) -> None:
    place.deployed(42)
    place.host.has_pull(42, SHA)
    event = PullRequestEvent(places=(), number=42, open=False, head=SHA, ref="r", base="main", fork=False, by="")
    for name in ("guid", "the same again"):
        place.ledger.deliveries.receive([Delivery(app="shop", delivery=name, event=event)])
    again, closed = place.ledger.deliveries.recent("shop", 2)
    place.ledger.deliveries.claim_start([closed.id], closed.id, "shop", "#42", NOTHING)
    place.ledger.deliveries.settle([again.id], "duplicate", "it is closed, and was before")
    place.ledger.previews.close("shop-pr-42", "the pull request was closed")
    assert await place.reconciler.reconcile() == ["shop: pull request 42 has aaaaaaa, and no webhook delivered it"]
    (came,) = place.ledger.deliveries.recent("shop", 1)
    place.ledger.deliveries.settle([came.id], "ignored", "its message says so")
    place.clock.passes(POLL_INTERVAL)
    assert await place.reconciler.reconcile() == []


async def test_pull_requests_are_queued_in_batches_newest_first(place: Place) -> None:
    for number in range(1, START_LIMIT + 3):
        place.host.has_pull(number, SHA)
    await place.reconciler.reconcile()
    came = [one.ref for one in place.ledger.deliveries.recent("shop", 100)]
    assert sorted(came) == [f"#{number}" for number in range(3, START_LIMIT + 3)]
    place.clock.passes(POLL_INTERVAL)
    await place.reconciler.reconcile()
    assert len(place.ledger.deliveries.recent("shop", 100)) == START_LIMIT + 2
