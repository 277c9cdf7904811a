"""Remove old workspaces, bundles and outputs of commands from a worker's disk."""

from __future__ import annotations

import time
from pathlib import Path

from headway.build import bundles
from headway.ledger import Ledger
from headway.scm import git
from headway.system import directories

__all__ = ["prune"]

KEEP = 7 * 24 * 3600.0  # seconds after the last use
ROLLBACK_TARGETS = 10  # revisions of each environment whose artifacts stay whatever their age


def prune(home: Path, ledger: Ledger, *, dry_run: bool = False) -> list[str]:
    """Remove old workspaces, bundles and outputs of commands, and return what was removed, or would be (`dry_run`).

    Workspaces of releases in progress stay, as do bundles that are live or rollback targets.
    """
    running = {release.flow_run_id for release in ledger.releases.unfinished() if release.flow_run_id}
    workspaces = [place for place in home.glob("workspaces/*/*") if any(run in place.name for run in running)]
    old = git.prune(home / "workspaces", older_than=KEEP, keep=workspaces, dry_run=dry_run)
    outputs = _prune_outputs(home / "output", dry_run=dry_run)
    digests = ledger.revisions.digests_in_use(ROLLBACK_TARGETS)
    return [str(place) for place in old] + outputs + bundles.prune(home / "bundles", digests, KEEP, dry_run=dry_run)


def _prune_outputs(outputs: Path, *, dry_run: bool) -> list[str]:
    """Remove the outputs of releases that have written none for a week."""
    before = time.time() - KEEP
    old = [release for release in outputs.glob("*") if max(map(_modified, [release, *release.iterdir()])) < before]
    for release in [] if dry_run else old:
        directories.remove(release)
    return [str(release) for release in old]


def _modified(path: Path) -> float:
    return path.stat().st_mtime
