"""Learning curves: a metric against the training size, as means, intervals and single runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.report.plots.source import Floats, MeanScore, Source
from bench.report.plots.style import COLUMN, PAGE, PALE, canvas, key, model_style, segments

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

FEW = 4
"""Up to this number of models, the figure fits into one column of a paper."""


@dataclass(frozen=True)
class ModelCurve:
    """One model: means with intervals for each size (K,), and the values of all runs (P,)."""

    label: str
    style: int
    sizes: Floats
    scores: tuple[MeanScore, ...]
    run_sizes: Floats
    run_values: Floats


@dataclass(frozen=True)
class LearningCurves:
    """All models; from the size `conditional` on, seeds have nearly the same training set."""

    title: str
    axis: str
    better: str
    sizes: tuple[int, ...]
    size_labels: tuple[str, ...]
    conditional: int | None
    curves: tuple[ModelCurve, ...]


def gather(source: Source) -> LearningCurves:
    """Read means, intervals and runs of all rows at all training sizes."""
    protocol, sizes = source.protocol, source.protocol.sizes
    curves = []
    for row in source.rows:
        values = {n: source.evidence.values(protocol.at(row, n), source.metric.name) for n in sizes}
        # If the metric of a run is undefined, there is no mean, but the other runs are shown.
        scores = {n: source.score(row, n) for n in sizes}
        shown = [n for n in sizes if np.isfinite(scores[n].mean)]
        runs = [(n, value) for n in sizes for value in values[n] if np.isfinite(value)]
        curves.append(
            ModelCurve(
                label=row.label + source.trouble(row, sizes),
                style=source.style_index(row),
                sizes=np.array(shown, dtype=np.float64),
                scores=tuple(scores[n] for n in shown),
                run_sizes=np.array([n for n, _ in runs], dtype=np.float64),
                run_values=np.array([value for _, value in runs], dtype=np.float64),
            )
        )
    return LearningCurves(
        title=protocol.name,
        axis=source.axis,
        better="higher is better" if source.metric.higher_is_better else "lower is better",
        sizes=sizes,
        size_labels=tuple(protocol.size_label(n) for n in sizes),
        conditional=next((n for n in sizes if protocol.conditional(n)), None),
        curves=tuple(curves),
    )


def draw(data: LearningCurves) -> Figure:
    """Draw the curves, slightly shifted at each size so that intervals do not overlap."""
    from matplotlib.patches import Patch

    figure = canvas(COLUMN if len(data.curves) <= FEW else PAGE, 2.4, data.title)
    axes = figure.subplots()
    axes.set_xscale("log")
    sizes = np.log(np.array(data.sizes, dtype=np.float64))
    gap = float(np.diff(sizes).min()) if len(sizes) > 1 else 0.5
    step = min(0.5 * gap / max(len(data.curves), 1), 0.03 * float(np.ptp(sizes)) + 0.01)
    entries: list[tuple[Artist, str]] = []
    for place, curve in enumerate(data.curves):
        shift = np.exp(step * (place - (len(data.curves) - 1) / 2))
        colour, marker, dash = model_style(curve.style)
        low = np.array([score.low for score in curve.scores])
        high = np.array([score.high for score in curve.scores])
        mean = np.array([score.mean for score in curve.scores])
        x = curve.sizes * shift
        axes.plot(
            curve.run_sizes * shift,
            curve.run_values,
            linestyle="none",
            marker=marker,
            markersize=2.2,
            markerfacecolor="none",
            markeredgecolor=colour,
            markeredgewidth=0.5,
        )
        axes.plot(*segments(x, low, high), color=colour, linewidth=0.9)
        (line,) = axes.plot(x, mean, color=colour, marker=marker, linestyle=dash)
        entries.append((line, curve.label))
    edge = np.exp(0.7 * step * (len(data.curves) + 1))
    axes.set_xlim(data.sizes[0] / edge, data.sizes[-1] * edge)
    axes.set_xticks(data.sizes, data.size_labels, rotation=45 if len(data.sizes) > 6 else 0)
    axes.minorticks_off()
    axes.set_xlabel("training subjects")
    axes.set_ylabel(f"{data.axis}, {data.better}")
    if data.conditional is not None:
        left, right = axes.get_xlim()
        before = [n for n in data.sizes if n < data.conditional]
        start = np.sqrt(before[-1] * data.conditional) if before else left
        axes.axvspan(start, right, color=PALE, alpha=0.5, linewidth=0, zorder=0)
        axes.set_xlim(left, right)
        entries.append((Patch(color=PALE, alpha=0.5), "seeds have nearly the same training set"))
    key(figure, entries)
    return figure


def describe(data: LearningCurves) -> str:
    """Return the means at the smallest and largest size."""
    parts = []
    for curve in data.curves:
        ends = dict.fromkeys([0, len(curve.scores) - 1]) if curve.scores else {}
        told = ", ".join(f"{curve.scores[i].text} at n={curve.sizes[i]:.0f}" for i in ends)
        parts.append(f"{curve.label}: {told or 'no mean'}")
    return (
        f"{data.axis} ({data.better}) against the number of training subjects, mean over seeds "
        f"with 95 % t interval and every run. {'; '.join(parts)}."
    )
