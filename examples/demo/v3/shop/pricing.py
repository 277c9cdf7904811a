"""What a basket costs. All amounts are cents."""

from __future__ import annotations

from dataclasses import dataclass

PRICE = 1200
MOST = 1000

# From how many items on, how many percent less.
DISCOUNTS = ((100, 15), (50, 10), (10, 5))

PARCEL = 20
SHIPPING = {1: 490, 2: 890, 3: 1190}


class BasketError(ValueError):
    """A basket that cannot be priced."""


@dataclass(frozen=True)
class Quote:
    items: int
    discount_percent: int
    shipping: int
    total: int


def discount(items: int) -> int:
    """Percent off a basket of so many items."""
    return next((percent for least, percent in DISCOUNTS if items >= least), 0)


def shipping(items: int) -> int:
    """What it costs to send so many items, in parcels of 20."""
    return SHIPPING[-(-items // PARCEL)]


def quote(items: int) -> Quote:
    """The price of a basket of 1 to 1000 items."""
    if not 1 <= items <= MOST:
        raise BasketError(f"a basket has 1 to {MOST} items, not {items}")
    percent = discount(items)
    sending = shipping(items)
    return Quote(items, percent, sending, items * PRICE * (100 - percent) // 100 + sending)
