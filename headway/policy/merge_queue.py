"""Name under which the checks of an app's merge groups are recorded. Pure."""

from __future__ import annotations

from headway.ledger.releases import MERGE_QUEUE
from headway.policy.previews import fitting_name

__all__ = ["name"]


def name(app: str) -> str:
    """Such as `shop.queue`: no app can be called so, because a DNS label has no dot."""
    return fitting_name(app, MERGE_QUEUE)
