"""What of the past is kept on a worker's disk, and what goes."""

from __future__ import annotations

from pathlib import Path

from headway.build import bundles
from headway.ledger import Ledger
from headway.scm import git

__all__ = ["prune"]

KEEP = 7 * 24 * 3600.0  # seconds after its last use
WAYS_BACK = 10  # revisions of each environment whose artifacts stay whatever their age


def prune(home: Path, ledger: Ledger) -> list[str]:
    """Remove old workspaces and bundles; returns what went.

    What a release that is going on needs stays, and so does what is live or can be rolled back to.
    """
    running = {release.flow_run_id for release in ledger.releases.unfinished() if release.flow_run_id}
    workspaces = [place for place in home.glob("workspaces/*/*") if any(run in place.name for run in running)]
    gone = [str(place) for place in git.prune(home / "workspaces", older_than=KEEP, keep=workspaces)]
    return gone + bundles.prune(home / "bundles", ledger.revisions.digests_in_use(WAYS_BACK), older_than=KEEP)
