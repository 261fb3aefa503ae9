"""A picture of a few subjects, before and after conforming, and of the slices that models see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data import volume
from bench.data.formats import ScanError
from bench.data.listing import Listing
from registry.errors import UserError
from registry.models import MODELS, model_options

MOST = 6
PLANES = ("sagittal", "coronal", "axial")


def draw(listing: Listing, out: Path) -> None:
    """Draw three planes of a few subjects as they are and as models get them.

    Parameters
    ----------
    listing : Listing
        The scans; subjects are taken evenly from the classes, or from youngest to oldest.
    out : Path
        PNG, PDF or SVG.

    Raises
    ------
    UserError
        When no scan can be read, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    conform, target = listing.conform, listing.request.target
    shown: list[tuple[str, NDArray[Any], NDArray[Any]]] = []
    for index in _choice(listing.chosen, target):
        scan = listing.chosen.loc[[index]].iloc[0]
        try:
            before = volume.load(Path(str(scan["file"])))
            after = volume.conform(before, conform.target, conform.space)
        except ScanError:
            continue
        shown.append((_label(scan), before.data, after))
    if not shown:
        raise UserError(
            f"None of the scans of {listing.request.name} that were looked at can be read."
        )
    figure = Figure(figsize=(13, 2.3 * len(shown) + 0.7), layout="constrained")
    axes = figure.subplots(len(shown), 6, squeeze=False)
    every, few = _slices(conform.target.shape[0])
    for row, (label, before_data, after) in zip(axes, shown, strict=True):
        for column, plane in enumerate(PLANES):
            _show(row[column], before_data, column)
            _show(row[column + 3], after, column)
            row[column].set_title(f"{plane}, as it is", fontsize=8)
            row[column + 3].set_title(f"{plane}, conformed", fontsize=8)
        # Sagittal slices are seen from the side: here they are lines in the other two planes.
        for axis in row[4:]:
            for x in every if len(every) < after.shape[0] else ():
                axis.axvline(x, color="#56b4e9", linewidth=0.3, alpha=0.7)
            for x in few:
                axis.axvline(x, color="#e69f00", linewidth=0.8)
        row[0].set_ylabel(label, fontsize=8)
    figure.suptitle(
        f"{listing.request.name}: 2D-slice models see {len(every)} of {after.shape[0]} sagittal "
        f"slices, few-slice models {len(few)} (orange)",
        fontsize=9,
    )
    try:
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"--out {out}: the picture cannot be written: {error}.") from None


def _choice(scans: pd.DataFrame, target: str) -> list[int]:
    """Return a few scans, evenly from the classes or over the ages."""
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
    """Return the sagittal slices that 2D-slice and few-slice models see with their defaults."""
    cards = {card.name: card for card in MODELS}
    few, every = (model_options(cards[name]) for name in ("fewslice-imagenet", "slice2d-imagenet"))
    k, spacing = int(few["k"].default), int(few["spacing"].default)
    span = (k - 1) * spacing + 1
    start = (n - span) // 2
    stride = int(every["stride"].default)
    return list(range(0, n, stride)), list(range(start, start + span, spacing))


def _show(axis: Any, data: NDArray[Any], along: int) -> None:
    plane = np.take(data, data.shape[along] // 2, axis=along)
    low, high = np.percentile(data[::3, ::3, ::3], (1, 99.5))
    axis.imshow(plane.T, origin="lower", cmap="gray", vmin=low, vmax=high, aspect="equal")
    axis.set_xticks([])
    axis.set_yticks([])
