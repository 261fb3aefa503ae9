"""Predicted against true age, one panel per model, with mean and range over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.report.plots.source import Floats, Source, need_finished, spread_evenly
from bench.report.plots.style import (
    COLUMN,
    GREY,
    PAGE,
    canvas,
    columns_for,
    fold,
    model_style,
    panels,
    segments,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PredictionPanel:
    """One model: the mean prediction of each shown subject (M,) with its range over seeds."""

    label: str
    style: int
    mean: Floats
    low: Floats
    high: Floats
    score: str
    n_seeds: int


@dataclass(frozen=True)
class PredictedTrue:
    """The true values of the shown subjects (M,), and the predictions of all models."""

    title: str
    axis: str
    metric: str
    truth: Floats
    n_subjects: int
    panels: tuple[PredictionPanel, ...]


def gather(source: Source) -> PredictedTrue:
    """Read the test predictions of all rows with a finished run."""
    rows = need_finished(source, 1)
    budget = None if source.max_points is None else source.max_points // len(rows)
    shown = spread_evenly(source.evidence.truth, budget)
    found = []
    for row in rows:
        stack = source.evidence.stack(source.protocol.at(row, source.size))[:, shown]
        found.append(
            PredictionPanel(
                label=row.label,
                style=source.style_index(row),
                mean=stack.mean(axis=0),
                low=stack.min(axis=0),
                high=stack.max(axis=0),
                score=f"{source.metric.label} {source.score(row).text}",
                n_seeds=len(stack),
            )
        )
    return PredictedTrue(
        title=source.title,
        axis=f"{source.protocol.dataset['target']} (years)",
        metric=source.axis,
        truth=source.evidence.truth[shown],
        n_subjects=source.evidence.n_subjects,
        panels=tuple(found),
    )


def draw(data: PredictedTrue) -> Figure:
    """Draw the panels with a common scale and the line of perfect prediction."""
    n = len(data.panels)
    columns = columns_for(n)
    width = COLUMN if columns < 3 else PAGE
    wide = width / columns
    figure = canvas(width, (wide + 0.15) * -(-n // columns) + 0.3, data.title)
    everything = np.concatenate([data.truth, *(a for p in data.panels for a in (p.low, p.high))])
    low, high = np.nanmin(everything), np.nanmax(everything)
    pad = 0.03 * (high - low) or 1.0
    # Points are smaller if there are many.
    size = float(np.clip(25 / np.sqrt(len(data.truth)), 1, 3))
    for (axes,), panel in zip(panels(figure, n, columns), data.panels, strict=True):
        colour, marker, _ = model_style(panel.style)
        axes.plot([low - pad, high + pad], [low - pad, high + pad], color=GREY, linewidth=0.8)
        axes.plot(
            *segments(data.truth, panel.low, panel.high), color=colour, linewidth=0.4, alpha=0.6
        )
        axes.plot(
            data.truth,
            panel.mean,
            marker,
            color=colour,
            markersize=size,
            markeredgewidth=0,
            alpha=0.8,
        )
        axes.set_title(f"{fold(panel.label, int(wide * 15))}\n{panel.score}")
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(low - pad, high + pad)
        axes.set_aspect("equal")
    figure.supxlabel(f"true {data.axis}{_shown(data)}", fontsize=7)
    figure.supylabel(f"predicted {data.axis}", fontsize=7)
    return figure


def describe(data: PredictedTrue) -> str:
    """Return the score of every model."""
    parts = [f"{panel.label}: {panel.score}" for panel in data.panels]
    seeds = sorted({panel.n_seeds for panel in data.panels})
    return (
        f"Predicted against true {data.axis} of {data.n_subjects} test subjects{_shown(data)}, "
        f"mean and range over {' or '.join(map(str, seeds))} seeds. {data.metric}, mean over seeds "
        f"with 95 % t interval: {'; '.join(parts)}."
    )


def _shown(data: PredictedTrue) -> str:
    drawn = len(data.truth)
    return "" if drawn == data.n_subjects else f", {drawn} of {data.n_subjects} subjects drawn"
