"""Rate limits per client address."""

from __future__ import annotations

import limits
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

__all__ = ["RateLimits"]

REQUESTS = limits.parse("20000/10 second")  # of one address; high, because delayed deliveries arrive in bursts
REFUSED = limits.parse("60/minute")  # refused requests of one address; then every request of it gets 429
SIGN_INS = limits.parse("60/minute")  # requests of one address that are passed on to the identity provider


class RateLimits:
    """Counts the requests of each address, in this process."""

    def __init__(self) -> None:
        storage = MemoryStorage()
        self._requests = FixedWindowRateLimiter(storage)
        self._refused = MovingWindowRateLimiter(storage)

    async def allows(self, address: str) -> bool:
        """Count a request and return whether to process it."""
        return await self._requests.hit(REQUESTS, address)

    async def may_guess(self, address: str) -> bool:
        """Whether the address has not yet had too many requests refused."""
        return await self._refused.test(REFUSED, address)

    async def refused(self, address: str) -> bool:
        """Count a request that was refused. Returns whether the address has not had too many of them."""
        return await self._refused.hit(REFUSED, address)

    async def may_sign_in(self, address: str) -> bool:
        """Count a step of a sign-in with the identity provider, and return whether to take it."""
        return await self._refused.hit(SIGN_INS, "sign-in", address)
