"""What a basket costs. All amounts are cents."""

from __future__ import annotations

from dataclasses import dataclass

PRICE = 1200
MOST = 1000

# From how many items on, how many percent less.
DISCOUNTS = ((100, 15), (50, 10), (10, 5))


class BasketError(ValueError):
    """A basket that cannot be priced."""


@dataclass(frozen=True)
class Quote:
    items: int
    discount_percent: int
    total: int


def discount(items: int) -> int:
    """Percent off a basket of so many items."""
    return next((percent for least, percent in DISCOUNTS if items >= least), 0)


def quote(items: int) -> Quote:
    """The price of a basket of 1 to 1000 items."""
    if not 1 <= items <= MOST:
        raise BasketError(f"a basket has 1 to {MOST} items, not {items}")
    percent = discount(items)
    return Quote(items, percent, items * PRICE * (100 - percent) // 100)
