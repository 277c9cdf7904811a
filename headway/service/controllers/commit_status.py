"""What a git host is told of a release: a status a stage and one for the whole, and where it is deployed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headway.domain.git import CommitStatus, DeploymentStatus, StatusState
from headway.ledger import ReleaseRecord, ReleaseState, StageRecord, StageState

__all__ = ["PREVIEW", "WHOLE", "deployments", "short", "statuses"]

WHOLE = "headway"
PREVIEW = f"{WHOLE}/preview"
DESCRIPTION = 140  # characters; the least that a host takes is GitHub's


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


def statuses(release: ReleaseRecord, stages: Iterable[StageRecord], url: str, whole: str = WHOLE) -> list[CommitStatus]:
    """The whole comes last: when it is told, all is. `whole` keeps those of a preview apart from a release's."""
    assert release.sha is not None
    told = [
        CommitStatus(
            sha=release.sha,
            context=f"{whole}/{stage.name}",
            state=_STAGE.get(stage.state, StatusState.ENDED),
            description=short(stage.detail or stage.state),
            url=url,
        )
        for stage in stages
    ]
    last = CommitStatus(
        sha=release.sha,
        context=whole,
        state=_RELEASE.get(release.state, StatusState.ENDED),
        description=short(release.summary),
        url=url,
    )
    return [*told, last]


def deployments(
    release: ReleaseRecord,
    stages: Iterable[StageRecord],
    environments: Sequence[str],
    urls: dict[str, str | None],
    url: str,
) -> list[DeploymentStatus]:
    """One for every environment that the release has come to. `urls` says where an environment answers."""
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
    """On one line, and no longer than a host takes it."""
    line = " ".join(text.split())
    return line if len(line) <= DESCRIPTION else f"{line[: DESCRIPTION - 3]}..."
