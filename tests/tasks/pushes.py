"""Pushes and the releases that they start."""

from __future__ import annotations

from headway.ledger import Delivery, Ledger
from headway.scm.webhooks import PushEvent
from tasks.release_record import ReleaseSession


def pushed(ledger: Ledger, number: int) -> str:
    """A push whose delivery is settled and whose run has started; returns the id of the run."""
    sha = f"{number:040x}"
    event = PushEvent(places=(), ref="refs/heads/main", before=None, after=sha, by="ann")
    ledger.deliveries.receive([Delivery(app="shop", delivery=f"guid-{number}", event=event)])
    (newest,) = ledger.deliveries.recent("shop", 1)
    assert ledger.deliveries.claim_start([newest.id], newest.id, "shop", "refs/heads/main", sha)
    ledger.deliveries.mark_started(newest.id, f"run-{number}")
    return f"run-{number}"


def release(ledger: Ledger, run: str) -> ReleaseSession:
    record = ledger.releases.start("shop", "/repo", "main", flow_run_id=run, requested_by="ann")
    return ReleaseSession(ledger, record)
