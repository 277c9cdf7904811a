"""Fencing tokens: a writer whose lease ran out changes nothing once a newer writer has claimed the app.

Source: Kleppmann, "How to do distributed locking" (2016), https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html
"""

from __future__ import annotations

from headway.domain.errors import LockLost

__all__ = ["FencingTokens"]


class FencingTokens:
    """The token with which this process writes, for each app. A target keeps the newest token where the app runs."""

    def __init__(self) -> None:
        self._ours: dict[str, int] = {}

    def claim(self, app: str, token: int, newest: int) -> int:
        """The token to keep as the newest one. Raises LockLost when a newer one is kept already."""
        if newest > token:
            raise LockLost(f"{app}: token {token} is older than {newest}", "another writer took over")
        self._ours[app] = token
        return token

    def check(self, app: str, newest: int) -> None:
        """Raise LockLost when another writer claimed the app after this process did."""
        if newest > self._ours.get(app, 0):
            raise LockLost(f"{app}: another writer took over with token {newest}", "this run changes nothing more")
