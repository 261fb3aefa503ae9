"""Reliability curves: observed against predicted probability of the positive class."""

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
    model_style,
    panels,
    segments,
)
from bench.report.words import one_line
from bench.stats.calibration import Reliability, reliability
from bench.stats.metrics import metric_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CalibrationPanel:
    """One model.

    Parameters
    ----------
    mean : Reliability
        The curve of each subject's mean prediction over seeds, in which a subject counts once,
        as the Wilson intervals assume.
    runs : tuple of Reliability
        The curve of each run.
    brier : str
        The Brier score as printed in the report.
    """

    label: str
    style: int
    mean: Reliability
    runs: tuple[Reliability, ...]
    brier: str


@dataclass(frozen=True)
class Calibration:
    """The models, best first."""

    title: str
    positive: str
    n_subjects: int
    panels: tuple[CalibrationPanel, ...]


def gather(source: Source) -> Calibration:
    """Bin the test predictions of all rows with a finished run."""
    truth = source.evidence.truth
    by_brier = replace(source, metric=metric_of("brier"))
    found = []
    for row in need_finished(source, 1):
        stack = source.predictions(row)
        found.append(
            CalibrationPanel(
                label=row.label,
                style=source.style_index(row),
                mean=reliability(truth, stack.mean(axis=0)),
                runs=tuple(reliability(truth, run) for run in stack),
                brier=f"Brier {by_brier.score(row).text}",
            )
        )
    return Calibration(
        title=source.title,
        positive=one_line(source.protocol.dataset["classes"][1]),
        n_subjects=len(truth),
        panels=tuple(found),
    )


def draw(data: Calibration) -> Figure:
    """Draw a panel per model, with the distribution of the predicted probabilities below."""
    n = len(data.panels)
    columns = columns_for(n)
    width = COLUMN if columns < 3 else PAGE
    figure = canvas(width, (width / columns + 0.75) * -(-n // columns) + 0.3, data.title)
    grid = panels(figure, n, columns, rows=2, heights=(3, 1))
    highest = max(int(panel.mean.counts.max()) for panel in data.panels)
    for (axes, below), panel in zip(grid, data.panels, strict=True):
        colour, marker, _ = model_style(panel.style)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.5, linestyle=":")
        for run in panel.runs:
            full = run.counts > 0
            rate = np.array([share.value for share in run.observed])
            axes.plot(run.predicted[full], rate[full], color=LIGHT, linewidth=0.4)
        full = panel.mean.counts > 0
        shares = [share for share, any_ in zip(panel.mean.observed, full, strict=True) if any_]
        x = panel.mean.predicted[full]
        low = np.array([share.low for share in shares])
        high = np.array([share.high for share in shares])
        axes.plot(*segments(x, low, high), color=colour, linewidth=0.8)
        axes.plot(x, [share.value for share in shares], marker, color=colour, markersize=3)
        axes.set_title(f"{fold(panel.label, int(15 * width / columns))}\n{panel.brier}")
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        below.stairs(panel.mean.counts, panel.mean.edges, color=colour, fill=True)
        below.set_ylim(0, 1.05 * max(highest, 1))
        below.set_yticks([0, highest])
        below.set_xlim(-0.03, 1.03)
        below.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    figure.supxlabel(f"predicted probability of {data.positive}", fontsize=7)
    figure.supylabel(f"proportion of {data.positive}; below: number of subjects", fontsize=7)
    return figure


def describe(data: Calibration) -> str:
    """Return the Brier score of every model."""
    parts = [f"{panel.label}: {panel.brier}" for panel in data.panels]
    return (
        f"Proportion of {data.positive} among {data.n_subjects} test subjects against the "
        f"predicted probability, in {len(data.panels[0].mean.counts)} bins. Points: each subject's "
        "mean prediction over seeds, with 95 % Wilson interval; thin lines: single runs; below: "
        "number of subjects by predicted probability. Brier score, mean over seeds with 95 % t "
        f"interval: {'; '.join(parts)}."
    )
