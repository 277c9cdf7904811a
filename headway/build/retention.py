"""Remove old workspaces and bundles from a worker's disk."""

from __future__ import annotations

from pathlib import Path

from headway.build import bundles
from headway.ledger import Ledger
from headway.scm import git

__all__ = ["prune"]

KEEP = 7 * 24 * 3600.0  # seconds after the last use
ROLLBACK_TARGETS = 10  # revisions of each environment whose artifacts stay whatever their age


def prune(home: Path, ledger: Ledger) -> list[str]:
    """Remove old workspaces and bundles, and return what was removed.

    Workspaces of releases in progress stay, as do bundles that are live or rollback targets.
    """
    running = {release.flow_run_id for release in ledger.releases.unfinished() if release.flow_run_id}
    workspaces = [place for place in home.glob("workspaces/*/*") if any(run in place.name for run in running)]
    gone = [str(place) for place in git.prune(home / "workspaces", older_than=KEEP, keep=workspaces)]
    return gone + bundles.prune(home / "bundles", ledger.revisions.digests_in_use(ROLLBACK_TARGETS), older_than=KEEP)
