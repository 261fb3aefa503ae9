"""The manifest: the scans found by an adapter in a common form, and the task of their labels."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.data.adapters.reading import listed
from bench.spec import canonical_json
from registry.cards import Task
from registry.core import counted
from registry.errors import UserError

TARGETS = ("age", "diagnosis", "sex")
TEXTS = (
    "subject_id",
    "session_id",
    "path",
    "diagnosis",
    "sex",
    "site",
    "family",
    "split",
    "source",
    "rank",
    "space",
    "reason",
)
NUMBERS = ("age", "day")
NEEDED = ("subject_id", "path")

KNOWN_ORDER = ("CN", "SMC", "EMCI", "MCI", "LMCI", "AD")
"""Diagnoses from healthy to ill; of two classes, the second is the positive one."""

MIN_SUBJECTS = 10
MIN_PER_CLASS = 5
"""With five subjects, one is in the validation set and one in the test set."""


def tidy(found: pd.DataFrame) -> pd.DataFrame:
    """Convert the table returned by an adapter to a common form.

    An adapter returns one row per scan found. Columns may have any type; only ``subject_id`` and
    ``path`` are required:

    ``subject_id, session_id`` : subject and visit; all images of one visit share both
    ``path`` : file relative to the root, or absolute; ``FILE.zip!/MEMBER`` in an archive
    ``age`` : age in years at the scan
    ``diagnosis`` : as spelled in the table; ``sex`` : F or M; ``site`` : site of the scan
    ``family, split`` : subjects that must stay together, and the set in an official split
    ``source`` : the raw label from which the target was derived, for users
    ``day`` : days since any fixed day of the subject, if visits have dates
    ``rank`` : the image with the lowest rank of a visit is used (text, in which numbers are
    compared as numbers); without ranks, a visit must have only one image
    ``space`` : ``mni`` if the file is declared to be in MNI space
    ``reason`` : the reason for excluding the scan, empty otherwise

    ``attrs["columns"]`` has the columns of the tables, ``attrs["exams"]`` the exams of all
    subjects (``subject_id, day, diagnosis``), and ``attrs["warnings"]`` messages for the user.

    Parameters
    ----------
    found : DataFrame
        The table returned by an adapter.

    Returns
    -------
    DataFrame
        All columns above (str with ``""``, or float with NaN, for missing values), sorted by
        subject, session (numbers in names are compared as numbers) and path, with the same
        ``attrs``. ``subject`` is the index of the subject in sorted order.

    Raises
    ------
    UserError
        If a required column is missing, an age is not a number, or a sex is neither F nor M.
    """
    lacking = [name for name in NEEDED if name not in found.columns]
    if lacking:
        raise UserError(
            f"The manifest of the dataset lacks the column {listed(lacking)}; its columns are "
            f"{listed(found.columns)}."
        )
    scans = pd.DataFrame(index=range(len(found)))
    for name in TEXTS:
        cells = found[name].tolist() if name in found.columns else [""] * len(found)
        scans[name] = ["" if pd.isna(cell) else str(cell) for cell in cells]
    for name in NUMBERS:
        cells = found[name].tolist() if name in found.columns else [math.nan] * len(found)
        try:
            scans[name] = pd.to_numeric(pd.Series(cells, dtype=object)).astype(float)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"The manifest of the dataset has a {name} that is not a number: {error}."
            ) from None
    wrong = sorted(set(scans["sex"]) - {"F", "M", ""})
    if wrong:
        raise UserError(
            f"The manifest of the dataset has values of sex other than F and M: {listed(wrong)}; "
            "leave unknown values empty."
        )
    scans["order"] = scans["session_id"].map(visit_key)
    scans = scans.sort_values(["subject_id", "order", "path"], ignore_index=True)
    scans = scans.drop(columns="order")
    scans["subject"] = scans["subject_id"].rank(method="dense").astype(int) - 1
    scans.attrs = {"columns": list(found.columns), **found.attrs}
    return scans


def refuse_repeats(scans: pd.DataFrame) -> None:
    """Raise UserError if two scans of one subject and visit would be used."""
    used = scans[scans["reason"] == ""]
    twice = used[used.duplicated(["subject_id", "session_id"])]
    if len(twice):
        first = twice.iloc[0]
        session = f"in session {first.session_id!r}" if first.session_id else "without a session"
        raise UserError(
            f"Subject {first.subject_id!r} has more than one scan {session} "
            f"({len(twice)} such scans in total); give each scan of a subject its own session, in "
            "a table with --data-set session=COLUMN."
        )


FIRST_VISITS = ("sc", "scmri", "screening", "bl", "baseline")
"""Names of visits that precede all others, in this order."""


def visit_key(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sorting key that puts ``bl`` before ``m06`` and ``ses-2`` before ``ses-10``."""
    if name.lower() in FIRST_VISITS:
        return ((FIRST_VISITS.index(name.lower()) - len(FIRST_VISITS) - 1, ""),)
    return tuple(
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    )


def task_of(scans: pd.DataFrame, target: str) -> Task:
    """Return the task defined by the labels of the usable scans.

    Parameters
    ----------
    scans : DataFrame
        A tidy manifest.
    target : str
        ``age``, ``diagnosis`` or ``sex``.

    Returns
    -------
    Task

    Raises
    ------
    UserError
        If no subject has that label, if all have the same, or if too few have it.
    """
    used = scans[(scans["reason"] == "") & labelled(scans, target)]
    if (scans["reason"] != "").all():
        why = "; ".join(f"{reason} ({n})" for reason, n in count_flow(scans["reason"]))
        raise UserError(f"None of the {len(scans)} scans found can be used: {why}.")
    if used.empty:
        raise UserError(
            f"No scan has a value for the target {target!r}; choose another --target, or name its "
            f"column with --data-set {target}=COLUMN. The columns are "
            f"{listed(scans.attrs['columns'])}."
        )
    if used[target].nunique() == 1:
        raise UserError(
            f"The target {target!r} is {used[target].iloc[0]!s} for every scan, so there is "
            "nothing to learn; choose another --target."
        )
    classes: tuple[str, ...] = ()
    if target != "age":
        formed = scans.attrs.get("classes") if target == "diagnosis" else None
        classes = formed or class_order(used[target].unique())
    task = Task(target, "classification" if classes else "regression", classes)
    check_sizes(used, task)
    return task


def labelled(scans: pd.DataFrame, target: str) -> pd.Series:
    """Tell which scans have the label."""
    return scans[target].notna() if target == "age" else scans[target] != ""


def check_sizes(used: pd.DataFrame, task: Task) -> None:
    """Raise UserError if there are too few subjects to split, in total or of one class."""
    n = used["subject_id"].nunique()
    if n < MIN_SUBJECTS:
        raise UserError(
            f"Only {counted(n, 'subject')} with a usable scan and a value for "
            f"{task.target!r} found, but training, validation and test sets need at least "
            f"{MIN_SUBJECTS}; add scans or choose another --target."
        )
    # The split is stratified by the first scan of each subject.
    first = used.drop_duplicates("subject_id")[task.target]
    counts = first.value_counts().reindex(list(task.classes), fill_value=0)
    if task.classes and counts.min() < MIN_PER_CLASS:
        raise UserError(
            f"The class {counts.idxmin()!r} of {task.target!r} has {counts.min()} subjects at "
            f"their first scan, but at least {MIN_PER_CLASS} are needed (there are "
            f"{', '.join(f'{n} of {name!r}' for name, n in counts.items())}); choose other "
            "classes with --classes, or replace this value by n/a in the table."
        )


def class_order(classes: Iterable[str]) -> tuple[str, ...]:
    """Return classes in order; of two classes, the second is the positive one.

    Diagnoses of the Alzheimer's continuum are ordered from healthy to ill, other classes
    alphabetically.
    """
    names = set(classes)
    if names <= set(KNOWN_ORDER):
        return tuple(name for name in KNOWN_ORDER if name in names)
    return tuple(sorted(names))


def encode(scans: pd.DataFrame, task: Task) -> pd.Series:
    """Return the label of each scan as a float: age in years, or the index of the class."""
    if task.kind == "regression":
        return scans[task.target].astype(float)
    return scans[task.target].map({name: i for i, name in enumerate(task.classes)}).astype(float)


def digest(scans: pd.DataFrame) -> str:
    """Return the sha256 of the usable scans: ids, paths, labels and voxels.

    Parameters
    ----------
    scans : DataFrame
        A tidy manifest with ``sha256`` and ``affine`` of each scan. The columns that are used do
        not contain the root.

    Returns
    -------
    str
        64 hex digits.
    """
    columns = ["subject_id", "session_id", "path", *TARGETS, "site", "sha256", "affine"]
    rows = scans.loc[scans["reason"] == "", columns]
    plain = [
        [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in row]
        for row in rows.astype(object).to_numpy().tolist()
    ]
    return sha256_of(plain)


def sha256_of(value: Any) -> str:
    """Return the sha256 of the canonical JSON of a value as hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def count_flow(reasons: Mapping[int, str] | pd.Series) -> list[tuple[str, int]]:
    """Return the reasons with their number of scans, the commonest first."""
    counts = pd.Series(reasons, dtype=str).value_counts()
    pairs = [(str(reason), int(count)) for reason, count in counts.items() if reason]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
