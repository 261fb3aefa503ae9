"""All pairs in one matrix, with differences below and p-values above the diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.report.plots.source import Floats, Source, need_finished
from bench.report.plots.style import PAGE, PALE, canvas, fold
from bench.report.words import number, p_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.05


@dataclass(frozen=True)
class Heatmap:
    """All pairs of K rows.

    Parameters
    ----------
    effect : array (K, K)
        Below the diagonal, the improvement of the column's model over the row's; NaN elsewhere.
    p : array (K, K)
        Above the diagonal, the adjusted p-value of the same pair; NaN elsewhere.
    """

    title: str
    axis: str
    how: str
    labels: tuple[str, ...]
    effect: Floats
    p: Floats
    digits: int


def gather(source: Source) -> Heatmap:
    """Compare all pairs of rows with a finished run."""
    rows = need_finished(source, 2)
    tested = source.all_pairs()
    places = {row.key: i for i, row in enumerate(rows)}
    effect = np.full((len(places), len(places)), np.nan)
    p = effect.copy()
    for pair, adjusted in zip(tested.pairs, tested.p, strict=True):
        if pair.found is None:
            continue
        a, b = places[pair.a.key], places[pair.b.key]
        left, below = min(a, b), max(a, b)
        effect[below, left] = pair.found.improvement * (1 if a < b else -1)
        p[left, below] = adjusted
    return Heatmap(
        title=source.title,
        axis=f"difference in {source.axis} (positive values favour the column's model)",
        how=tested.how,
        labels=tuple(row.label for row in rows),
        effect=effect,
        p=p,
        digits=source.digits,
    )


def draw(data: Heatmap) -> Figure:
    """Draw the matrix with coloured differences and with significant p-values in bold."""
    from matplotlib import colormaps
    from matplotlib.colors import TwoSlopeNorm

    n = len(data.labels)
    slanted = n <= 8
    labels = [fold(label, 30 if slanted else 22) for label in data.labels]
    longest = max(len(line) for label in labels for line in label.splitlines())
    # The labels and the colour bar need space beside the matrix.
    cell = min((PAGE - 1.5 - 0.05 * longest) / n, 0.62)
    size = min(16.5 * cell, 6.5)
    below = (0.035 if slanted else 0.05) * longest
    figure = canvas(PAGE, max(cell * n, 1.6) + below + 0.5, data.title)
    axes = figure.subplots()
    largest = np.nanmax(np.abs(data.effect), initial=0.0) or 1.0
    norm = TwoSlopeNorm(0, -largest, largest)
    edges = np.arange(n + 1) - 0.5
    # With few colours, cells and colour bar remain vector graphics.
    colours = colormaps["PuOr"].resampled(41)
    mesh = axes.pcolormesh(edges, edges, np.ma.masked_invalid(data.effect), norm=norm, cmap=colours)
    axes.hlines(edges, -0.5, n - 0.5, color=PALE, linewidth=0.4)
    axes.vlines(edges, -0.5, n - 0.5, color=PALE, linewidth=0.4)
    for row in range(n):
        for column in range(n):
            if row == column:
                continue
            p, effect = data.p[row, column], data.effect[row, column]
            text = number(effect, data.digits) if row > column else p_value(p)
            axes.text(
                column,
                row,
                text.replace("< ", "<"),
                ha="center",
                va="center",
                fontsize=size,
                weight="bold" if row < column and p < LEVEL else "normal",
                color="white" if row > column and abs(effect) > 0.6 * largest else "black",
            )
    if slanted:
        axes.set_xticks(range(n), labels, rotation=40, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(n), labels, rotation=90)
    axes.set_yticks(range(n), labels)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.7, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(f"{fold(data.axis, 42)}\nabove the diagonal: {data.how}, bold below {LEVEL:g}")
    return figure


def describe(data: Heatmap) -> str:
    """Return the number of significant differences, and the largest difference."""
    n = len(data.labels)
    pairs = n * (n - 1) // 2
    told = int(np.sum(data.p < LEVEL))
    if np.isnan(data.effect).all():
        return f"All pairs of {n} models: no difference in {data.axis} is defined."
    row, column = np.unravel_index(np.nanargmax(np.abs(data.effect)), data.effect.shape)
    return (
        f"All pairs of {n} models: {data.axis}. {told} of {pairs} pairs differ significantly "
        f"({data.how} < {LEVEL:g}). The largest difference is {data.labels[column]} against "
        f"{data.labels[row]}, {number(data.effect[row, column], data.digits)}, "
        f"{data.how} {p_value(data.p[column, row])}."
    )
