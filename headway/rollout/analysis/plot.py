"""Plot a verdict: error rate and latency of both versions over time, with the traffic switches."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from headway.domain.measurements import Measurements, RequestCounts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

POINTS = 120  # windows along the time axis, at most; smaller ones are too noisy
CANARY, STABLE, SWITCH = "#d9730d", "#5b7083", "#9aa5ad"


def draw(
    readings: Sequence[Measurements],
    *,
    canary: str,
    stable: str | None,
    marks: Sequence[tuple[datetime, str]],
    title: str,
) -> str:
    """Return an SVG document. The time axis is in seconds since the first reading. Missing data is a gap, not zero.

    The output is deterministic.
    """
    import matplotlib as mpl  # importing it takes half a second

    with mpl.rc_context({"svg.hashsalt": "headway", "svg.fonttype": "none", "text.parse_math": False, "font.size": 9}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 5.2), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        errors, latency = figure.subplots(2, 1, sharex=True)
        versions = [(canary, CANARY, "canary"), *([(stable, STABLE, "stable")] if stable else [])]
        for revision, colour, name in versions:
            _line(errors, readings, revision, _error_rate, color=colour, label=f"{name} {revision}")
            _line(latency, readings, revision, _p99, color=colour, label=f"{name} p99")
            _line(latency, readings, revision, _p50, color=colour, linestyle="--", label=f"{name} median")
        for axes, unit in ((errors, "errors, %"), (latency, "latency, ms")):
            _frame(axes, unit)
            _switches(axes, readings, marks)
        latency.set_xlabel("seconds")
        document = io.StringIO()
        figure.savefig(document, format="svg", metadata={"Date": None})
    return document.getvalue()


def _line(
    axes: Axes,
    readings: Sequence[Measurements],
    revision: str,
    figure: Callable[[RequestCounts], float | None],
    *,
    color: str,
    label: str,
    linestyle: str = "-",
) -> None:
    seconds, values = [], []
    width = max(1, -(-(len(readings) - 1) // POINTS))
    chosen = [*readings[:-1:width], *readings[-1:]]
    for before, now in itertools.pairwise(chosen):
        value = figure(now.since(before, revision))
        seconds.append((now.at - readings[0].at).total_seconds())
        values.append(float("nan") if value is None else value)
    dot = "." if len(values) < POINTS / 2 else ""  # a line does not show a point between two gaps
    axes.plot(seconds, values, color=color, label=label, linestyle=linestyle, marker=dot, linewidth=1.4)


def _frame(axes: Axes, unit: str) -> None:
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="#e6e9eb", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _switches(axes: Axes, readings: Sequence[Measurements], marks: Sequence[tuple[datetime, str]]) -> None:
    for at, words in marks if readings else ():
        second = (at - readings[0].at).total_seconds()
        axes.axvline(second, color=SWITCH, linewidth=0.8, linestyle=":")
        axes.annotate(
            words,
            (second, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, -9),
            textcoords="offset points",
            color=SWITCH,
            fontsize=8,
        )


def _error_rate(counts: RequestCounts) -> float | None:
    return 100.0 * counts.errors / counts.requests if counts.requests else None


def _p50(counts: RequestCounts) -> float | None:
    return _milliseconds(counts.quantile(0.5))


def _p99(counts: RequestCounts) -> float | None:
    return _milliseconds(counts.quantile(0.99))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000.0 * seconds
