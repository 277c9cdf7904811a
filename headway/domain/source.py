"""The commit that is released, and results of its checks and smoke tests."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.git import OBJECT_ID

__all__ = ["CheckReport", "Coverage", "Failure", "SmokeReport", "Source"]


class Source(Frozen):
    """One commit of a repository, checked out in its own workspace."""

    repo: str = Field(description="path or URL it was fetched from")
    ref: str = Field(description="branch, tag or sha as requested")
    sha: str = Field(pattern=OBJECT_ID, description="the commit; nothing downstream looks at the ref again")
    tree: str = Field(pattern=OBJECT_ID, description="git tree of the commit")
    author: str = Field(description='commit author, "Name <mail>"')
    subject: str = Field(description="first line of the commit message")
    committed_at: datetime = Field(description="commit time, with time zone")
    workspace: str = Field(description="absolute path of the checked-out tree; empty: there is none")
    trusted: bool = Field(default=True, description="False: from a fork; its commands get no secrets")

    @property
    def public_repo(self) -> str:
        """The repository's URL without a password."""
        url = urlsplit(self.repo)
        return (
            urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2])) if url.scheme and url.netloc else self.repo
        )


class Failure(Frozen):
    """Name and message of a failed test."""

    name: str
    message: str


class Coverage(Frozen):
    """Lines covered of lines that count."""

    covered: int = Field(ge=0)
    lines: int = Field(ge=0)

    @property
    def percent(self) -> float:
        return 100.0 * self.covered / self.lines if self.lines else 100.0


class CheckReport(Frozen):
    """Result of one check."""

    name: str
    passed: bool
    seconds: float
    tests: int | None = Field(default=None, description="tests run, when the check reports them")
    failures: tuple[Failure, ...] = ()
    coverage: Coverage | None = None
    message: str = Field(default="", description="why it did not pass, one line")
    cached_from: str | None = Field(default=None, description="the release it passed in, when it was not run again")


class SmokeReport(Frozen):
    """Result of the smoke tests of an environment, through its public proxy."""

    environment: str
    url: str
    probes: int
    attempts: int
    seconds: float
