import pytest

from shop.pricing import BasketError, discount, quote


@pytest.mark.parametrize(("items", "percent"), [(1, 0), (9, 0), (10, 5), (49, 5), (50, 10)])
def test_discount(items: int, percent: int) -> None:
    assert discount(items) == percent


@pytest.mark.parametrize(("items", "total"), [(1, 1200), (10, 11400), (50, 54000)])
def test_total(items: int, total: int) -> None:
    assert quote(items).total == total


def test_more_never_costs_less() -> None:
    assert quote(9).total < quote(10).total


@pytest.mark.parametrize("items", [0, -1, 1001])
def test_impossible_baskets(items: int) -> None:
    with pytest.raises(BasketError, match="1 to 1000 items"):
        quote(items)
