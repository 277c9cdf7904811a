"""Names of previews, reasons for a teardown, and the comment on the pull request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headway.config.value_parsers import parse_label
from headway.domain.git import PullRequest
from headway.ledger import PreviewRecord, ReleaseRecord, ReleaseState, StageRecord, StageState
from headway.policy import previews

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PREVIEW = PreviewRecord(
    app="shop-pr-42",
    of="shop",
    number=42,
    mark="m",
    head="a" * 40,
    fork=False,
    url="http://shop",
    opened_at=NOW,
    updated_at=NOW,
    expires_at=NOW + timedelta(hours=72),
    closed_at=None,
    reason="",
    told=False,
)
URL = "http://prefect/run"


def test_preview_name_has_app_and_number() -> None:
    assert previews.name("shop", 42) == "shop-pr-42"


@pytest.mark.parametrize("app", ["a", "a" * 56, "a" * 57, "a" * 63, "a" * 45 + "-" + "b" * 17])
@pytest.mark.parametrize("number", [1, 99999, 2**31 - 1])
def test_preview_name_is_a_valid_label_for_any_app(app: str, number: int) -> None:
    name = previews.name(app, number)
    assert parse_label(name) == name
    assert name.endswith(f"-pr-{number}")
    assert "--" not in name


def test_long_names_stay_distinct() -> None:
    assert previews.name("a" * 62 + "b", 1) != previews.name("a" * 62 + "c", 1)


# --- whether it should stand -----------------------------------------------------------------------------------

OPEN = PullRequest(number=42, open=True, head="a" * 40, fork=False, base="main", branch="feature")


def test_open_pull_request_within_its_ttl_keeps_its_preview() -> None:
    assert previews.teardown_reason(PREVIEW, {42: OPEN}, NOW) is None


def test_unknown_pull_request_keeps_its_preview_until_the_ttl() -> None:
    assert previews.teardown_reason(PREVIEW, None, NOW + timedelta(hours=71)) is None
    assert previews.teardown_reason(PREVIEW, None, NOW + timedelta(hours=72)) == "it expired at 2026-01-04 12:00 UTC"


def test_preview_without_a_ttl_is_kept() -> None:
    endless = PREVIEW.model_copy(update={"expires_at": None})
    assert previews.teardown_reason(endless, {42: OPEN}, NOW + timedelta(days=999)) is None


def test_closed_pull_request_loses_its_preview() -> None:
    assert previews.teardown_reason(PREVIEW, {43: OPEN}, NOW) == "the pull request is not open any more"


# --- the comment -----------------------------------------------------------------------------------------------


def release(state: ReleaseState = "succeeded", reason: str = "") -> ReleaseRecord:
    return ReleaseRecord(
        id="r",
        app="shop-pr-42",
        number=3,
        repo="/repo",
        ref="a" * 40,
        sha="a" * 40,
        flow_run_id="f",
        requested_by="bob",
        state=state,
        reason=reason,
        started_at=NOW,
    )


def stage(name: str, state: StageState = "passed", detail: str = "") -> StageRecord:
    return StageRecord(
        release_id="r", position=1, name=name, state=state, detail=detail, started_at=NOW, finished_at=NOW
    )


def test_comment_has_url_expiry_and_check_results() -> None:
    said = previews.comment(PREVIEW, release(), [stage("unit", detail="3 tests passed"), stage("build", "cached")], URL)
    assert said.splitlines() == [
        "**Preview of shop #42**: http://shop, until 2026-01-04 12:00 UTC or the next push",
        "",
        "Commit aaaaaaa, shop-pr-42#3 succeeded",
        "",
        "| stage | | |",
        "|---|---|---|",
        "| unit | passed | `3 tests passed` |",
        "| build | cached |  |",
        "",
        "[The run](http://prefect/run)",
    ]


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({"url": None}, "running", "in progress"),
        ({"url": None}, "waiting", "waiting for approval"),
        ({"url": None}, "failed", "nothing is deployed"),
        ({"url": None}, "succeeded", "nothing is deployed"),
        ({}, "running", "http://shop, until"),
        ({}, "failed", "http://shop, with an earlier commit, until"),
        ({"closed_at": NOW, "reason": "the pull request was closed"}, "succeeded", "torn down, the pull request was"),
    ],
)
def test_comment_has_the_state_of_the_preview(change: dict[str, object], state: ReleaseState, words: str) -> None:
    said = previews.comment(PREVIEW.model_copy(update=change), release(state), [], URL)
    assert said.splitlines()[0].startswith(f"**Preview of shop #42**: {words}")


def test_comment_before_the_first_stage() -> None:
    assert previews.comment(PREVIEW.model_copy(update={"url": None}), None, [], URL).endswith("in progress")


def test_command_output_is_escaped_in_the_comment() -> None:
    evil = "`</table>` | @everybody\n[click](http://evil) " + "x" * 500
    said = previews.comment(PREVIEW, release("failed", evil), [stage("unit", "failed", evil)], URL)
    (row,) = [line for line in said.splitlines() if line.startswith("| unit")]
    assert row.count("|") == 4
    assert row.startswith("| unit | failed | `'</table>' ¦ @everybody [click](http://evil) xxx")
    assert all(line.count("`") % 2 == 0 for line in said.splitlines())
    assert len(row) < 250
