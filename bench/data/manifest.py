"""The manifest: what an adapter found, brought to one form, and the task that its labels pose."""

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
"""Diagnoses from healthy to ill; the last class of two is the positive one."""

MIN_SUBJECTS = 10
MIN_PER_CLASS = 5
"""One of five is validated on and one of five tested on."""


def tidy(found: pd.DataFrame) -> pd.DataFrame:
    """Bring what an adapter returned to the one form that the harness works with.

    This is what an adapter may return, one row a scan that it found, of any type; only
    ``subject_id`` and ``path`` must be there:

    ``subject_id, session_id`` : who, and at which visit; images of one visit share them
    ``path`` : the scan's file relative to the root, or absolute; ``FILE.zip!/MEMBER`` in an archive
    ``age`` : years at the scan
    ``diagnosis`` : as the table spells it; ``sex`` : F or M; ``site`` : where it was scanned
    ``family, split`` : who belongs together, and the cohort's official side
    ``source`` : the raw label that the target came from, for the manifest's readers
    ``day`` : days on an axis of the subject's own, where visits have dates
    ``rank`` : among images of one visit the lowest text is used, numbers in it counting as
    numbers; without it they must be unique
    ``space`` : ``mni`` where the file is said to be in MNI space
    ``reason`` : why the adapter leaves the scan out, or nothing

    ``attrs["columns"]`` are the tables' columns, ``attrs["exams"]`` the exams of all subjects
    (``subject_id, day, diagnosis``), ``attrs["warnings"]`` sentences that a user should read.

    Parameters
    ----------
    found : DataFrame
        What an adapter returned.

    Returns
    -------
    DataFrame
        All columns above (str, ``""`` for missing; float, NaN for missing), ordered by subject,
        session (numbers in names count as numbers) and path, with the same ``attrs``.
        ``subject`` is the subject's index in sorted order.

    Raises
    ------
    UserError
        When a needed column is missing, an age is no number, or a sex is neither F nor M.
    """
    lacking = [name for name in NEEDED if name not in found.columns]
    if lacking:
        raise UserError(
            f"The dataset's manifest has no column {listed(lacking)}; it has "
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
                f"The dataset's manifest has a value of {name} that is no number: {error}."
            ) from None
    wrong = sorted(set(scans["sex"]) - {"F", "M", ""})
    if wrong:
        raise UserError(f"The dataset's manifest has sexes other than F and M: {listed(wrong)}.")
    scans["order"] = scans["session_id"].map(visit_key)
    scans = scans.sort_values(["subject_id", "order", "path"], ignore_index=True)
    scans = scans.drop(columns="order")
    scans["subject"] = scans["subject_id"].rank(method="dense").astype(int) - 1
    scans.attrs = {"columns": list(found.columns), **found.attrs}
    return scans


def refuse_repeats(scans: pd.DataFrame) -> None:
    """Raise UserError when two scans of one subject and visit are to be used."""
    used = scans[scans["reason"] == ""]
    twice = used[used.duplicated(["subject_id", "session_id"])]
    if len(twice):
        first = twice.iloc[0]
        session = f"session {first.session_id!r}" if first.session_id else "without a session"
        raise UserError(
            f"Subject {first.subject_id!r} has more than one scan {session} "
            f"({len(twice)} such scans in all); give every scan of a subject a session of its own, "
            "in a table by --data-set session=COLUMN."
        )


FIRST_VISITS = ("sc", "scmri", "screening", "bl", "baseline")
"""Names of visits that come before all others, in this order."""


def visit_key(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sorting key by which ``bl`` comes before ``m06`` and ``ses-2`` before ``ses-10``."""
    if name.lower() in FIRST_VISITS:
        return ((FIRST_VISITS.index(name.lower()) - len(FIRST_VISITS) - 1, ""),)
    return tuple(
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    )


def task_of(scans: pd.DataFrame, target: str) -> Task:
    """Return the task that the labels of usable scans pose.

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
        When nobody has that label, all have the same, or too few subjects have it.
    """
    used = scans[(scans["reason"] == "") & labelled(scans, target)]
    if (scans["reason"] != "").all():
        why = "; ".join(f"{reason} ({n})" for reason, n in count_flow(scans["reason"]))
        raise UserError(f"None of the {len(scans)} scans found can be used: {why}.")
    if used.empty:
        raise UserError(
            f"No scan has a value for the target {target!r}; the dataset has the columns "
            f"{listed(scans.attrs['columns'])}: choose another --target, or say which column it "
            f"is with --data-set {target}=COLUMN."
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
    """Return which scans have the label."""
    return scans[target].notna() if target == "age" else scans[target] != ""


def check_sizes(used: pd.DataFrame, task: Task) -> None:
    """Raise UserError when there are too few subjects to split, in all or of one class."""
    n = used["subject_id"].nunique()
    if n < MIN_SUBJECTS:
        raise UserError(
            f"Only {n} subjects have a usable scan and a value for {task.target!r}; at least "
            f"{MIN_SUBJECTS} are needed to train, validate and test."
        )
    # The split sees a subject's first scan.
    first = used.drop_duplicates("subject_id")[task.target]
    counts = first.value_counts().reindex(list(task.classes), fill_value=0)
    if task.classes and counts.min() < MIN_PER_CLASS:
        raise UserError(
            f"The class {counts.idxmin()!r} of {task.target!r} has {counts.min()} subjects at "
            f"their first scan and at least {MIN_PER_CLASS} are needed (there are "
            f"{', '.join(f'{n} of {name!r}' for name, n in counts.items())}); choose others with "
            "--classes, or write n/a for classes that are not meant."
        )


def class_order(classes: Iterable[str]) -> tuple[str, ...]:
    """Return classes in order, the positive one of two last.

    Diagnoses of the Alzheimer's continuum go from healthy to ill, all else is sorted: F before M.
    """
    names = set(classes)
    if names <= set(KNOWN_ORDER):
        return tuple(name for name in KNOWN_ORDER if name in names)
    return tuple(sorted(names))


def encode(scans: pd.DataFrame, task: Task) -> pd.Series:
    """Return the label of each scan as float: age in years, or the index of its class."""
    if task.kind == "regression":
        return scans[task.target].astype(float)
    return scans[task.target].map({name: i for i, name in enumerate(task.classes)}).astype(float)


def digest(scans: pd.DataFrame) -> str:
    """Return the sha256 of the usable scans: ids, paths, labels and the bytes of the files.

    Parameters
    ----------
    scans : DataFrame
        A tidy manifest with ``sha256`` of every file; the root is in none of its columns.

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
    """Return the sha256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def count_flow(reasons: Mapping[int, str] | pd.Series) -> list[tuple[str, int]]:
    """Return reasons and how many scans each befell, the commonest first."""
    counts = pd.Series(reasons, dtype=str).value_counts()
    pairs = [(str(reason), int(count)) for reason, count in counts.items() if reason]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
