"""Differences of the primary family with their intervals, the zero line and the margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.report.plots.source import Floats, Source, need_finished
from bench.report.plots.style import GREY, PAGE, PALE, canvas, fold, key, segments
from bench.report.words import capitalised, interval, number, p_value

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

LEVEL = 0.05
"""Differences with a smaller adjusted p-value are drawn with filled markers."""


@dataclass(frozen=True)
class Forest:
    """The improvement of A over B for each pair (M,), with confidence bounds and p-values."""

    title: str
    axis: str
    labels: tuple[str, ...]
    improvement: Floats
    low: Floats
    high: Floats
    p: Floats
    how: str
    texts: tuple[str, ...]
    margin: float | None


def gather(source: Source) -> Forest:
    """Compare the rows as in the report."""
    need_finished(source, 2)
    tested = source.family()
    found = [pair.found for pair in tested.pairs]
    margin = source.test_plan.margin
    if source.metric.name != source.protocol.primary_metric:
        margin = None  # The margin is in units of the primary metric.
    bounds = [(np.nan, np.nan) if f is None else f.improvement_interval for f in found]
    improvement = [np.nan if f is None else f.improvement for f in found]
    return Forest(
        title=source.title,
        axis=f"difference in {source.axis} (positive values favour A)",
        labels=tuple(f"{pair.a.label} vs {pair.b.label}" for pair in tested.pairs),
        improvement=np.array(improvement),
        low=np.array([low for low, _ in bounds]),
        high=np.array([high for _, high in bounds]),
        p=np.array(tested.p),
        how=tested.how,
        texts=tuple(
            f"{number(value, source.digits)} {interval(low, high, source.digits)}"
            for value, (low, high) in zip(improvement, bounds, strict=True)
        ),
        margin=margin,
    )


def draw(data: Forest) -> Figure:
    """Draw one line per pair, with filled markers if the adjusted p-value is significant."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    labels = [fold(label, 52) for label in data.labels]
    numbers = [
        f"{text}   p {p_value(p) if p < 0.001 else '= ' + p_value(p)}"
        for text, p in zip(data.texts, data.p, strict=True)
    ]
    lines = max(label.count("\n") + 1 for label in labels)
    figure = canvas(PAGE, 0.75 + (0.05 + 0.12 * lines) * len(labels), data.title)
    wide = 0.043 * max(map(len, numbers))
    axes, column = figure.subplots(1, 2, sharey=True, width_ratios=[PAGE - 2.5 - wide, wide])
    y = np.arange(len(labels), dtype=np.float64)
    entries: list[tuple[Artist, str]] = []
    if data.margin is not None:
        axes.axvspan(-data.margin, data.margin, color=PALE, alpha=0.6, linewidth=0)
        entries.append((Patch(color=PALE, alpha=0.6), f"margin, {data.margin:g} either way"))
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.plot(*segments(y, data.low, data.high, vertical=False), color="black")
    told = data.p < LEVEL
    for chosen, face, text in ((told, "black", "<"), (~told, "white", "not below")):
        axes.plot(data.improvement[chosen], y[chosen], "s", color="black", markerfacecolor=face)
        mark = Line2D([], [], linestyle="none", marker="s", color="black", markerfacecolor=face)
        entries.append((mark, f"{data.how} {text} {LEVEL:g}"))
    axes.set_yticks(y, labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(data.axis)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for place, text in zip(y, numbers, strict=True):
        column.text(1, place, text, ha="right", va="center", fontsize=6.5)
    column.set_axis_off()
    key(figure, entries)
    return figure


def describe(data: Forest) -> str:
    """Return the differences with their intervals and p-values, at most ten of them."""
    limit = 10
    parts = [
        f"{label} {text}, {data.how} {p_value(p)}"
        for label, text, p in zip(data.labels, data.texts, data.p, strict=True)
    ]
    rest = f"; and {len(parts) - limit} more, in the table of pairs" if len(parts) > limit else ""
    return (
        f"{capitalised(data.axis)}, with 95 % confidence interval for new runs and new subjects. "
        f"{'; '.join(parts[:limit])}{rest}."
    )
