"""What a push starts: a release of the commit that the ref has now."""

from __future__ import annotations

from collections.abc import Sequence

from headway.domain import deployments
from headway.domain.errors import SettingsError, SourceError
from headway.domain.events import PushEvent
from headway.domain.refusal import Refusal
from headway.ledger import DeliveryRecord
from headway.policy import trigger_rules
from headway.scm import git
from headway.service.controllers.trigger_handler import EARLY_ATTEMPTS, FlowStart, TriggerHandler

__all__ = ["PushHandler"]


class PushHandler(TriggerHandler):
    """The subject is a branch or tag."""

    needs_git_host = False

    def decide(self, rows: Sequence[DeliveryRecord]) -> str:
        first = _event(rows[0])
        last = self._deliveries.latest_start(self._app.name, first.ref)
        try:
            tip = self._fetch(first.ref)
            if tip is None:
                return self._ignore(rows, f"{first.ref} does not exist any more")
            if early := _not_fetched(tip, rows):
                return self._retry(early, f"{self._app.repo} has no {_event(early[0]).after[:7]} yet")
            refusal = self._refusal(tip, first.ref, last.sha if last else first.before)
        except (SourceError, SettingsError) as error:
            return self._retry(rows, error.what)
        if last and last.sha == tip.sha:
            return self._duplicate(rows, f"{tip.sha[:7]} was started before")
        if waits := self._wait_for_burst(rows, last, tip.sha):
            return waits
        if refusal:
            return self._ignore(rows, f"{tip.sha[:7]}: {refusal}")
        chosen = next((row for row in rows if _event(row).after == tip.sha), rows[-1])
        self._deliveries.claim_start([row.id for row in rows], chosen.id, self._app.name, first.ref, tip.sha)
        return f"{tip.sha[:7]} is the newest of {len(rows)}"

    def flow_start(self, row: DeliveryRecord) -> FlowStart:
        by = f"{row.event.by or 'somebody'} at {self._app.host}"
        parameters = {"repo": self._app.repo, "ref": row.sha, "by": by}
        return FlowStart(deployments.RELEASE, parameters, release_of=self._app.name)

    def _refusal(self, tip: git.Tip, ref: str, previous: str | None) -> Refusal | None:
        settings = self._settings(tip, tip.sha, fallback=previous)
        if refusal := self._app_refusal(settings):
            return refusal
        changed = git.changed_paths(tip.mirror, previous, tip.sha) if settings.on.paths else None
        message, refs = git.message_of(tip.mirror, tip.sha), self._release_refs(tip, previous)
        refusal = trigger_rules.push_refusal(ref, refs, settings, changed, message)
        return refusal or (self._older_than_live(tip) if ref.startswith("refs/tags/") else None)

    def _older_than_live(self, tip: git.Tip) -> Refusal | None:
        """Why a tag starts no release: an environment runs a commit that contains it, and would go back to it."""
        rollouts, revisions = self._context.ledger.rollouts, self._context.ledger.revisions
        for environment in rollouts.environments(self._app.name):
            live = rollouts.live(self._app.name, environment)
            if live is None:
                continue
            sha = revisions.find(self._app.name, live, environment=environment)[0].sha
            if sha != tip.sha and git.is_ancestor(tip.mirror, tip.sha, sha):
                return Refusal(
                    f"{environment} runs {sha[:7]}, which is newer: to go back, run headway release --ref TAG"
                )
        return None


def _not_fetched(tip: git.Tip, rows: Sequence[DeliveryRecord]) -> list[DeliveryRecord]:
    """Deliveries whose commit the repository does not have yet. After a force push it never will."""
    early = [row for row in rows if row.tries < EARLY_ATTEMPTS]
    unknown = git.unknown(tip.mirror, {_event(row).after for row in early})
    return [row for row in early if _event(row).after in unknown]


def _event(row: DeliveryRecord) -> PushEvent:
    assert isinstance(row.event, PushEvent)  # the dispatcher passes each kind of event to its handler
    return row.event
