"""Common parts of the three OASIS cohorts: the Clinical Dementia Rating, and session folders."""

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
    """Return the diagnosis for each Clinical Dementia Rating, ``""`` if it is blank.

    0 is CN, 0.5 (very mild) is MCI, and 1 or more is AD. Young adults were not rated, so a blank
    does not mean 0.

    Raises
    ------
    UserError
        If a value is not a rating.
    """
    rating = pd.to_numeric(cdr.str.replace(",", ".", regex=False), errors="coerce")
    wrong = (cdr != "") & ~rating.isin([0, 0.5, 1, 2, 3])
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {cdr.name!r} that are not a CDR (0, 0.5, 1, 2, 3): "
            f"{listed(cdr[wrong].unique())}; use n/a for subjects without a rating."
        )
    return rating.map({0: "CN", 0.5: "MCI", 1: "AD", 2: "AD", 3: "AD"}).fillna("").astype(str)


def find_images(root: Path, session: re.Pattern[str], what: str) -> pd.DataFrame:
    """List the images in session folders.

    Parameters
    ----------
    root : Path
        The directory that contains the session folders, at any depth.
    session : pattern
        Matches subject and session in a path relative to the root.
    what : str
        The cohort, for the error message.

    Returns
    -------
    DataFrame
        ``path`` (the ``.img`` file of a pair), ``subject_id``, ``session_id``, ``reason``;
        ``attrs["warnings"]``.

    Raises
    ------
    UserError
        If there is none.
    """
    rows = []
    walk = Walk(root)
    for path, name, reason in walk:
        match = session.search(path)
        if match and is_image(name):
            rows.append((path, match[1], match[2], reason or why_no_scan(name)))
    if not rows:
        raise walk.nothing(
            f"There is no image of {what} in {root}: no path of a .img, .nii or .nii.gz file "
            f"matches {session.pattern}; check --root."
        )
    images = pd.DataFrame(rows, columns=["path", "subject_id", "session_id", "reason"])
    images.attrs["warnings"] = walk.warnings
    return images


def rank_of(name: str) -> str:
    """Return the rank of an image within its visit: MNI space first, then the lowest name."""
    return ("0" if space_of(name) == "mni" else "1") + name
