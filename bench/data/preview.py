"""A figure of a few scans before and after preparation, with the slices used by models."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from bench.data import volume
from bench.data.formats import ScanError
from bench.data.listing import Listing
from bench.data.volume import Volume
from bench.files import write_output
from registry.errors import UserError
from registry.models import MODELS, model_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 6
PLANES = ("sagittal", "coronal", "axial")
ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
"""Letters of the two ends of the x, y and z axes in RAS order."""


def draw(listing: Listing, out: Path) -> list[str]:
    """Write the figure of `picture` to a file, and return notes for the user.

    Parameters
    ----------
    listing : Listing
        The scans.
    out : Path
        File to write, as PNG, PDF or SVG.

    Raises
    ------
    UserError
        If no scan can be read, or if the figure cannot be written.
    """
    figure, notes = picture(listing)
    content = io.BytesIO()
    try:
        figure.savefig(content, dpi=150, format=out.suffix.lower().lstrip(".") or "png")
    except ValueError as error:
        raise UserError(
            f"--out {out}: the figure cannot be written ({error}); use a name that ends in .png, "
            ".pdf or .svg."
        ) from None
    write_output(out, content.getvalue())
    return notes


def picture(listing: Listing) -> tuple[Figure, list[str]]:
    """Plot three planes of a few subjects before and after preparation.

    The letters at the edges are the directions given by the header: left (L), right (R), anterior
    (A), posterior (P), superior (S), inferior (I). They are followed by a question mark if the
    header gives no orientation, as in Analyze files. Voxels are drawn in proportion to their size.

    Parameters
    ----------
    listing : Listing
        The scans; subjects are chosen evenly from the classes, or from youngest to oldest.

    Returns
    -------
    figure : Figure
        One row per subject, with the original scan on the left and the prepared volume on the
        right.
    notes : list of str
        A note on each scan that cannot be read, and one if the headers of any scans give no
        orientation.

    Raises
    ------
    UserError
        If no scan can be read.
    """
    from matplotlib.figure import Figure

    conform, request = listing.conform, listing.request
    shown: list[tuple[str, Volume, NDArray[Any]]] = []
    notes = []
    for index in _choice(listing.chosen, request.target):
        scan = listing.chosen.loc[[index]].iloc[0]
        try:
            before = volume.load(Path(str(scan["file"])))
            placed = before
            if conform.register == "affine":
                from bench.data.register import registered

                placed = registered(before)
            after = volume.conform(placed, conform.target, conform.space)
        except ScanError as error:
            notes.append(f"Not shown: {scan['path']}: {error}.")
            continue
        shown.append((_label(scan), before, after))
    if not shown:
        raise UserError(
            f"None of the scans of {request.name} can be shown; use `bench data check` to find "
            f"usable ones. {' '.join(notes)}"
        )
    unknown = sum(not before.info.oriented for _, before, _ in shown)
    if unknown:
        notes.append(
            f"In {unknown} of the {len(shown)} scans shown the header gives no orientation, so L? "
            "and R? are guesses; convert the scans to NIfTI with a program that knows their "
            "orientation."
        )
    figure = Figure(figsize=(13, 2.3 * len(shown) + 0.7), layout="constrained")
    axes = figure.subplots(len(shown), 6, squeeze=False)
    all_kept, few = _slices(conform.target.shape[0])
    for row, (label, before, after) in zip(axes, shown, strict=True):
        doubt = "" if before.info.oriented else "?"
        for column, plane in enumerate(PLANES):
            _show(row[column], before.data, column, voxel_sizes(before.affine), doubt)
            _show(row[column + 3], after, column, np.ones(3), doubt)
            row[column].set_title(f"{plane}, original", fontsize=8)
            row[column + 3].set_title(f"{plane}, prepared", fontsize=8)
        # Sagittal slices appear as lines in the other two planes.
        for axis in row[4:]:
            for x in all_kept if len(all_kept) < after.shape[0] else ():
                axis.axvline(x, color="#56b4e9", linewidth=0.3, alpha=0.7)
            for x in few:
                axis.axvline(x, color="#e69f00", linewidth=0.8)
        row[0].set_ylabel(label, fontsize=8, labelpad=12)
    figure.suptitle(
        f"{request.name}: 2D-slice models use {len(all_kept)} of {after.shape[0]} sagittal "
        f"slices, few-slice models {len(few)} (orange)",
        fontsize=9,
    )
    return figure, notes


def _choice(scans: pd.DataFrame, target: str) -> list[int]:
    """Return a few scans, chosen evenly from the classes or over the range of ages."""
    first = scans.drop_duplicates("subject_id")
    if target == "age":
        ordered = first[first["age"].notna()].sort_values("age")
        at = np.linspace(0, max(0, len(ordered) - 1), MOST).astype(int)
        return list(dict.fromkeys(ordered.index[at])) if len(ordered) else []
    labelled = first[first[target] != ""]
    classes = max(1, labelled[target].nunique())
    return [
        int(index)
        for _, part in labelled.groupby(target)
        for index in part.index[: max(1, MOST // classes)]
    ]


def _label(scan: pd.Series) -> str:
    age = "" if pd.isna(scan["age"]) else f"{scan['age']:.0f} years"
    return "\n".join(word for word in (str(scan["diagnosis"]), age, str(scan["sex"])) if word)


def _slices(n: int) -> tuple[list[int], list[int]]:
    """Return the sagittal slices that 2D-slice and few-slice models use by default."""
    cards = {card.name: card for card in MODELS}
    few, whole = (model_options(cards[name]) for name in ("fewslice-imagenet", "slice2d-imagenet"))
    k, spacing = int(few["k"].default), int(few["spacing"].default)
    span = (k - 1) * spacing + 1
    start = (n - span) // 2
    stride = int(whole["stride"].default)
    return list(range(0, n, stride)), list(range(start, start + span, spacing))


def _show(
    axis: Any, data: NDArray[Any], along: int, voxel_mm: NDArray[np.float64], doubt: str
) -> None:
    """Plot the central plane along one axis, with letters at its four edges."""
    plane = np.take(data, data.shape[along] // 2, axis=along)
    low, high = np.percentile(data[::3, ::3, ::3], (1, 99.5))
    across, up = (other for other in range(3) if other != along)
    aspect = float(voxel_mm[up] / voxel_mm[across])
    axis.imshow(plane.T, origin="lower", cmap="gray", vmin=low, vmax=high, aspect=aspect)
    axis.set_xticks([])
    axis.set_yticks([])
    (left, right), (bottom, top) = ENDS[across], ENDS[up]
    for x, y, letter in ((0, 0.5, left), (1, 0.5, right), (0.5, 0, bottom), (0.5, 1, top)):
        axis.text(
            *(0.04 + 0.92 * x, 0.05 + 0.9 * y),
            letter + doubt,
            transform=axis.transAxes,
            color="yellow",
            fontsize=7,
            ha="center",
            va="center",
        )
