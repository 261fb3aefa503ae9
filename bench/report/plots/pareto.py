"""Accuracy against cost, with the Pareto front of the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.report.plots.source import Floats, MeanScore, Source, as_float
from bench.report.plots.style import (
    COLUMN,
    GREY,
    LIGHT,
    PAGE,
    canvas,
    key,
    model_style,
    plain_log,
    segments,
)
from bench.report.tables.cost import cost_table
from registry.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = {
    "train": "training time (s)",
    "parameters": "parameters (millions)",
    "multiply_adds": "multiply-adds (billions)",
}
"""The columns of the cost table that are plotted, with axis labels."""


@dataclass(frozen=True)
class Cost:
    """The cost of each model (K,), NaN if unknown, and whether the model is on the front."""

    label: str
    values: Floats
    front: np.ndarray


@dataclass(frozen=True)
class Pareto:
    """The models with a mean at the largest training size, and their known costs."""

    title: str
    axis: str
    higher_is_better: bool
    labels: tuple[str, ...]
    styles: tuple[int, ...]
    scores: tuple[MeanScore, ...]
    costs: tuple[Cost, ...]


def gather(source: Source) -> Pareto:
    """Read the cost table of the report, which is for the largest training size."""
    size = max(source.protocol.sizes)
    table = cost_table(
        source.store, source.protocol, source.evidence, source.rows, source.metric, "cost"
    )
    if table is None:
        raise UserError("The runs in this database have no record of cost; choose another figure.")
    values = [{k: as_float(v) for c in row[1:] for k, v in c.values.items()} for row in table.rows]
    scores = [source.score(row, size) for row in source.rows]
    kept = [i for i, score in enumerate(scores) if np.isfinite(score.mean)]
    means = np.array([scores[i].mean for i in kept])
    costs = []
    for name, label in COSTS.items():
        cost = np.array([values[i].get(name, np.nan) for i in kept], dtype=np.float64)
        # A cost of zero cannot be shown on a logarithmic axis.
        cost[~(cost > 0)] = np.nan
        if np.isfinite(cost).any():
            gain = means if source.metric.higher_is_better else -means
            costs.append(Cost(label, cost, front(cost, gain)))
    if not costs:
        raise UserError("The models with results have no record of cost; choose another figure.")
    return Pareto(
        title=f"{source.protocol.name}, {source.size_words(size)}",
        axis=source.axis,
        higher_is_better=source.metric.higher_is_better,
        labels=tuple(source.rows[i].label for i in kept),
        styles=tuple(source.style_index(source.rows[i]) for i in kept),
        scores=tuple(scores[i] for i in kept),
        costs=tuple(costs),
    )


def front(cost: Floats, gain: Floats) -> np.ndarray:
    """Return which of K models are on the Pareto front.

    A model is on the front if no other model is cheaper without being worse, or better without
    being more expensive.

    Parameters
    ----------
    cost, gain : array (K,)
        Lower cost and higher gain are better. Models with NaN are not on the front.
    """
    known = np.isfinite(cost) & np.isfinite(gain)
    found = known.copy()
    for i in np.flatnonzero(known):
        no_worse = known & (cost <= cost[i]) & (gain >= gain[i])
        found[i] = not (no_worse & ((cost < cost[i]) | (gain > gain[i]))).any()
    return found


def draw(data: Pareto) -> Figure:
    """Draw one panel per cost, with the front as a step line."""
    from matplotlib.lines import Line2D

    n = len(data.costs)
    figure = canvas(PAGE if n > 1 else COLUMN, 2.5, data.title)
    grid = figure.subplots(1, n, sharey=True, squeeze=False)[0]
    low, high, mean = (
        np.array([getattr(score, name) for score in data.scores])
        for name in ("low", "high", "mean")
    )
    for axes, cost in zip(grid, data.costs, strict=True):
        axes.set_xscale("log")
        axes.plot(*segments(cost.values, low, high), color=LIGHT, linewidth=0.9)
        order = np.flatnonzero(cost.front)[np.argsort(cost.values[cost.front], kind="stable")]
        axes.plot(
            cost.values[order], mean[order], color=GREY, drawstyle="steps-post", linewidth=0.9
        )
        for i, number in enumerate(data.styles):
            colour, marker, _ = model_style(number)
            face = colour if cost.front[i] else "white"
            axes.plot(cost.values[i], mean[i], marker, markeredgecolor=colour, markerfacecolor=face)
        plain_log(axes, cost.values)
        axes.set_xlabel(cost.label)
    better = "higher" if data.higher_is_better else "lower"
    grid[0].set_ylabel(f"{data.axis}, {better} is better")
    entries = []
    for number, label in zip(data.styles, data.labels, strict=True):
        colour, marker, _ = model_style(number)
        entries.append((Line2D([], [], color=colour, marker=marker, linestyle="none"), label))
    entries.append((Line2D([], [], color=GREY), "Pareto front (filled)"))
    key(figure, entries)
    return figure


def describe(data: Pareto) -> str:
    """Return the models on the front of each cost, the cheapest first."""
    parts = []
    for cost in data.costs:
        order = np.argsort(cost.values, kind="stable")
        told = [
            f"{data.labels[i]} ({cost.values[i]:.3g}, {data.scores[i].text})"
            for i in order
            if cost.front[i]
        ]
        parts.append(f"{cost.label}: {', '.join(told)}")
    return (
        f"{data.axis}, mean over seeds with 95 % t interval, against cost, median over seeds; "
        f"{data.title}. No other model is both cheaper and better than these. {'; '.join(parts)}."
    )
