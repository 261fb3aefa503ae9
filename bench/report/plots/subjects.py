"""The losses of two models for each subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.report.plots.source import Floats, Source, need_finished, spread_evenly
from bench.report.plots.style import COLUMN, GREY, canvas, key, model_style
from bench.report.select import Row
from bench.report.words import capitalised, one_line
from bench.stats.metrics import terms_of
from registry.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = {
    "regression": ("mae", "absolute error (years)"),
    "binary": ("brier", "squared error of P(positive)"),
    "multiclass": ("log_loss", "log loss"),
}
"""The metric whose terms are the losses of subjects, and the label of a loss, by task."""


@dataclass(frozen=True)
class Subjects:
    """The losses of each shown subject (M,) with models A and B, averaged over seeds.

    Parameters
    ----------
    group : int array (M,)
        The class of each subject; 0 for regression.
    groups : tuple of str
        The names of the classes; one empty name for regression.
    better : float
        The proportion of subjects with a smaller loss with A; ties count one half.
    """

    title: str
    axis: str
    a: str
    b: str
    loss_a: Floats
    loss_b: Floats
    group: np.ndarray
    groups: tuple[str, ...]
    better: float
    n_subjects: int


def gather(source: Source) -> Subjects:
    """Read the losses of the two requested rows, or of the two best ones."""
    rows = need_finished(source, 2)
    if source.chosen and len(source.rows) != 2:
        labels = ", ".join(repr(row.label) for row in source.rows)
        raise UserError(
            f"This figure shows two models, but --models selects {len(source.rows)}: {labels}."
        )
    name, axis = LOSSES[source.protocol.task]
    a, b = (_losses(source, row, name) for row in rows[:2])
    truth = source.evidence.truth
    classes = tuple(map(one_line, source.protocol.dataset["classes"]))
    shown = spread_evenly(a - b, source.max_points)
    return Subjects(
        title=source.title,
        axis=f"{axis}, mean over seeds",
        a=rows[0].label,
        b=rows[1].label,
        loss_a=a[shown],
        loss_b=b[shown],
        group=truth[shown].astype(int) if classes else np.zeros(len(shown), dtype=int),
        groups=classes or ("",),
        better=float(np.mean((a < b) + 0.5 * (a == b))),
        n_subjects=len(truth),
    )


def draw(data: Subjects) -> Figure:
    """Draw one point per subject; above the line, A is better."""
    figure = canvas(COLUMN, COLUMN, data.title)
    axes = figure.subplots()
    largest = 1.04 * float(max(data.loss_a.max(), data.loss_b.max())) or 1.0
    axes.plot([0, largest], [0, largest], color=GREY, linewidth=0.8)
    size = float(np.clip(40 / np.sqrt(len(data.loss_a)), 1, 4))
    entries = []
    for number, name in enumerate(data.groups):
        colour, marker, _ = model_style(number)
        members = data.group == number
        (points,) = axes.plot(
            data.loss_a[members],
            data.loss_b[members],
            marker,
            markerfacecolor="none",
            markeredgecolor=colour,
            markeredgewidth=0.8,
            markersize=size,
        )
        entries.append((points, name))
    axes.set_xlim(0, largest)
    axes.set_ylim(0, largest)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{data.a}\n{data.axis}")
    axes.set_ylabel(f"{data.b}\n{data.axis}")
    axes.set_title(_share(data), loc="left")
    if len(data.groups) > 1:
        key(figure, entries)
    return figure


def describe(data: Subjects) -> str:
    """Return the proportion of subjects for which A is better."""
    return f"{capitalised(data.axis)} for each test subject and two models. {_share(data)}."


def _share(data: Subjects) -> str:
    return (
        f"{data.a} is better for {100 * data.better:.0f} % of {data.n_subjects} subjects"
        f"{_shown(data)}"
    )


def _shown(data: Subjects) -> str:
    drawn = len(data.loss_a)
    return "" if drawn == data.n_subjects else f" ({drawn} drawn)"


def _losses(source: Source, row: Row, name: str) -> Floats:
    """Return the loss of every subject (N,), averaged over seeds."""
    stack = source.evidence.stack(source.protocol.at(row, source.size))
    return np.mean([terms_of(name, source.evidence.truth, run, 0.5) for run in stack], axis=0)
