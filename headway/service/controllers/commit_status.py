"""Commit statuses and deployment statuses of a release: one for each stage and one for the release. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headway.domain.git import CommitStatus, DeploymentStatus, StatusState
from headway.ledger import ReleaseRecord, ReleaseState, StageRecord, StageState
from headway.ledger.stages import ALL_CHECKS

__all__ = ["PREVIEW_CONTEXT", "QUEUE_CONTEXT", "RELEASE_CONTEXT", "checks_status", "deployments", "short", "statuses"]

RELEASE_CONTEXT = "headway"
PREVIEW_CONTEXT = f"{RELEASE_CONTEXT}/preview"
QUEUE_CONTEXT = f"{RELEASE_CONTEXT}/queue"
CHECKS_CONTEXT = f"{RELEASE_CONTEXT}/checks"  # the same on a pull request and on a merge group, for a required check
DESCRIPTION_LENGTH = 140  # characters; GitHub's limit, the lowest of all hosts

_RELEASE: dict[ReleaseState, StatusState] = {
    "running": StatusState.RUNNING,
    "waiting": StatusState.PENDING,
    "succeeded": StatusState.SUCCESS,
    "failed": StatusState.FAILURE,
    "rolled_back": StatusState.FAILURE,
}
_STAGE: dict[StageState, StatusState] = {
    "running": StatusState.RUNNING,
    "waiting": StatusState.PENDING,
    "passed": StatusState.SUCCESS,
    "cached": StatusState.SUCCESS,
    "skipped": StatusState.SUCCESS,
    "failed": StatusState.FAILURE,
}


def statuses(
    release: ReleaseRecord, stages: Iterable[StageRecord], url: str, context: str = RELEASE_CONTEXT, waits: str = ""
) -> list[CommitStatus]:
    """The statuses of the stages and, last, that of the release.

    `context` is its name and prefix of the others, `waits` what it waits for.
    """
    assert release.sha is not None
    of_stages = [
        CommitStatus(
            sha=release.sha,
            context=f"{context}/{stage.name}",
            state=_STAGE.get(stage.state, StatusState.ENDED),
            description=short(stage.detail or stage.state),
            url=url,
        )
        for stage in stages
        if stage.name != ALL_CHECKS
    ]
    of_release = CommitStatus(
        sha=release.sha,
        context=context,
        state=_RELEASE.get(release.state, StatusState.ENDED),
        description=short(f"{release.summary} {waits}".rstrip()),
        url=url,
    )
    return [*of_stages, of_release]


def checks_status(release: ReleaseRecord, stages: Iterable[StageRecord], url: str) -> CommitStatus:
    """Whether the commit of a pull request or merge group passes the checks, whatever its preview does afterwards."""
    assert release.sha is not None
    done = next((stage for stage in stages if stage.name == ALL_CHECKS and stage.finished_at), None)
    state = _STAGE.get(done.state, StatusState.ENDED) if done else _RELEASE.get(release.state, StatusState.ENDED)
    return CommitStatus(
        sha=release.sha,
        context=CHECKS_CONTEXT,
        state=state,
        description=short((done.detail or f"all checks {done.state}") if done else release.summary),
        url=url,
    )


def deployments(
    release: ReleaseRecord,
    stages: Iterable[StageRecord],
    environments: Sequence[str],
    urls: dict[str, str | None],
    url: str,
) -> list[DeploymentStatus]:
    """One for each environment that the release has reached. `urls` has the URLs of the environments."""
    assert release.sha is not None
    return [
        DeploymentStatus(
            sha=release.sha,
            environment=stage.name,
            state=_STAGE.get(stage.state, StatusState.ENDED),
            description=short(stage.detail or stage.state),
            log_url=url,
            url=urls.get(stage.name),
        )
        for stage in stages
        if stage.name in environments
    ]


def short(text: str) -> str:
    """On one line, cut to the length that every host accepts."""
    line = " ".join(text.split())
    return line if len(line) <= DESCRIPTION_LENGTH else f"{line[: DESCRIPTION_LENGTH - 3]}..."
