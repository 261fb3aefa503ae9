"""Figures of the results in a database, for files and for HTML reports.

Every kind of figure is a module with three functions: `gather` reads the database into arrays and
labels, `draw` plots them, and `describe` returns the main numbers as alternative text. matplotlib
is imported only when a figure is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from bench.report.data import SectionData
from bench.report.plots import (
    ages,
    calibration,
    cohorts,
    forest,
    heatmap,
    learning,
    pareto,
    roc,
    subjects,
)
from bench.report.plots.source import FigureRequest, Source, load_source
from bench.report.plots.style import FORMATS, MEDIA, styled, to_bytes
from bench.report.table import Picture
from bench.store.store import Store
from registry.core import did_you_mean
from registry.errors import UserError

__all__ = [
    "FORMATS",
    "KINDS",
    "FigureKind",
    "FigureRequest",
    "RenderedFigure",
    "check_figure",
    "figure",
    "pictures_for",
]


@dataclass(frozen=True)
class FigureKind:
    """A kind of figure: its title and module, the options that it accepts, and its tasks."""

    title: str
    steps: ModuleType
    options: tuple[str, ...] = ("metric", "size")
    tasks: tuple[str, ...] = ("regression", "binary", "multiclass")
    several: bool = False
    """Whether it shows several cohorts at once."""


KINDS: dict[str, FigureKind] = {
    "learning-curves": FigureKind("Learning curves", learning, ("metric",)),
    "forest": FigureKind("Differences", forest),
    "heatmap": FigureKind("All pairs", heatmap),
    "predicted-true": FigureKind("Predicted against true", ages, tasks=("regression",)),
    "roc": FigureKind("ROC curves", roc, ("size",), ("binary",)),
    "calibration": FigureKind("Calibration", calibration, ("size",), ("binary",)),
    "subjects": FigureKind("Two models by subject", subjects, ("size",)),
    "pareto": FigureKind("Accuracy against cost", pareto, ("metric",)),
    "critical-difference": FigureKind("Mean ranks", cohorts, ("metric",), several=True),
}
"""All kinds of figures by their name on the command line."""


@dataclass(frozen=True)
class RenderedFigure:
    """The contents of a figure file, and a description of the figure as text."""

    data: bytes
    description: str


def figure(store: Store, name: str, request: FigureRequest, format_: str = "pdf") -> RenderedFigure:
    """Draw one figure of the results in a database.

    Parameters
    ----------
    store : Store
        Open for reading.
    name : str
        A key of `KINDS`.
    request : FigureRequest
        What to show.
    format_ : str
        One of `FORMATS`.

    Raises
    ------
    UserError
        If there is no such kind or format, an option does not apply to it, or the database does
        not contain the results that it shows.
    """
    check_figure(name, format_)
    kind = KINDS[name]
    for option in ("metric", "size"):
        if getattr(request, option) is not None and option not in kind.options:
            raise UserError(f"--{option} does not apply to the figure {name}; omit it.")
    source = load_source(store, name, kind.tasks, request, several=kind.several)
    return _draw(kind, kind.steps.gather(source), format_)


def check_figure(name: str, format_: str) -> None:
    """Check that a kind of figure and a format exist.

    Raises
    ------
    UserError
        If one of them does not exist; the message lists those that do.
    """
    if name not in KINDS:
        raise UserError(
            f"There is no figure {name!r}{did_you_mean(name, KINDS)}; choose one of "
            f"{', '.join(KINDS)}."
        )
    if format_ not in FORMATS:
        raise UserError(
            f"Figures cannot be written as {format_!r}{did_you_mean(format_, FORMATS)}; choose one "
            f"of {', '.join(FORMATS)}."
        )


def pictures_for(data: SectionData) -> tuple[Picture, ...]:
    """Return the figures of a section as SVG, small enough to be embedded in a page.

    Parameters
    ----------
    data : SectionData
        The data of the section.

    Returns
    -------
    tuple of Picture
        Figures for which there are not enough results are omitted.
    """
    protocol, everyone = data.protocol, tuple(data.rows)
    source = Source(
        store=data.store,
        protocol=protocol,
        evidence=data.evidence,
        everyone=everyone,
        rows=everyone,
        metric=data.primary,
        size=protocol.primary_size,
        reference=data.reference,
        max_points=MAX_POINTS,
    )
    pictures = []
    for name, most_rows in PAGE.items():
        kind = KINDS[name]
        if protocol.task not in kind.tasks or (
            name == "learning-curves" and len(protocol.sizes) < 2
        ):
            continue
        shown = everyone[:most_rows]
        try:
            shape = kind.steps.gather(replace(source, rows=shown))
        except UserError:
            continue
        drawn = _draw(kind, shape, "svg")
        title = f"{kind.title}, {shape.title}"
        if len(shown) < len(everyone):
            title += f", the first {len(shown)} of {len(everyone)} models"
        pictures.append(Picture(title, drawn.data, drawn.description, MEDIA))
    return tuple(pictures)


MAX_PANELS = 8
PAGE: dict[str, int | None] = {
    "learning-curves": None,
    "forest": None,
    "roc": MAX_PANELS,
    "calibration": MAX_PANELS,
    "predicted-true": MAX_PANELS,
    "pareto": None,
}
"""The figures of a page in their order, with the maximum number of rows of each."""

MAX_POINTS = 500
"""The maximum number of points in a figure of a page, which limits the size of the page."""


def _draw(kind: FigureKind, data: Any, format_: str) -> RenderedFigure:
    with styled():
        return RenderedFigure(to_bytes(kind.steps.draw(data), format_), kind.steps.describe(data))
