"""Whether an older version can come back to a database that newer ones have changed."""

from __future__ import annotations

from collections.abc import Sequence

from headway.domain.errors import MigrationRefused
from headway.ledger import SchemaChange

__all__ = ["contracts_to_revert"]


def contracts_to_revert(
    place: str, back: str, contracts: Sequence[SchemaChange], *, force: bool, revert: bool, reason: str
) -> list[SchemaChange]:
    """The contract migrations to revert before a rollback to `back`, newest first.

    `contracts` are those since `back` was released. Expand migrations need no revert: they removed nothing. Raises
    MigrationRefused when a contract migration has begun, unless it is reverted (`revert`), or the user says why it does
    not matter (`force` with a reason).
    """
    begun = [one for one in contracts if one.begun]
    if revert or not begun:
        return begun
    if force and reason.strip():
        return []
    newest = begun[0]
    when = f"{newest.started_at:%Y-%m-%d %H:%M} UTC" if newest.started_at else "unknown"
    raise MigrationRefused(
        f"{place}: {back} cannot be restored: {newest.revision} has removed what it may need "
        f"({', '.join(newest.files) or 'a contract'}, {newest.state}, {when})",
        "release a version that works with the current database; or use --revert, if migrations/revert is set; or "
        "--force with a --reason, when you know that it does without",
    )
