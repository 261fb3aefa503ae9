"""What the three OASIS cohorts share: the Clinical Dementia Rating, and folders of sessions."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from bench.data.adapters.reading import listed
from registry.errors import UserError

SEXES = {"M": "M", "F": "F", "1": "M", "2": "F"}


def diagnoses(cdr: pd.Series, file: Path) -> pd.Series:
    """Return the diagnosis that a Clinical Dementia Rating stands for, ``""`` where it is blank.

    0 is CN, 0.5 MCI (very mild), 1 and more AD. Young adults were not rated: blank is not 0.

    Raises
    ------
    UserError
        When a value is no rating.
    """
    rating = pd.to_numeric(cdr, errors="coerce")
    wrong = (cdr != "") & ~rating.isin([0, 0.5, 1, 2, 3])
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {cdr.name!r} that are no CDR (0, 0.5, 1, 2, 3): "
            f"{listed(cdr[wrong].unique())}."
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
        ``path`` (of a pair the ``.img``), ``subject_id``, ``session_id``.

    Raises
    ------
    UserError
        When there is none.
    """
    rows = []
    for folder, _, names in os.walk(root, followlinks=True):
        place = Path(folder).relative_to(root)
        for name in names:
            path = (place / name).as_posix()
            match = session.search(path)
            if match and name.removesuffix(".gz").endswith((".img", ".nii")):
                rows.append((path, match[1], match[2]))
    if not rows:
        raise UserError(
            f"There is no image of {what} in {root}: no path of a .img, .nii or .nii.gz file below "
            f"it matches {session.pattern}."
        )
    return pd.DataFrame(sorted(rows), columns=["path", "subject_id", "session_id"])
