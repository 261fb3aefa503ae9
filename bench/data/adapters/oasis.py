"""What the three OASIS cohorts share: the Clinical Dementia Rating, and folders of sessions."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.data.adapters.reading import listed, space_of
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


def rank_of(name: str) -> str:
    """Return a text that sorts images of one visit: MNI space first, then the lowest name.

    Numbers in names count as numbers: ``run-2`` comes before ``run-10``.
    """
    numbered = re.sub(r"\d+", lambda number: number[0].zfill(6), name)
    return ("0" if space_of(name) == "mni" else "1") + numbered


def by_id(table: pd.DataFrame, key: str, columns: Sequence[str], file: Path) -> pd.DataFrame:
    """Return columns of a table, indexed by its ids.

    Raises
    ------
    UserError
        When two rows of one id differ.
    """
    rows = table.loc[table[key] != "", [key, *columns]].drop_duplicates()
    again = rows[key].duplicated()
    if again.any():
        raise UserError(
            f"{file} has rows for {listed(rows.loc[again, key].unique())} that contradict each "
            "other; keep one row each."
        )
    return rows.set_index(key)
