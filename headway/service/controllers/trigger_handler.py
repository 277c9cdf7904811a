"""Base class of the trigger handlers, one for each kind of event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from headway.config import FILE_NAME, Settings
from headway.domain.errors import HeadwayError, SettingsError
from headway.domain.ports import GitHost
from headway.domain.refusal import Refusal
from headway.ledger import AppRecord, DeliveryRecord, Ledger
from headway.policy import trigger_rules
from headway.scm import git
from headway.scm.branch_head import settings_at

__all__ = [
    "EARLY_ATTEMPTS",
    "FETCH_TIMEOUT",
    "MAX_ATTEMPTS",
    "FlowStart",
    "TriggerContext",
    "TriggerHandler",
]

FETCH_TIMEOUT = 60.0  # seconds
MAX_ATTEMPTS = 12
EARLY_ATTEMPTS = 4  # attempts in which a missing commit may still arrive: hosts send webhooks before they replicate
RETRY_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds; the last one repeats
BURST = timedelta(seconds=2)  # pushes this soon after the last start wait, so that one run serves all of them


class FlowStart(NamedTuple):
    """The flow run that a delivery starts."""

    deployment: str
    parameters: dict[str, Any]
    release_of: str | None
    """Name of the app, or preview, whose release this is; None for a teardown."""


@dataclass(frozen=True)
class TriggerContext:
    """What a handler works on."""

    ledger: Ledger
    workspaces: Path
    app: AppRecord
    git_host: GitHost | HeadwayError | None = None
    """Where pull requests are looked up. HeadwayError: it could not be loaded. None: the app has no git host block."""


class TriggerHandler(ABC):
    """Decides what the deliveries of one subject (a ref or a pull request) start.

    A delivery is a hint. It may be late, repeated, or out of order. The handler reads the current state of the subject,
    and settles all waiting deliveries of it together.
    """

    needs_git_host: ClassVar[bool]

    def __init__(self, context: TriggerContext) -> None:
        self._context = context
        self._app = context.app
        self._deliveries = context.ledger.deliveries

    @abstractmethod
    def decide(self, rows: Sequence[DeliveryRecord]) -> str:
        """Settle the waiting deliveries of one subject. Returns a log line."""

    @abstractmethod
    def flow_start(self, row: DeliveryRecord) -> FlowStart:
        """The flow run of a delivery that starts one."""

    def _ignore(self, rows: Sequence[DeliveryRecord], reason: object) -> str:
        self._deliveries.settle(_ids(rows), "ignored", str(reason))
        return f"starts nothing: {reason}"

    def _duplicate(self, rows: Sequence[DeliveryRecord], reason: str) -> str:
        self._deliveries.settle(_ids(rows), "duplicate", reason)
        return reason

    def _retry(self, rows: Sequence[DeliveryRecord], reason: str) -> str:
        """Look at the deliveries again after a pause; those with too many attempts have failed."""
        last = [row for row in rows if row.tries + 1 >= MAX_ATTEMPTS]
        self._deliveries.settle(_ids(last), "failed", f"{reason} ({MAX_ATTEMPTS} attempts)")
        attempts = max(row.tries for row in rows)
        self._deliveries.retry_later(_ids(rows), reason, RETRY_PAUSES[min(attempts, len(RETRY_PAUSES) - 1)])
        return reason

    def _wait_for_burst(self, rows: Sequence[DeliveryRecord], last: DeliveryRecord | None, sha: str) -> str | None:
        """Postpone deliveries that arrived just after the last start. None: they have not."""
        if last is None or max(row.due_at for row in rows) >= last.due_at + BURST:
            return None
        self._deliveries.postpone(_ids(rows), last.due_at + BURST)
        return f"{sha[:7]} waits {BURST.seconds} s for further commits"

    def _fetch(self, ref: str) -> git.Tip | None:
        return git.fetch_tip(self._app.repo, ref, self._context.workspaces, timeout=FETCH_TIMEOUT)

    def _settings(self, tip: git.Tip, sha: str, fallback: str | None) -> Settings:
        """headway.yaml of a commit, else that of `fallback`, else the defaults.

        A commit with an invalid file is released as its predecessor: the release shows the errors.
        """
        for candidate in (sha, fallback or sha):
            try:
                return settings_at(tip, candidate)
            except SettingsError:
                continue
        return Settings(app=self._app.name)

    def _release_refs(self, tip: git.Tip, previous: str | None) -> trigger_rules.ReleaseRefs:
        """The released branch of the registration, else of headway.yaml of the default branch, which names tags, too.

        Of a default branch whose file is invalid the commit before counts, if `tip` is its head and has a `previous`
        one. Raises SourceError, SettingsError.
        """
        branch = self._app.branch
        policy = self._fetch(f"refs/heads/{branch}" if branch else "HEAD")
        if policy is None:
            return trigger_rules.ReleaseRefs(branch=branch or Settings(app=self._app.name).branch)
        if policy.sha == tip.sha:
            settings = self._settings(policy, policy.sha, fallback=previous)
        else:
            settings = settings_at(policy, policy.sha)
        return trigger_rules.ReleaseRefs(branch=branch or settings.branch, tags=tuple(settings.on.tags))

    def _app_refusal(self, settings: Settings) -> Refusal | None:
        if settings.app == self._app.name:
            return None
        return Refusal(f"{FILE_NAME} is of app {settings.app}, but the repository is registered as {self._app.name}")


def _ids(rows: Sequence[DeliveryRecord]) -> list[int]:
    return [row.id for row in rows]
