"""Figures of a store: what each kind shows, as a file or as pictures of a page.

Every kind is a module with three steps: `gather` reads the store into plain arrays and labels,
`draw` lays these out, `words` says the main numbers to those who do not see the figure. matplotlib
is imported only when something is drawn.
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
    """A kind of figure: its title, its module, the choices that change it, the tasks it shows."""

    title: str
    steps: ModuleType
    takes: tuple[str, ...] = ("metric", "size")
    tasks: tuple[str, ...] = ("regression", "binary", "multiclass")
    several: bool = False
    """Whether it is of several cohorts at once."""


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
"""Every figure by its name on the command line."""


@dataclass(frozen=True)
class RenderedFigure:
    """A figure as a file, and the same in words."""

    data: bytes
    description: str


def figure(store: Store, name: str, request: FigureRequest, format_: str = "pdf") -> RenderedFigure:
    """Draw one figure of what a store holds.

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
        When there is no such kind or format, a choice does not belong to it, or the store does
        not hold what it shows.
    """
    check_figure(name, format_)
    kind = KINDS[name]
    for choice in ("metric", "size"):
        if getattr(request, choice) is not None and choice not in kind.takes:
            raise UserError(f"--{choice} does not change a figure of {name}; leave it out.")
    source = load_source(store, name, kind.tasks, request, several=kind.several)
    return _draw(kind, kind.steps.gather(source), format_)


def check_figure(name: str, format_: str) -> None:
    """Refuse a kind of figure or a format that does not exist.

    Raises
    ------
    UserError
        Which says what there is.
    """
    if name not in KINDS:
        raise UserError(
            f"{name}: there is no such figure{did_you_mean(name, KINDS)}; there are "
            f"{', '.join(KINDS)}."
        )
    if format_ not in FORMATS:
        raise UserError(
            f"A figure is written as {', '.join(FORMATS)}, not as {format_!r}"
            f"{did_you_mean(format_, FORMATS)}."
        )


def pictures_for(data: SectionData) -> tuple[Picture, ...]:
    """Return the figures of a report's section, small enough for a page that holds everything.

    Parameters
    ----------
    data : SectionData
        What the section is made from.

    Returns
    -------
    tuple of Picture
        SVG. A figure for which the store holds too little is left out.
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
"""The figures of a page in their order, and of how many rows each is at most."""

MAX_POINTS = 500
"""Points of a figure of a page: more would make the page heavy and nothing clearer."""


def _draw(kind: FigureKind, data: Any, format_: str) -> RenderedFigure:
    with styled():
        return RenderedFigure(to_bytes(kind.steps.draw(data), format_), kind.steps.describe(data))
