"""What the three OASIS cohorts share: the Clinical Dementia Rating, and folders of sessions."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from bench.data.adapters.contrast import why_no_scan
from bench.data.adapters.reading import listed, space_of
from bench.data.adapters.walk import Walk, is_image
from registry.errors import UserError

SEXES = {"1": "M", "2": "F"}


def diagnoses(cdr: pd.Series, file: Path) -> pd.Series:
    """Return the diagnosis that a Clinical Dementia Rating stands for, ``""`` where it is blank.

    0 is CN, 0.5 MCI (very mild), 1 and more AD. Young adults were not rated: blank is not 0.

    Raises
    ------
    UserError
        When a value is no rating.
    """
    rating = pd.to_numeric(cdr.str.replace(",", ".", regex=False), errors="coerce")
    wrong = (cdr != "") & ~rating.isin([0, 0.5, 1, 2, 3])
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {cdr.name!r} that are no CDR (0, 0.5, 1, 2, 3): "
            f"{listed(cdr[wrong].unique())}; write n/a where it was not rated."
        )
    return rating.map({0: "CN", 0.5: "MCI", 1: "AD", 2: "AD", 3: "AD"}).fillna("").astype(str)


def find_images(root: Path, session: re.Pattern[str], what: str) -> pd.DataFrame:
    """List the images in the folders of sessions.

    Parameters
    ----------
    root : Path
        Holds the folders of sessions, at any depth.
    session : pattern
        Finds subject and session in a path relative to the root.
    what : str
        The cohort, for the error.

    Returns
    -------
    DataFrame
        ``path`` (of a pair the ``.img``), ``subject_id``, ``session_id``, ``reason``;
        ``attrs["warnings"]``.

    Raises
    ------
    UserError
        When there is none.
    """
    rows = []
    walk = Walk(root)
    for path, name, reason in walk:
        match = session.search(path)
        if match and is_image(name):
            rows.append((path, match[1], match[2], reason or why_no_scan(name)))
    if not rows:
        raise walk.nothing(
            f"There is no image of {what} in {root}: no path of a .img, .nii or .nii.gz file below "
            f"it matches {session.pattern}."
        )
    images = pd.DataFrame(rows, columns=["path", "subject_id", "session_id", "reason"])
    images.attrs["warnings"] = walk.warnings
    return images


def rank_of(name: str) -> str:
    """Return a text that sorts images of one visit: MNI space first, then the lowest name."""
    return ("0" if space_of(name) == "mni" else "1") + name
