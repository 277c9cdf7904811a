"""From a real inbox and real repositories to runs. Only the Prefect API is a fake."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headway.domain.errors import GitHostError, HeadwayError, NotFound, ServiceUnavailable
from headway.domain.events import NOTHING, MergeGroupEvent
from headway.domain.git import PullRequest
from headway.domain.plan import Plan
from headway.domain.ports import GitHost
from headway.domain.revision import Artifact, LaunchSpec
from headway.ledger import Delivery, DeliveryRecord, Ledger
from headway.scm import git
from headway.scm.webhooks import PullRequestEvent, PushEvent
from headway.service.controllers.dispatcher import Dispatcher, dispatch
from headway.service.controllers.push_handler import PushHandler
from headway.service.controllers.trigger_handler import EARLY_ATTEMPTS, MAX_ATTEMPTS
from headway.service.prefect.client import Control
from headway.testing import FakeGitHost
from tests.standins.repositories import Repository

pytestmark = pytest.mark.slow

MAIN = "refs/heads/main"
SETTINGS = """
app: shop
run: serve
on:
  tags: ["v*"]
  paths: [src/, "!src/docs/"]
environments:
  preview: {target: process/preview}
  production: {target: process/production}
"""


class Clock:
    """A clock that only advances when the test does it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def passes(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Outside(Control):
    """A Prefect API in memory that starts one run per idempotency key."""

    def __init__(self) -> None:
        self.url = "http://prefect/api"
        self.runs: dict[str, dict[str, Any]] = {}
        self.flows: dict[str, str] = {}
        self.down = False
        self.dies = False

    def start(
        self,
        deployment: str,
        parameters: dict[str, Any],
        *,
        idempotency_key: str | None = None,
        creator: Mapping[str, str] | None = None,
    ) -> str:
        assert idempotency_key
        if self.down:
            raise ServiceUnavailable("the Prefect server does not answer")
        self.runs.setdefault(f"run-{idempotency_key[:24]}", parameters)
        self.flows.setdefault(f"run-{idempotency_key[:24]}", deployment)
        if self.dies:
            self.dies = False
            raise KeyboardInterrupt  # we die before we can write it down
        return f"run-{idempotency_key[:24]}"

    @property
    def released(self) -> list[str]:
        assert set(self.flows.values()) <= {"release/release-commit"}
        return [run["ref"] for run in self.runs.values()]

    @property
    def pulls(self) -> list[tuple[str, int, str]]:
        """The flow, the pull request, and its commit or why it is torn down."""
        runs = zip(self.flows.values(), self.runs.values(), strict=True)
        return [(flow.partition("/")[0], run["number"], run.get("sha") or run["reason"]) for flow, run in runs]


class Place:
    """An app's repository, the inbox, and what starts."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = Clock()
        self.ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", self.clock)
        self.outside = Outside()
        self.workspaces = tmp_path / "workspaces"
        self.repo = Repository(tmp_path / "shop")
        self.first = self.repo.commit(headway_dot_yaml=SETTINGS, src__a="1")
        self.ledger.apps.register("shop", repo=str(self.repo.path), host="generic", secret="s", by="ann")
        self._names = itertools.count()
        self.host: FakeGitHost | HeadwayError | None = None

    def hears(self, after: str, before: str | None = None, ref: str = MAIN, *, later: float = 60) -> None:
        """Receive a webhook this many seconds after the one before."""
        self.clock.passes(later)
        push = PushEvent(places=(), ref=ref, before=before, after=after, by="ann")
        self.ledger.deliveries.receive([Delivery(app="shop", delivery=f"guid-{next(self._names)}", event=push)])

    def dispatch(self) -> list[str]:
        """As the dispatcher does: pushes and pull requests apart."""
        due, said = self.ledger.deliveries.due(), list[str]()
        for kind in dict.fromkeys(one.event.kind for one in due):
            ours = [one for one in due if one.event.kind == kind]
            said += dispatch(self.ledger, self.outside, self.workspaces, ours, self.host)
        return said

    def released(self, after: str, before: str | None = None, ref: str = MAIN) -> list[str]:
        """Dispatch this push; return all runs started so far."""
        self.hears(after, before, ref)
        self.dispatch()
        return self.outside.released

    def pull(self, head: str, number: int = 42, *, later: float = 60, **said: Any) -> list[tuple[str, int, str]]:
        """Dispatch this pull request event, whose commit exists; return all runs started so far."""
        self.clock.passes(later)
        self.repo.git("update-ref", f"refs/pull/{number}/head", head)
        known = {"open": True, "ref": f"refs/pull/{number}/head", "base": "main", "fork": False, "by": "bob"}
        event = PullRequestEvent(places=(), number=number, head=head, **{**known, **said})
        self.ledger.deliveries.receive([Delivery(app="shop", delivery=f"guid-{next(self._names)}", event=event)])
        self.dispatch()
        return self.outside.pulls

    def group(self, head: str, base: str = "main") -> None:
        """The host wants a merge group to be checked."""
        self.clock.passes(60)
        event = MergeGroupEvent(places=(), ref=QUEUE, head=head, base=base, by="ann")
        self.ledger.deliveries.receive([Delivery(app="shop", delivery=f"guid-{next(self._names)}", event=event)])
        self.dispatch()

    def change(self, subject: str = "Change", **files: str) -> str:
        """A commit that is on no branch of the repository."""
        self.repo.git("checkout", "--quiet", "--detach", self.first)
        made = self.repo.commit(subject, **files)
        self.repo.git("checkout", "--quiet", "main")
        return made

    @property
    def newest(self) -> DeliveryRecord:
        return self.ledger.deliveries.recent("shop", 1)[0]

    def states(self) -> list[str]:
        """The oldest first."""
        return [one.state for one in reversed(self.ledger.deliveries.recent("shop", 1000))]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.ledger.close()


def test_a_push_to_the_branch_is_released(place: Place) -> None:
    assert place.released(place.first) == [place.first]
    (asked,) = place.outside.runs.values()
    assert asked == {"repo": str(place.repo.path), "ref": place.first, "by": "ann at generic"}
    assert (place.newest.state, place.newest.sha, place.newest.flow_run_id) == (
        "started",
        place.first,
        next(iter(place.outside.runs)),
    )


def test_only_the_registered_repository_is_fetched(place: Place, tmp_path: Path) -> None:
    """Other repository URLs in a delivery are ignored."""
    push = PushEvent(places=(str(tmp_path / "evil"),), ref=MAIN, before=None, after=place.first, by="mallory")
    place.ledger.deliveries.receive([Delivery(app="shop", delivery="guid", event=push)])
    place.dispatch()
    assert [run["repo"] for run in place.outside.runs.values()] == [str(place.repo.path)]


# --- which pushes ----------------------------------------------------------------------------------------------


def test_another_branch_starts_nothing(place: Place) -> None:
    place.repo.git("branch", "feature")
    assert place.released(place.first, ref="refs/heads/feature") == []
    assert (place.newest.state, place.newest.detail) == (
        "ignored",
        f"{place.first[:7]}: only pushes to main start a release",
    )


@pytest.mark.parametrize(("tag", "annotated", "released"), [("v1", False, 1), ("v2", True, 1), ("w1", False, 0)])
def test_a_tag_is_released_when_a_pattern_fits(place: Place, tag: str, annotated: bool, released: int) -> None:
    place.repo.git("tag", *(["-a", "-m", "one"] if annotated else []), tag)
    named = place.repo.git("rev-parse", tag)
    assert place.released(named, ref=f"refs/tags/{tag}") == [place.first] * released


def test_push_of_excluded_paths_starts_nothing(place: Place) -> None:
    place.released(place.first)
    readme = place.repo.commit(README="hello", src__docs__a="hello")
    assert place.released(readme, place.first) == [place.first]
    assert place.newest.detail == f"{readme[:7]}: no changed path matches on/paths"


def test_changes_are_compared_with_the_last_release(place: Place) -> None:
    """Of two coalesced pushes, only the first changes relevant paths."""
    place.released(place.first)
    code = place.repo.commit(src__a="2")
    place.hears(code, place.first)
    readme = place.repo.commit(README="hello")
    assert place.released(readme, code) == [place.first, readme]


def test_a_commit_may_ask_to_be_skipped(place: Place) -> None:
    skipped = place.repo.commit("Tidy up\n\n[skip headway]", src__a="2")
    assert place.released(skipped, place.first) == []
    assert place.newest.detail == f"{skipped[:7]}: the commit message has [skip headway]"


def test_invalid_settings_start_a_release_that_reports_them(place: Place) -> None:
    wrong = place.repo.commit(headway_dot_yaml="app: shop\nbranch: main\ncheks: {}\n")
    assert place.released(wrong, place.first) == [wrong]


def test_invalid_settings_keep_the_previous_branch(place: Place) -> None:
    trunk = place.repo.commit(headway_dot_yaml=SETTINGS.replace("\non:", "\nbranch: trunk\non:"))
    place.repo.git("branch", "trunk")
    wrong = place.repo.commit(headway_dot_yaml="app: [")
    assert place.released(wrong, trunk) == []
    place.repo.git("checkout", "--quiet", "trunk")
    wrong = place.repo.commit(headway_dot_yaml="app: [")
    assert place.released(wrong, trunk, "refs/heads/trunk") == [wrong]


def test_a_repository_cannot_release_another_app(place: Place) -> None:
    other = place.repo.commit(headway_dot_yaml=SETTINGS.replace("app: shop", "app: bank"))
    assert place.released(other, place.first) == []
    assert "is registered as shop" in place.newest.detail


def test_deleted_branch_starts_nothing(place: Place) -> None:
    place.hears(place.first, ref="refs/heads/gone")
    place.dispatch()
    assert (place.newest.state, place.newest.detail) == ("ignored", "refs/heads/gone does not exist any more")


# --- no commit says of itself that it is released --------------------------------------------------------------


def test_a_branch_that_names_itself_starts_nothing(place: Place) -> None:
    place.repo.git("checkout", "--quiet", "-b", "mine")
    mine = place.repo.commit(headway_dot_yaml=SETTINGS.replace("\non:", "\nbranch: mine\non:"), src__a="2")
    place.repo.git("checkout", "--quiet", "main")
    assert place.released(mine, place.first, "refs/heads/mine") == []
    assert place.newest.detail == f"{mine[:7]}: only pushes to main start a release"


def test_a_tagged_commit_that_allows_its_tag_starts_nothing(place: Place) -> None:
    place.repo.git("checkout", "--quiet", "-b", "mine")
    mine = place.repo.commit(headway_dot_yaml=SETTINGS.replace('"v*"', '"*"'), src__a="2")
    place.repo.git("tag", "w1")
    place.repo.git("checkout", "--quiet", "main")
    assert place.released(mine, ref="refs/tags/w1") == []
    assert place.newest.detail == f"{mine[:7]}: no pattern of on/tags matches w1"


def test_a_pull_request_that_names_its_base_is_not_shown(place: Place) -> None:
    place.repo.git("branch", "other")
    theirs = place.change(headway_dot_yaml=SETTINGS.replace("\non:", "\nbranch: other\non:"), src__a="2")
    assert place.pull(theirs, base="other") == []
    assert place.newest.detail.endswith("it is into other: only pull requests into main have previews")
    assert place.pull(theirs, base="main") == [("preview", 42, theirs)]


def test_the_default_branch_names_another_one(place: Place) -> None:
    place.repo.git("branch", "stable")
    place.repo.commit(headway_dot_yaml=SETTINGS.replace("\non:", "\nbranch: stable\non:"))
    assert place.released(place.repo.git("rev-parse", "main"), place.first) == []
    assert place.released(place.first, ref="refs/heads/stable") == [place.first]


def test_the_registration_names_the_branch_whatever_files_say(place: Place) -> None:
    place.ledger.apps.register("shop", repo=str(place.repo.path), host="generic", secret="s", by="ann", branch="stable")
    place.repo.git("branch", "stable")
    assert place.released(place.first) == []
    assert place.newest.detail == f"{place.first[:7]}: only pushes to stable start a release"
    assert place.released(place.first, ref="refs/heads/stable") == [place.first]


def test_another_branch_waits_while_the_file_of_the_default_branch_is_invalid(place: Place) -> None:
    place.repo.git("branch", "stable")
    place.repo.commit(headway_dot_yaml="app: [")
    assert place.released(place.first, ref="refs/heads/stable") == []
    assert (place.newest.state, place.newest.tries) == ("waiting", 1)
    place.repo.commit(headway_dot_yaml=SETTINGS.replace("\non:", "\nbranch: stable\non:"))
    place.clock.passes(60)
    place.dispatch()
    assert place.outside.released == [place.first]


def live(place: Place, sha: str) -> None:
    """Make a commit the live one of production."""
    digest = "sha256:" + "a" * 64
    spec = LaunchSpec(environment="production", artifact=Artifact(digest=digest, location="/", size=1))
    revision = spec.revision("shop", sha)
    place.ledger.revisions.save(revision, spec)
    lock = place.ledger.locks.acquire("shop", "production", holder="h", revision=revision.id, lease=60)
    assert lock
    plan = Plan(strategy="rolling", new=revision.id, old=None, steps=())
    record = place.ledger.rollouts.start(None, "shop", "production", plan, kind="release", reason="", token=lock.token)
    place.ledger.rollouts.finish(record.id, "done")


def test_a_tag_on_a_commit_older_than_what_is_live_starts_nothing(place: Place) -> None:
    newer = place.repo.commit(src__a="2")
    place.released(newer, place.first)
    live(place, newer)
    place.repo.git("tag", "v1", place.first)
    place.repo.git("tag", "v2", newer)
    assert place.released(place.first, ref="refs/tags/v1") == [newer]
    assert place.newest.detail == (
        f"{place.first[:7]}: production runs {newer[:7]}, which is newer: to go back, run headway release --ref TAG"
    )
    newest = place.repo.commit(src__a="3")
    place.repo.git("tag", "v3")
    assert place.released(newest, ref="refs/tags/v3") == [newer, newest]


# --- merge queues ----------------------------------------------------------------------------------------------

QUEUE = "refs/heads/gh-readonly-queue/main/pr-42-1234567"


def test_a_merge_group_is_checked(place: Place) -> None:
    head = place.change(src__a="2")
    place.repo.git("update-ref", QUEUE, head)
    place.group(head)
    (run,) = place.outside.runs.values()
    assert list(place.outside.flows.values()) == ["merge-group/check-merge-group"]
    assert run == {"app": "shop", "sha": head, "by": "ann at generic"}
    (release,) = place.ledger.releases.recent("shop.queue")
    assert release.sha == head
    assert "shop.queue" not in place.ledger.releases.apps()
    place.group(head)
    assert place.newest.state == "duplicate"
    place.hears(head, ref=QUEUE)
    place.dispatch()
    assert place.newest.detail == f"{head[:7]}: only pushes to main start a release"
    assert len(place.outside.runs) == 1


def test_a_merge_group_without_changes_that_count_is_checked_too(place: Place) -> None:
    """Its queue would wait for the status for ever."""
    head = place.change("Words [skip headway]", README="hello")
    place.repo.git("update-ref", QUEUE, head)
    place.group(head)
    assert len(place.outside.runs) == 1


def test_a_merge_group_into_another_branch_starts_nothing(place: Place) -> None:
    head = place.change(src__a="2")
    place.repo.git("update-ref", QUEUE, head)
    place.group(head, base="other")
    assert place.newest.detail == f"{head[:7]}: it is into other: only main is released"


def test_a_merge_group_that_was_given_up_is_forgotten(place: Place) -> None:
    head = place.change(src__a="2")
    place.group(head)
    for _ in range(EARLY_ATTEMPTS):
        place.clock.passes(60)
        place.dispatch()
    assert place.newest.detail == f"{QUEUE} does not exist any more"


def test_a_pull_request_into_another_base_is_checked_anew(place: Place) -> None:
    place.repo.git("branch", "other")
    head = place.change(src__a="2")
    assert place.pull(head, base="other") == []
    assert place.pull(head, base="main") == [("preview", 42, head)]
    place.repo.git("checkout", "--quiet", "main")
    place.repo.commit(headway_dot_yaml=SETTINGS.replace("\non:", "\nbranch: other\non:"))
    assert place.pull(head, base="other") == [("preview", 42, head), ("preview", 42, head)]
    assert place.pull(head, base="other") == [("preview", 42, head), ("preview", 42, head)]
    assert place.newest.state == "duplicate"


# --- once, in commit order, and none is lost -------------------------------------------------------------------


def test_the_same_push_in_another_delivery_is_a_duplicate(place: Place) -> None:
    place.released(place.first)
    assert place.released(place.first) == [place.first]
    assert place.states() == ["started", "duplicate"]


def test_burst_of_pushes_starts_one_release_of_the_last(place: Place) -> None:
    pushes = [place.repo.commit(src__a=str(number)) for number in range(50)]
    for before, after in itertools.pairwise([place.first, *pushes]):
        place.hears(after, before)
    place.dispatch()
    assert place.outside.released == [pushes[-1]]
    assert place.states() == ["superseded"] * 49 + ["started"]
    assert {one.followed_by for one in place.ledger.deliveries.recent("shop", 50)} == {None, place.newest.id}


def test_burst_in_any_order_releases_the_last_commit(place: Place) -> None:
    pushes = [place.repo.commit(src__a=str(number)) for number in range(5)]
    for after in (pushes[4], pushes[1], pushes[3]):
        place.hears(after)
    place.dispatch()
    for after in (pushes[0], pushes[2]):
        place.hears(after)
    place.dispatch()
    assert place.outside.released == [pushes[4]]
    assert place.states() == ["started", "superseded", "superseded", "duplicate", "duplicate"]


def test_pushes_soon_after_a_start_are_coalesced(place: Place) -> None:
    place.released(place.first)
    for number in range(3):
        newer = place.repo.commit(src__a=f"{number}")
        place.hears(newer, later=0.5)
        place.dispatch()
    assert place.states() == ["started", "waiting", "waiting", "waiting"]
    place.clock.passes(2)
    place.dispatch()
    assert place.outside.released == [place.first, newer]
    assert place.states() == ["started", "superseded", "superseded", "started"]


def test_newer_push_is_the_successor_of_an_older_one(place: Place) -> None:
    place.released(place.first)
    older = place.newest.flow_run_id
    assert older
    assert place.ledger.deliveries.successor(older) is None
    newer = place.repo.commit(src__a="2")
    place.released(newer, place.first)
    follower = place.ledger.deliveries.successor(older)
    assert follower
    assert (follower.sha, follower.flow_run_id) == (newer, place.newest.flow_run_id)
    assert place.ledger.deliveries.successor(str(place.newest.flow_run_id)) is None


def test_push_with_a_lost_webhook_is_released_with_the_next_one(place: Place) -> None:
    newer = place.repo.commit(src__a="2")
    assert place.released(place.first) == [newer]
    assert place.released(newer, place.first) == [newer]


def test_force_push_to_an_older_commit_is_released(place: Place) -> None:
    newer = place.repo.commit(src__a="2")
    place.released(newer, place.first)
    place.repo.git("reset", "--quiet", "--hard", place.first)
    assert place.released(place.first, newer) == [newer, place.first]


def test_replayed_delivery_does_not_release_an_older_commit(place: Place) -> None:
    """An old delivery is replayed with another id; the branch has another commit by now."""
    place.released(place.first)
    newer = place.repo.commit(src__a="2")
    place.released(newer, place.first)
    assert place.released(place.first) == [place.first, newer]
    assert place.newest.state == "duplicate"


def test_commit_not_yet_in_the_repository_is_retried(place: Place) -> None:
    """The webhook arrives before the commit is in the replica that is fetched."""
    place.released(place.first)
    elsewhere = Repository(place.repo.path.with_name("elsewhere"))
    elsewhere.git("fetch", "--quiet", str(place.repo.path), "main")
    elsewhere.git("reset", "--quiet", "--hard", "FETCH_HEAD")
    late = elsewhere.commit(src__a="2")
    place.hears(late, place.first)
    place.dispatch()
    assert place.states() == ["started", "waiting"]
    place.repo.git("pull", "--quiet", str(elsewhere.path), "HEAD")
    assert place.dispatch() == []  # its time has not come
    place.clock.passes(1)
    place.dispatch()
    assert place.outside.released == [place.first, late]


def test_missing_commit_does_not_block_the_branch(place: Place) -> None:
    place.hears("9" * 40)
    for _ in range(EARLY_ATTEMPTS):
        place.dispatch()
        assert place.outside.released == []
        place.clock.passes(60)
    place.dispatch()
    assert place.outside.released == [place.first]


def test_release_is_recorded_before_its_run_starts(place: Place) -> None:
    place.released(place.first)
    (release,) = place.ledger.releases.recent("shop")
    assert (release.state, release.sha, release.requested_by) == ("running", place.first, "ann at generic")
    assert release.flow_run_id == place.newest.flow_run_id
    assert place.ledger.statuses.releases_to_report(["shop"]) == [release]


def test_restart_after_a_crash_requests_the_same_run(place: Place) -> None:
    place.hears(place.first)
    place.outside.dies = True
    with pytest.raises(KeyboardInterrupt):
        place.dispatch()
    place.repo.commit(src__a="2")  # what comes meanwhile makes it no other
    place.dispatch()
    assert place.outside.released == [place.first]
    assert place.newest.state == "started"
    assert [release.sha for release in place.ledger.releases.recent("shop")] == [place.first]


def test_unreachable_prefect_server_is_retried(place: Place) -> None:
    place.hears(place.first)
    place.outside.down = True
    with pytest.raises(ServiceUnavailable):
        place.dispatch()
    place.outside.down = False
    place.dispatch()
    assert place.outside.released == [place.first]


def test_concurrent_dispatchers_start_one_run(place: Place) -> None:
    place.hears(place.first)
    due = place.ledger.deliveries.due()
    for _ in range(2):
        dispatch(place.ledger, place.outside, place.workspaces, due)
    place.hears(place.first)
    assert not place.ledger.deliveries.claim_start([place.newest.id], place.newest.id, "shop", MAIN, place.first)
    assert place.outside.released == [place.first]


def test_unreachable_repository_is_retried_for_a_while(place: Place) -> None:
    away = place.repo.path.with_name("away")
    place.repo.path.rename(away)
    place.hears(place.first)
    for _ in range(3):
        place.dispatch()
        place.clock.passes(60)
    assert place.states() == ["waiting"]
    away.rename(place.repo.path)
    place.dispatch()
    assert place.outside.released == [place.first]


def test_unreachable_repository_is_reported(place: Place) -> None:
    shutil.rmtree(place.repo.path)
    place.hears(place.first)
    for _ in range(MAX_ATTEMPTS):
        place.dispatch()
        place.clock.passes(600)
    assert place.newest.state == "failed"
    assert "no such directory" in place.newest.detail
    assert place.dispatch() == []


def test_removed_app_has_no_pending_deliveries(place: Place) -> None:
    place.hears(place.first)
    place.ledger.apps.unregister("shop")
    assert place.dispatch() == []
    assert place.newest.state == "ignored"


# --- pull requests ---------------------------------------------------------------------------------------------


def test_pull_request_gets_a_preview(place: Place) -> None:
    head = place.change(src__a="2")
    assert place.pull(head, fork=True) == [("preview", 42, head)]
    (asked,) = place.outside.runs.values()
    assert asked == {
        "app": "shop",
        "number": 42,
        "sha": head,
        "base": "main",
        "fork": True,
        "by": "bob at generic",
    }
    known = place.ledger.previews.get("shop-pr-42")
    assert known
    assert (known.of, known.number, known.head, known.fork, known.active) == ("shop", 42, head, True, True)


def test_newer_commit_supersedes_only_its_own_pull_request(place: Place) -> None:
    first, second = place.change(src__a="2"), place.change(src__a="3")
    place.pull(first)
    older = str(place.newest.flow_run_id)
    place.pull(first, 43)
    assert place.pull(second) == [("preview", 42, first), ("preview", 43, first), ("preview", 42, second)]
    follower = place.ledger.deliveries.successor(older)
    assert follower
    assert follower.sha == second
    place.hears(place.first)
    place.dispatch()
    assert place.ledger.deliveries.successor(str(place.newest.flow_run_id)) is None


def test_closed_pull_request_is_torn_down_once(place: Place) -> None:
    head = place.change(src__a="2")
    place.pull(head)
    run = str(place.newest.flow_run_id)
    for _ in range(2):
        started = place.pull(head, open=False)
    assert started == [("preview", 42, head), ("teardown", 42, "the pull request was closed")]
    assert place.states() == ["started", "started", "duplicate"]
    follower = place.ledger.deliveries.successor(run)  # what still goes on for it is broken off
    assert follower
    assert follower.sha == NOTHING


def test_reopened_pull_request_gets_a_preview(place: Place) -> None:
    head = place.change(src__a="2")
    place.pull(head)
    place.pull(head, open=False)
    place.ledger.previews.close("shop-pr-42", "the pull request was closed")
    assert place.pull(head)[2:] == [("preview", 42, head)]
    assert place.pull(head)[3:] == []


def test_expired_preview_is_deployed_again_on_request(place: Place) -> None:
    head = place.change(src__a="2")
    place.pull(head)
    assert place.pull(head)[1:] == []
    place.ledger.previews.close("shop-pr-42", "its time was over")
    assert place.pull(head)[1:] == [("preview", 42, head)]


def test_manually_started_preview_is_torn_down_on_close(place: Place) -> None:
    head = place.change(src__a="2")
    place.ledger.previews.open("shop-pr-42", of="shop", number=42, head=head, fork=False)
    assert place.pull(head, open=False) == [("teardown", 42, "the pull request was closed")]


def test_manual_request_is_processed_again(place: Place) -> None:
    head = place.change(src__a="2")
    place.pull(head)
    assert place.pull(head, again=True)[1:] == [("preview", 42, head)]


def test_pull_request_without_a_preview_is_not_torn_down(place: Place) -> None:
    assert place.pull(place.change(src__a="2"), open=False) == []
    assert place.newest.detail == "it is closed and has no preview"


def test_commits_in_quick_succession_make_one_preview_of_the_last(place: Place) -> None:
    heads = [place.change(src__a=str(number)) for number in range(2, 6)]
    place.pull(heads[0])
    for head in heads[1:]:
        place.pull(head, later=0.5)
    assert place.states() == ["started", "waiting", "waiting", "waiting"]
    place.clock.passes(2)
    place.dispatch()
    assert place.outside.pulls == [("preview", 42, heads[0]), ("preview", 42, heads[-1])]
    assert place.states() == ["started", "superseded", "superseded", "started"]


def test_pull_request_for_another_branch_gets_no_preview(place: Place) -> None:
    place.repo.git("branch", "other")
    assert place.pull(place.change(src__a="2"), base="other") == []
    assert place.newest.detail.endswith("it is into other: only pull requests into main have previews")


def test_a_commit_of_a_pull_request_may_ask_to_be_skipped(place: Place) -> None:
    assert place.pull(place.change("Tidy up [skip headway]", src__a="2")) == []
    assert "the commit message has [skip headway]" in place.newest.detail


def test_pull_request_of_excluded_paths_gets_no_preview(place: Place) -> None:
    """Changes are compared with the merge base; the branch has newer commits."""
    readme = place.change(README="hello")
    place.repo.commit(src__a="5")
    assert place.pull(readme) == []
    assert place.newest.detail.endswith("no changed path matches on/paths")
    assert len(place.pull(place.change(src__a="2"))) == 1


def test_pull_request_without_checks_and_preview_environment_starts_nothing(place: Place) -> None:
    bare = SETTINGS.replace("  preview: {target: process/preview}\n", "")
    assert place.pull(place.change(headway_dot_yaml=bare)) == []
    assert place.newest.detail.endswith("headway.yaml has no checks and no environment preview")
    assert len(place.pull(place.change(headway_dot_yaml=bare + "checks: {unit: pytest}\n"))) == 1


def test_invalid_headway_yaml_starts_a_run_that_reports_it(place: Place) -> None:
    assert len(place.pull(place.change(headway_dot_yaml="app: ["))) == 1


def test_a_pull_request_cannot_be_that_of_another_app(place: Place) -> None:
    bank = place.change(headway_dot_yaml=SETTINGS.replace("app: shop", "app: bank"))
    assert place.pull(bank) == []
    assert "is registered as shop" in place.newest.detail


def test_headway_yaml_of_a_fork_is_ignored(place: Place) -> None:
    theirs = place.change(headway_dot_yaml=SETTINGS.replace("\non:", "\nbranch: other\non:"), src__a="2")
    place.repo.git("branch", "other")
    assert place.pull(theirs, base="other", fork=True) == []
    assert place.pull(theirs, base="main", fork=True) == [("preview", 42, theirs)]


def test_app_named_like_a_preview_keeps_its_name(place: Place) -> None:
    place.ledger.releases.start("shop-pr-42", "/elsewhere", "main", flow_run_id=None, requested_by="ann")
    assert place.pull(place.change(src__a="2")) == []
    assert "an app has this name" in place.newest.detail


def test_branch_of_a_fork_is_not_fetched_from_the_repository(place: Place) -> None:
    """Hosts without a ref per pull request: the repository may have a branch of the same name."""
    assert place.pull(place.change(src__a="2"), ref=MAIN, fork=True) == []
    assert "generic does not share the commits of forks" in place.newest.detail


# --- what the host says of them --------------------------------------------------------------------------------


@pytest.fixture
def host(place: Place) -> FakeGitHost:
    place.host = FakeGitHost()
    return place.host


def test_replayed_opening_does_not_reopen_a_closed_pull_request(place: Place, host: FakeGitHost) -> None:
    head = place.change(src__a="2")
    host.has_pull(42, head, open=False)
    assert place.pull(head, open=True) == []


def test_replayed_closing_does_not_tear_down_an_open_pull_request(place: Place, host: FakeGitHost) -> None:
    head = place.change(src__a="2")
    host.has_pull(42, head)
    place.pull(head)
    assert place.pull(head, open=False) == [("preview", 42, head)]


def test_host_decides_whether_a_pull_request_is_a_fork(place: Place, host: FakeGitHost) -> None:
    head = place.change(src__a="2")
    host.has_pull(42, head, fork=True)
    place.pull(head, fork=False)
    known = place.ledger.previews.get("shop-pr-42")
    assert known
    assert known.fork
    assert [run["fork"] for run in place.outside.runs.values()] == [True]


def test_pull_request_unknown_to_the_host_is_retried(place: Place, host: FakeGitHost) -> None:
    """The webhook arrives before the API knows the pull request, or the token has no access to it."""
    head = place.change(src__a="2")
    assert place.pull(head) == []
    assert (place.newest.state, place.newest.detail) == ("waiting", "generic has no pull request 42")
    host.has_pull(42, head)
    place.clock.passes(60)
    place.dispatch()
    assert place.outside.pulls == [("preview", 42, head)]


def test_pull_request_commit_not_yet_in_the_repository_is_retried(place: Place, host: FakeGitHost) -> None:
    old, new = place.change(src__a="2"), place.change(src__a="3")
    host.has_pull(42, new)
    assert place.pull(old) == []
    assert place.newest.state == "waiting"
    place.repo.git("update-ref", "refs/pull/42/head", new)
    place.clock.passes(60)
    place.dispatch()
    assert place.outside.pulls == [("preview", 42, new)]


def test_unresponsive_host_is_retried(place: Place, host: FakeGitHost) -> None:
    head = place.change(src__a="2")
    host.has_pull(42, head)
    host.faults = [GitHostError("it does not answer")]
    assert place.pull(head) == []
    assert (place.newest.state, place.newest.detail) == ("waiting", "it does not answer")
    place.clock.passes(60)
    place.dispatch()
    assert place.outside.pulls == [("preview", 42, head)]


def test_trees_are_compared_only_with_path_filters(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_end(*_: object) -> None:
        raise AssertionError("compared")

    monkeypatch.setattr(git, "changed_paths", without_end)
    settings = SETTINGS.replace('  paths: [src/, "!src/docs/"]\n', "")
    head = place.change(headway_dot_yaml=settings, src__a="2")
    assert place.pull(head) == [("preview", 42, head)]


def test_host_block_that_cannot_be_loaded_does_not_block_pushes(place: Place) -> None:
    place.host = NotFound("no block gitea/x")
    assert place.pull(place.change(src__a="2")) == []
    assert place.newest.state == "waiting"
    assert place.released(place.first) == [place.first]


async def reconcile(dispatcher: Dispatcher) -> list[str]:
    """As the runner does."""
    dispatcher.wake.clear()
    return await dispatcher.reconcile()


async def test_hanging_host_does_not_delay_others(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    real = git.fetch_tip

    async def load_git_host(slug: str) -> GitHost:
        raise NotFound(f"no git host {slug}")

    def fetch(repo: str, *arguments: Any, **options: Any) -> Any:
        if repo == "https://hangs.example/slow":
            released.wait(60)
            return None
        return real(repo, *arguments, **options)

    monkeypatch.setattr(git, "fetch_tip", fetch)
    place.ledger.apps.register("slow", repo="https://hangs.example/slow", host="generic", secret="s", by="ann")
    push = PushEvent(places=(), ref=MAIN, before=None, after=place.first, by="ann")
    place.ledger.deliveries.receive([Delivery(app="slow", delivery="guid", event=push)])
    place.hears(place.first)
    dispatcher = Dispatcher(place.ledger, place.outside, place.workspaces, load_git_host)
    try:
        await reconcile(dispatcher)
        await dispatcher.wake.wait()
        assert [line.split(":")[0] for line in await reconcile(dispatcher)] == [f"shop {MAIN}", f"shop {MAIN}"]
        assert place.outside.released == [place.first]
    finally:
        released.set()
    await dispatcher.wake.wait()
    assert await reconcile(dispatcher) == [f"slow {MAIN}: starts nothing: {MAIN} does not exist any more"]


async def test_pull_request_lookups_do_not_delay_pushes(place: Place) -> None:
    answers = threading.Event()

    class Hangs(FakeGitHost):
        def pull_request(self, repo: str, number: int) -> PullRequest | None:
            answers.wait(60)
            return super().pull_request(repo, number)

    host = Hangs()

    async def load_git_host(_: str) -> GitHost:
        return host

    where = {"repo": str(place.repo.path), "host": "generic", "secret": "s", "reports": "gitea/e2e"}
    place.ledger.apps.register("shop", **where, by="ann")
    event = PullRequestEvent(
        places=(), number=42, open=False, head=place.first, ref="r", base="main", fork=False, by=""
    )
    place.ledger.deliveries.receive([Delivery(app="shop", delivery="guid", event=event)])
    dispatcher = Dispatcher(place.ledger, place.outside, place.workspaces, load_git_host)
    await reconcile(dispatcher)
    try:
        place.hears(place.first)  # while it is asked
        await reconcile(dispatcher)
        await dispatcher.wake.wait()
        await reconcile(dispatcher)
        assert place.outside.released == [place.first]
    finally:
        answers.set()
    await dispatcher.wake.wait()
    assert len(await reconcile(dispatcher)) == 1


async def test_a_task_that_fails_loses_no_line_of_the_others(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def load_git_host(_: str) -> GitHost:
        raise NotFound("unused")

    names = ["ant", "bee", "cat", "dog"]
    push = PushEvent(places=(), ref="refs/heads/gone", before=None, after=place.first, by="ann")
    for name in names:
        repo = Repository(place.workspaces.with_name(name))
        repo.commit(headway_dot_yaml=f"app: {name}\n")
        place.ledger.apps.register(name, repo=str(repo.path), host="generic", secret="s", by="ann")
        place.ledger.deliveries.receive([Delivery(app=name, delivery=f"guid of {name}", event=push)])
    real = PushHandler.decide

    def decide(handler: PushHandler, rows: Sequence[DeliveryRecord]) -> str:
        if rows[0].app in ("bee", "dog"):
            raise ServiceUnavailable(f"the ledger is away for {rows[0].app}")
        return real(handler, rows)

    monkeypatch.setattr(PushHandler, "decide", decide)
    dispatcher = Dispatcher(place.ledger, place.outside, place.workspaces, load_git_host)
    lines: list[str] = []
    errors: set[str] = set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (len(lines) == 2 and len(errors) == 2):
        try:
            lines += await dispatcher.reconcile()
        except ServiceUnavailable as error:
            errors.add(error.what)
        await asyncio.sleep(0.05)
    assert sorted(line.split(" ")[0] for line in lines) == ["ant", "cat"]
    assert errors == {"the ledger is away for bee", "the ledger is away for dog"}
    await asyncio.gather(*dispatcher._tasks.values(), return_exceptions=True)
