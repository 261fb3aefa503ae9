"""The style of all figures. Files are reproducible: the same numbers give the same bytes."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.0
"""The widths of a column and of a page of a paper, in inches."""

FORMATS = ("pdf", "svg", "png")
MEDIA = "image/svg+xml"

# The colour-blind safe palette of Okabe and Ito without yellow, which is hardly visible on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1.2)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
)
GREY = "#777777"
LIGHT = "#AAAAAA"
PALE = "#D9D9D9"

_STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "figure.titlesize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "savefig.dpi": 250,
    # A $ in a name is not the start of a formula.
    "text.parse_math": False,
    # Fonts are embedded, so that files look the same on all machines.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    # A fixed salt makes the ids in SVG files reproducible.
    "svg.hashsalt": "slicebench",
}
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": "slicebench"},
    "svg": {"Date": None, "Creator": "slicebench"},
    "png": {"Software": "slicebench"},
}

_PLACE = re.compile(rb' (?:d|x|y)="[^"]*"')
_LONG = re.compile(rb"-?\d+\.\d{3,}")


class ModelStyle(NamedTuple):
    """Colour, marker and dash pattern of a model, so that figures can be read without colour."""

    colour: str
    marker: str
    dash: Any


def model_style(index: int) -> ModelStyle:
    """Return the style of a model; the first 70 differ, and neighbours differ in all three."""
    return ModelStyle(
        COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)]
    )


@contextmanager
def styled() -> Iterator[None]:
    """Use this style for drawing and saving, whatever the user's matplotlib settings are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def canvas(width: float, height: float, title: str) -> Figure:
    """Return an empty figure with a title; sizes are in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(fold(title, int(width * 18)), x=0.01, ha="left", color=GREY)
    return figure


def to_bytes(figure: Figure, format_: str) -> bytes:
    """Return a figure as a file of one of `FORMATS`; call it inside `styled`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format_, metadata=_METADATA[format_])
    data = buffer.getvalue()
    if format_ == "svg":
        # Coordinates are rounded to hundredths of a point, which makes files a third smaller.
        data = _PLACE.sub(lambda place: _LONG.sub(_hundredths, place[0]), data)
    return data


def _hundredths(found: re.Match[bytes]) -> bytes:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".").encode()


def fold(text: str, width: int) -> str:
    """Break a text into lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False)) or text


def key(figure: Figure, entries: Sequence[tuple[Artist, str]]) -> None:
    """Put the key below the axes, in as many columns as the longest label allows."""
    labels = [fold(label, 60) for _, label in entries]
    longest = max(len(line) for label in labels for line in label.splitlines())
    width, height = figure.get_size_inches()
    columns = int(np.clip(width // (0.052 * longest + 0.5), 1, len(labels)))
    # Labels are set afterwards, because a legend omits labels that begin with an underscore.
    legend = figure.legend(
        [handle for handle, _ in entries],
        [str(i) for i in range(len(labels))],
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.2,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
    lines = sum(label.count("\n") + 1 for label in labels)
    figure.set_size_inches(width, height + 0.14 * -(-lines // columns))


def columns_for(n: int) -> int:
    """Return the number of panels in a row: at most four, with few gaps in the last row."""
    return n if n <= 4 else min((4, 3), key=lambda columns: -n % columns)


def panels(
    figure: Figure, n: int, columns: int, *, rows: int = 1, heights: Sequence[float] = (1,)
) -> list[tuple[Axes, ...]]:
    """Return `n` panels with shared axes, each with `rows` axes one above the other.

    Parameters
    ----------
    figure : Figure
        Empty.
    n, columns : int
        The number of panels, and of panels in a row.
    rows : int
        The number of axes per panel.
    heights : sequence of float
        The relative heights of these axes.
    """
    deep = -(-n // columns)
    grid = figure.subplots(
        deep * rows,
        columns,
        squeeze=False,
        sharex=True,
        gridspec_kw={"height_ratios": list(heights) * deep},
    )
    found = []
    for place in range(deep * columns):
        top, left = divmod(place, columns)
        axes = tuple(grid[top * rows + row][left] for row in range(rows))
        if place < n:
            found.append(axes)
        else:
            for each in axes:
                each.set_visible(False)
                each.set_in_layout(False)
    for place, axes in enumerate(found):
        below = place + columns < n
        for row, each in enumerate(axes):
            each.tick_params(labelbottom=not below and row == rows - 1)
    return found


def segments(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, *, vertical: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return all ranges as one interrupted line, which makes files much smaller than many lines."""
    along = np.column_stack([x, x, np.full(len(x), np.nan)]).ravel()
    across = np.column_stack([low, high, np.full(len(x), np.nan)]).ravel()
    return (along, across) if vertical else (across, along)


def plain_log(axes: Axes, values: np.ndarray) -> None:
    """Label a logarithmic x axis with plain numbers, few enough not to overlap."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    known = values[np.isfinite(values)]
    decades = float(np.log10(known.max() / known.min()))
    subs = (1,) if decades > 1.5 else (1, 2, 5) if decades > 0.6 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axes.xaxis.set_major_locator(LogLocator(10, subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
