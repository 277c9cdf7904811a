"""What a merge group starts: the checks of its commit."""

from __future__ import annotations

from collections.abc import Sequence

from headway.domain import deployments
from headway.domain.errors import SettingsError, SourceError
from headway.domain.events import MergeGroupEvent
from headway.ledger import DeliveryRecord
from headway.policy import merge_queue, trigger_rules
from headway.scm import git
from headway.service.controllers.trigger_handler import EARLY_ATTEMPTS, FlowStart, TriggerHandler

__all__ = ["MergeGroupHandler"]


class MergeGroupHandler(TriggerHandler):
    """The subject is the ref that the host made for the group. A queue waits for the status of exactly its commit."""

    needs_git_host = False

    def decide(self, rows: Sequence[DeliveryRecord]) -> str:
        event = _event(rows[-1])
        last = self._deliveries.latest_start(self._app.name, event.subject)
        if last and last.sha == event.head:
            return self._duplicate(rows, f"{event.head[:7]} was started before")
        try:
            tip = self._fetch(event.ref)
            if tip is None or git.unknown(tip.mirror, [event.head]):
                early = [row for row in rows if row.tries < EARLY_ATTEMPTS]
                if early:
                    return self._retry(early, f"{self._app.repo} has no {event.head[:7]} yet")
                return self._ignore(rows, f"{event.ref} does not exist any more")
            refusal = trigger_rules.merge_group_refusal(event.base, self._release_refs(tip, None))
        except (SourceError, SettingsError) as error:
            return self._retry(rows, error.what)
        if refusal:
            return self._ignore(rows, f"{event.head[:7]}: {refusal}")
        ids = [row.id for row in rows]
        self._deliveries.claim_start(ids, ids[-1], self._app.name, event.subject, event.head)
        return f"{event.head[:7]} is the newest of {len(rows)}"

    def flow_start(self, row: DeliveryRecord) -> FlowStart:
        by = f"{row.event.by or 'somebody'} at {self._app.host}"
        parameters = {"app": self._app.name, "sha": row.sha, "by": by}
        return FlowStart(deployments.MERGE_GROUP, parameters, release_of=merge_queue.name(self._app.name))


def _event(row: DeliveryRecord) -> MergeGroupEvent:
    assert isinstance(row.event, MergeGroupEvent)  # the dispatcher passes each kind of event to its handler
    return row.event
