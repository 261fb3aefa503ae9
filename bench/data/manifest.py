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
TEXTS = ("subject_id", "session_id", "path", "diagnosis", "sex", "site", "space", "reason")
NEEDED = ("subject_id", "path")

KNOWN_ORDER = ("CN", "SMC", "EMCI", "MCI", "LMCI", "AD")
"""Diagnoses from healthy to ill; the last class of two is the positive one."""

MIN_SUBJECTS = 10
MIN_PER_CLASS = 5
"""One of five is validated on and one of five tested on."""


def tidy(found: pd.DataFrame) -> pd.DataFrame:
    """Bring what an adapter returned to the one form that the harness works with.

    Parameters
    ----------
    found : DataFrame
        At least ``subject_id`` and ``path``; see `bench.data.adapters.bids.manifest`.

    Returns
    -------
    DataFrame
        ``subject_id, session_id, path, diagnosis, sex, site, space, reason`` (str, ``""`` for
        missing) and ``age`` (years, NaN for missing), ordered by subject, session (numbers in names
        count as numbers) and path. ``subject`` is the subject's index in sorted order.
        ``attrs["columns"]`` are the columns that can be named.

    Raises
    ------
    UserError
        When a needed column is missing, an age is no number, a sex is neither F nor M, or two scans
        of one subject and session are to be used.
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
    try:
        ages = found["age"].tolist() if "age" in found.columns else [math.nan] * len(found)
        scans["age"] = pd.to_numeric(pd.Series(ages, dtype=object)).astype(float)
    except (ValueError, TypeError) as error:
        raise UserError(f"The dataset's manifest has an age that is no number: {error}.") from None
    wrong = sorted(set(scans["sex"]) - {"F", "M", ""})
    if wrong:
        raise UserError(f"The dataset's manifest has sexes other than F and M: {listed(wrong)}.")
    scans["order"] = scans["session_id"].map(_natural)
    scans = scans.sort_values(["subject_id", "order", "path"], ignore_index=True)
    scans = scans.drop(columns="order")
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
    scans["subject"] = scans["subject_id"].rank(method="dense").astype(int) - 1
    scans.attrs["columns"] = list(found.attrs.get("columns", found.columns))
    return scans


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sorting key by which ``ses-2`` comes before ``ses-10``."""
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
    check_sizes(used, target)
    if target == "age":
        return Task(target, "regression")
    return Task(target, "classification", class_order(used[target].unique()))


def labelled(scans: pd.DataFrame, target: str) -> pd.Series:
    """Return which scans have the label."""
    return scans[target].notna() if target == "age" else scans[target] != ""


def check_sizes(used: pd.DataFrame, target: str) -> None:
    """Raise UserError when there are too few subjects to split, in all or of one class."""
    n = used["subject_id"].nunique()
    if n < MIN_SUBJECTS:
        raise UserError(
            f"Only {n} subjects have a usable scan and a value for {target!r}; at least "
            f"{MIN_SUBJECTS} are needed to train, validate and test."
        )
    if target == "age":
        return
    # The split sees a subject's first scan.
    counts = used.drop_duplicates("subject_id")[target].value_counts()
    counts = counts.reindex(used[target].unique(), fill_value=0)
    if counts.min() < MIN_PER_CLASS:
        raise UserError(
            f"The class {counts.idxmin()!r} of {target!r} has {counts.min()} subjects at their "
            f"first scan and at least {MIN_PER_CLASS} are needed; write n/a for classes that are "
            f"not meant (there are {listed(counts.index)})."
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
    columns = ["subject_id", "session_id", "path", *TARGETS, "site", "sha256"]
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
