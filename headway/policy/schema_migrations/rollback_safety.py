"""Whether an older version can come back to a database that newer ones have changed."""

from __future__ import annotations

from collections.abc import Sequence

from headway.domain.errors import MigrationRefused
from headway.ledger import SchemaChange

__all__ = ["in_the_way"]


def in_the_way(
    place: str, back: str, contracts: Sequence[SchemaChange], *, force: bool, revert: bool, reason: str
) -> list[SchemaChange]:
    """The contracts to be taken back first, of those since `back` was released, the newest first.

    An expand is in nobody's way: it took nothing. Raises MigrationRefused when a contract has begun, unless it is taken
    back (`revert`), or somebody says why that does not matter (`force` with a reason).
    """
    begun = [one for one in contracts if one.begun]
    if revert or not begun:
        return begun
    if force and reason.strip():
        return []
    newest = begun[0]
    when = f"{newest.started_at:%Y-%m-%d %H:%M} UTC" if newest.started_at else "unknown"
    raise MigrationRefused(
        f"{place}: {back} cannot come back: {newest.revision} has taken away what it may need "
        f"({', '.join(newest.files) or 'a contract'}, {newest.state}, {when})",
        "release a version that works with the database as it is; or --revert, where migrations/revert is declared; or "
        "--force with a --reason, when you know that it does without",
    )
