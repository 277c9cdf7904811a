import pytest

from shop.pricing import BasketError, discount, quote, shipping


@pytest.mark.parametrize(("items", "percent"), [(1, 0), (9, 0), (10, 5), (49, 5), (50, 10), (99, 10), (100, 15)])
def test_discount(items: int, percent: int) -> None:
    assert discount(items) == percent


@pytest.mark.parametrize(("items", "cents"), [(1, 490), (20, 490), (21, 890), (60, 1190)])
def test_shipping(items: int, cents: int) -> None:
    assert shipping(items) == cents


@pytest.mark.parametrize(("items", "total"), [(1, 1690), (10, 11890), (50, 55190)])
def test_total(items: int, total: int) -> None:
    assert quote(items).total == total


@pytest.mark.parametrize("items", [0, -1, 1001])
def test_impossible_baskets(items: int) -> None:
    with pytest.raises(BasketError, match="1 to 1000 items"):
        quote(items)
