"""What a git host is told of a release: a status a stage and one for the whole, and where it is deployed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from headway.ledger import ReleaseRecord, ReleaseState, StageRecord, StageState
from headway.model import Frozen

__all__ = [
    "PREVIEW",
    "WHOLE",
    "CommitStatus",
    "Deployment",
    "PullRequest",
    "Standing",
    "deployments",
    "short",
    "statuses",
]

WHOLE = "headway"
PREVIEW = f"{WHOLE}/preview"
DESCRIPTION = 140  # characters; the least that a host takes is GitHub's


class Standing(StrEnum):
    """How something stands; hosts have words of their own for it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    ENDED = "ended"  # by a person or a newer commit, not because of what was found


class CommitStatus(Frozen):
    """One mark on a commit; a later one of the same context takes its place."""

    sha: str
    context: str
    standing: Standing
    description: str
    url: str


class Deployment(Frozen):
    """How a commit's way into one environment stands."""

    sha: str
    environment: str
    standing: Standing
    description: str
    log_url: str
    url: str | None


class PullRequest(Frozen):
    """A pull request as its host knows it now."""

    number: int
    open: bool
    head: str
    fork: bool
    base: str
    """The branch that it is for."""
    branch: str
    """The branch that it is from, in its own repository."""


_RELEASE: dict[ReleaseState, Standing] = {
    "running": Standing.RUNNING,
    "waiting": Standing.PENDING,
    "succeeded": Standing.SUCCESS,
    "failed": Standing.FAILURE,
    "rolled_back": Standing.FAILURE,
}
_STAGE: dict[StageState, Standing] = {
    "running": Standing.RUNNING,
    "waiting": Standing.PENDING,
    "passed": Standing.SUCCESS,
    "cached": Standing.SUCCESS,
    "skipped": Standing.SUCCESS,
    "failed": Standing.FAILURE,
}


def statuses(release: ReleaseRecord, stages: Iterable[StageRecord], url: str, whole: str = WHOLE) -> list[CommitStatus]:
    """The whole comes last: when it is told, all is. `whole` keeps those of a preview apart from a release's."""
    assert release.sha is not None
    told = [
        CommitStatus(
            sha=release.sha,
            context=f"{whole}/{stage.name}",
            standing=_STAGE.get(stage.state, Standing.ENDED),
            description=short(stage.detail or stage.state),
            url=url,
        )
        for stage in stages
    ]
    last = CommitStatus(
        sha=release.sha,
        context=whole,
        standing=_RELEASE.get(release.state, Standing.ENDED),
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
) -> list[Deployment]:
    """One for every environment that the release has come to. `urls` says where an environment answers."""
    assert release.sha is not None
    return [
        Deployment(
            sha=release.sha,
            environment=stage.name,
            standing=_STAGE.get(stage.state, Standing.ENDED),
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
