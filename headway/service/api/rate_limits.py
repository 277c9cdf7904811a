"""How much one address may ask of us."""

from __future__ import annotations

import limits
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

__all__ = ["Limits"]

ASKED = limits.parse("20000/10 second")  # of one address, whatever it asks; what was held up may come in a burst
REFUSED = limits.parse("60/minute")  # requests of one address that were refused; those that come then are not looked at


class Limits:
    """Counts, in this process, what comes from each address."""

    def __init__(self) -> None:
        storage = MemoryStorage()
        self._asked = FixedWindowRateLimiter(storage)
        self._refused = MovingWindowRateLimiter(storage)

    async def allows(self, address: str) -> bool:
        """Whether a request that comes now is looked at; it counts."""
        return await self._asked.hit(ASKED, address) and await self._refused.test(REFUSED, address)

    async def refused(self, address: str) -> None:
        """It had no right to what it asked."""
        await self._refused.hit(REFUSED, address)
