"""ROC curves: the mean over seeds with its t interval, and the AUC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.report.plots.source import Source, need_finished
from bench.report.plots.style import (
    COLUMN,
    GREY,
    LIGHT,
    PAGE,
    canvas,
    columns_for,
    fold,
    key,
    model_style,
    panels,
)
from bench.report.words import one_line
from bench.stats.metrics import metric_of
from bench.stats.operating import MeanRoc, mean_roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

TOGETHER = 3
"""Up to this number of models, curves share one panel; more models have one panel each."""


@dataclass(frozen=True)
class RocCurve:
    """One model: its mean curve, and its AUC as printed in the report."""

    label: str
    style: int
    curve: MeanRoc
    auc: str


@dataclass(frozen=True)
class RocCurves:
    """The models, best first, and the positive class."""

    title: str
    positive: str
    n_subjects: int
    curves: tuple[RocCurve, ...]


def gather(source: Source) -> RocCurves:
    """Average the ROC curves of all rows with a finished run."""
    by_auc = replace(source, metric=metric_of("auc"))
    curves = []
    for row in need_finished(source, 1):
        stack = source.predictions(row)
        curves.append(
            RocCurve(
                label=row.label,
                style=source.style_index(row),
                curve=mean_roc(
                    source.evidence.truth, stack, 101 if source.max_points is None else 51
                ),
                auc=f"AUC {by_auc.score(row).text}",
            )
        )
    return RocCurves(
        title=source.title,
        positive=one_line(source.protocol.dataset["classes"][1]),
        n_subjects=source.evidence.n_subjects,
        curves=tuple(curves),
    )


def draw(data: RocCurves) -> Figure:
    """Draw few models together, or many in one panel each, with the best one for reference."""
    n = len(data.curves)
    if n <= TOGETHER:
        figure = canvas(COLUMN, 3.1, data.title)
        axes = figure.subplots()
        entries = [(_curve(axes, each), f"{each.label}, {each.auc}") for each in data.curves]
        _square(axes)
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel(f"sensitivity for {data.positive}")
        key(figure, entries)
        return figure
    columns = columns_for(n)
    wide = PAGE / columns
    figure = canvas(PAGE, (wide + 0.25) * -(-n // columns) + 0.3, data.title)
    first = data.curves[0]
    for (axes,), each in zip(panels(figure, n, columns), data.curves, strict=True):
        if each is not first:
            axes.plot(first.curve.fpr, first.curve.tpr, color=LIGHT, linewidth=0.6)
        _curve(axes, each)
        _square(axes)
        axes.set_title(f"{fold(each.label, int(15 * wide))}\n{each.auc}")
    behind = fold(f"grey in every panel: {first.label}", 110)
    figure.supxlabel(f"1 - specificity\n{behind}", fontsize=7)
    figure.supylabel(f"sensitivity for {data.positive}", fontsize=7)
    return figure


def describe(data: RocCurves) -> str:
    """Return the AUC of every model."""
    parts = [f"{each.label}: {each.auc}" for each in data.curves]
    return (
        f"ROC curves for {data.positive} of {data.n_subjects} test subjects, mean over seeds with "
        f"95 % t interval over seeds, which covers new training runs but not new subjects. "
        f"{'; '.join(parts)}."
    )


def _curve(axes: Axes, each: RocCurve) -> Line2D:
    colour, _, dash = model_style(each.style)
    curve = each.curve
    if np.isfinite(curve.low).all():
        axes.fill_between(curve.fpr, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    (line,) = axes.plot(curve.fpr, curve.tpr, color=colour, linestyle=dash)
    return line


def _square(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.5, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_aspect("equal")
