"""The plot of a verdict, also with missing data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from headway.domain.measurements import Bucket, Measurements, RequestCounts
from headway.rollout.analysis.plot import draw

BEGUN = datetime(2026, 3, 1, tzinfo=UTC)


def counts(requests: int, errors: int = 0) -> RequestCounts:
    return RequestCounts(requests=requests, errors=errors, latency=(Bucket(0.01, 0.02, requests),) if requests else ())


def readings(number: int, **revisions: int) -> list[Measurements]:
    """One a second; so many requests each of every revision."""
    return [
        Measurements(
            at=BEGUN + timedelta(seconds=second),
            counts={name: counts(second * rate, second * rate // 10) for name, rate in revisions.items()},
        )
        for second in range(number)
    ]


def drawn(taken: list[Measurements], *, stable: str | None = "old", title: str = "shop production") -> str:
    marks = [(BEGUN, "canary 5%"), (BEGUN + timedelta(seconds=5), "canary 50%")]
    return draw(taken, canary="new", stable=stable, marks=marks, title=title)


def words(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def lines(svg: str) -> list[str]:
    """Paths of the plotted lines, in their order."""
    paths = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    return [path.get("d", "") for path in paths if "#d9730d" in path.get("style", "")]


def test_plot_has_title_and_labels() -> None:
    said = words(drawn(readings(10, new=5, old=95)))
    for each in ("shop production", "canary new", "stable old", "canary p99", "stable median", "errors, %", "seconds"):
        assert each in said
    assert said.count("canary 5%") == said.count("canary 50%") == 2


@pytest.mark.parametrize(
    "taken", [[], readings(1, new=5), readings(10), readings(10, new=0, old=0), readings(9, old=5)]
)
@pytest.mark.parametrize("stable", ["old", None])
def test_plot_is_valid_with_missing_data(taken: list[Measurements], stable: str | None) -> None:
    assert "canary new" in words(drawn(taken, stable=stable))


def test_missing_data_is_a_gap() -> None:
    taken = readings(9, new=10, old=10)
    still = taken[3].counts
    silent = [one.model_copy(update={"counts": still}) if 3 <= at < 6 else one for at, one in enumerate(taken)]
    whole, broken = lines(drawn(taken))[0], lines(drawn(silent))[0]
    assert (whole.count("M"), broken.count("M")) == (1, 2)


def test_thousands_of_readings_stay_small() -> None:
    svg = drawn(readings(5000, new=5, old=95))
    assert len(svg) < 100_000
    assert lines(svg)[0].count("L") < 130


def test_the_same_readings_are_the_same_picture() -> None:
    taken = readings(50, new=5, old=95)
    assert drawn(taken) == drawn(taken)


def test_text_in_the_plot_is_escaped() -> None:
    svg = drawn(readings(3, new=1), title="<b>50 $ & 60 $</b>")
    assert "<b>50 $ & 60 $</b>" in words(svg)
    assert "<script" not in svg
