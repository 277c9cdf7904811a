"""What a pull request starts: a preview of its newest commit, or the teardown of its preview."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headway.domain import deployments
from headway.domain.errors import GitHostError, HeadwayError, UsageError
from headway.domain.events import NOTHING, PullRequestEvent
from headway.domain.git import PullRequest
from headway.domain.refusal import Refusal
from headway.ledger import DeliveryRecord
from headway.policy import previews, trigger_rules
from headway.scm import git
from headway.service.controllers.trigger_handler import EARLY_ATTEMPTS, FlowStart, TriggerHandler

__all__ = ["PullRequestHandler"]


class PullRequestHandler(TriggerHandler):
    """The subject is a pull request."""

    needs_git_host = True

    def decide(self, rows: Sequence[DeliveryRecord]) -> str:
        try:
            current = self._current(_event(rows[-1]))
            if not current.open:
                return self._close(rows)
            if current.unreachable:
                return self._ignore(rows, f"{self._app.host} does not share the commits of forks")
            tip, base = self._fetch(current.event.ref), self._fetch(f"refs/heads/{current.base}")
            early = [row for row in rows if row.tries < EARLY_ATTEMPTS]
            if early and (tip is None or not tip.sha.startswith(current.head or "")):
                return self._retry(early, f"{self._app.repo} has no {(current.head or current.event.ref)[:7]} yet")
            if tip is None or base is None:
                return self._ignore(rows, f"{current.base if tip else current.event.ref} does not exist any more")
            refusal = self._refusal(current, base, tip)
        except HeadwayError as error:  # of the git host or the repository
            return self._retry(rows, error.what)
        return self._open(rows, current, tip.sha, refusal)

    def flow_start(self, row: DeliveryRecord) -> FlowStart:
        event, sha = _event(row), row.sha or ""
        by = f"{event.by or 'somebody'} at {self._app.host}"
        parameters = {"app": self._app.name, "number": event.number, "by": by}
        if event.action(sha) == "teardown":
            closed = {"reason": "the pull request was closed"}
            return FlowStart(deployments.TEARDOWN, parameters | closed, release_of=None)
        commit = {"sha": sha, "base": event.base, "fork": event.fork}
        return FlowStart(
            deployments.PREVIEW, parameters | commit, release_of=previews.name(self._app.name, event.number)
        )

    def _current(self, event: PullRequestEvent) -> _CurrentState:
        host = self._context.git_host
        if host is None:
            return _CurrentState(event, None)
        if isinstance(host, HeadwayError):
            raise host
        found = host.pull_request(self._app.path, event.number)
        if found is None and event.open:
            raise GitHostError(
                f"{self._app.host} has no pull request {event.number}", "may the token of the block read pull requests?"
            )
        return _CurrentState(event, found)

    def _open(self, rows: Sequence[DeliveryRecord], current: _CurrentState, sha: str, refusal: Refusal | None) -> str:
        event, ids = current.event, [row.id for row in rows]
        ledger, name = self._context.ledger, previews.name(self._app.name, event.number)
        last, preview = self._deliveries.latest_start(self._app.name, event.subject), ledger.previews.get(name)
        retargeted = last is not None and _event(last).base != current.base
        if last and last.sha == sha and preview and preview.active and not event.again and not retargeted:
            return self._duplicate(rows, f"{sha[:7]} was started before")
        if waits := self._wait_for_burst(rows, last, sha):
            return waits
        if not refusal:
            try:
                ledger.previews.open(name, of=self._app.name, number=event.number, head=sha, fork=current.fork)
            except UsageError as error:
                refusal = Refusal(error.what, error.hint)
        if refusal:
            return self._ignore(rows, f"{sha[:7]}: {refusal}")
        chosen = next((row for row in rows if sha.startswith(row.event.commit or NOTHING)), rows[-1])
        decided = chosen.event.model_copy(update={"base": current.base, "fork": current.fork})
        self._deliveries.claim_start(ids, chosen.id, self._app.name, event.subject, sha, again=True, event=decided)
        return f"{sha[:7]} is the newest of {len(rows)}"

    def _close(self, rows: Sequence[DeliveryRecord]) -> str:
        """Start the teardown, which supersedes a preview run that is in progress."""
        event, ids = _event(rows[-1]), [row.id for row in rows]
        last = self._deliveries.latest_start(self._app.name, event.subject)
        preview = self._context.ledger.previews.get(previews.name(self._app.name, event.number))
        if last is None and not (preview and preview.active):
            return self._ignore(rows, "it is closed and has no preview")
        if last and last.sha == NOTHING:
            return self._duplicate(rows, "it was closed before")
        self._deliveries.claim_start(ids, ids[-1], self._app.name, event.subject, NOTHING)
        return "it is closed"

    def _refusal(self, current: _CurrentState, base: git.Tip, tip: git.Tip) -> Refusal | None:
        """Forks use headway.yaml from the base branch."""
        source = base if current.fork else tip
        settings = self._settings(source, source.sha, fallback=base.sha)
        if refusal := self._app_refusal(settings):
            return refusal
        changed = None
        if settings.on.paths:  # without patterns no list: a fork may change any number of files
            changed = git.changed_paths(tip.mirror, git.fork_point(tip.mirror, base.sha, tip.sha), tip.sha)
        refs, message = self._release_refs(tip, None), git.message_of(tip.mirror, tip.sha)
        return trigger_rules.preview_refusal(current.base, refs, settings, changed, message)


class _CurrentState(NamedTuple):
    """A pull request as the host answers now, or, without an answer, as the event has it."""

    event: PullRequestEvent
    found: PullRequest | None

    @property
    def open(self) -> bool:
        return self.found.open if self.found else self.event.open

    @property
    def head(self) -> str | None:
        return self.found.head if self.found else self.event.head

    @property
    def base(self) -> str:
        return self.found.base if self.found else self.event.base

    @property
    def fork(self) -> bool:
        """Whether the event or the host marks it as a fork."""
        return self.event.fork or (self.found is not None and self.found.fork)

    @property
    def unreachable(self) -> bool:
        """Whether its ref is a branch of the fork. A branch of the same name in the base repository is another one."""
        return self.fork and self.event.ref.startswith("refs/heads/")


def _event(row: DeliveryRecord) -> PullRequestEvent:
    assert isinstance(row.event, PullRequestEvent)  # the dispatcher passes each kind of event to its handler
    return row.event
