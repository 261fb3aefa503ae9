"""Matching scans with exams by date, to label scans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.adapters.reading import listed
from registry.cards import Value
from registry.errors import UserError

YEAR = 365.25
"""Length of a year in days."""

NOT_LISTED = "subject not in the table"
"""Reason for excluding a scan whose subject is in no table."""


_TIME = r"[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s?[AP]M)?(?:Z|[+-]\d{2}:?\d{2})?$"

OLDEST, NEWEST = 1900, 2100
"""Range of valid years; others mean that the date is missing (9999) or are typing errors (0207)."""


def parse_days(texts: pd.Series, formats: tuple[str, ...]) -> pd.Series:
    """Return dates as days since 1970, NaN for texts that are no date of these forms and years.

    The time of day (``2012-03-01 00:00:00``) is ignored.
    """
    plain = texts.str.replace(_TIME, "", regex=True)
    days = pd.Series(np.nan, index=texts.index)
    for form in formats:
        parsed = pd.to_datetime(plain.where(days.isna()), format=form, errors="coerce")
        parsed = parsed.where(parsed.dt.year.between(OLDEST, NEWEST))
        whole = parsed.to_numpy().astype("datetime64[D]")
        found = pd.Series(whole.astype(np.int64), index=texts.index).astype(float)
        days = days.fillna(found.where(parsed.notna()))
    return days


def days_of(texts: pd.Series, file: Path, formats: tuple[str, ...]) -> pd.Series:
    """Return dates as days since 1970, NaN if there is none.

    Parameters
    ----------
    texts : Series of str
        Dates, ``""`` if missing.
    file : Path
        The table that contains them, for the error message.
    formats : tuple of str
        Possible formats, as for `strptime`; the first that matches a date is used.

    Raises
    ------
    UserError
        If a text is not a date in any of these formats, or not in the range of valid years.
    """
    days = parse_days(texts, formats)
    wrong = days.isna() & (texts != "")
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {texts.name!r} that are not dates: "
            f"{listed(texts[wrong].unique())}; correct them or replace them by n/a."
        )
    return days


def nearest_exam(scans: pd.DataFrame, exams: pd.DataFrame, within: float) -> pd.DataFrame:
    """Return for each scan the exam of its subject that is nearest in time.

    Parameters
    ----------
    scans : DataFrame
        ``subject_id`` and ``day`` of each scan.
    exams : DataFrame
        ``subject_id``, ``day`` and other columns. Exams without a diagnosis must be removed
        before, because a nearer exam without a diagnosis would be preferred to one with.
    within : float
        Largest number of days between scan and exam.

    Returns
    -------
    DataFrame
        The columns of the exams other than ``subject_id``, and ``distance`` (days, exam minus
        scan), with the index of `scans`; NaN if no exam is near enough. Of two exams at the same
        distance, the earlier one is used.
    """
    columns = [name for name in exams.columns if name != "subject_id"]
    left = scans[["subject_id", "day"]].rename(columns={"day": "scan_day"})
    pairs = left.reset_index(names="scan").merge(exams, on="subject_id")
    pairs["distance"] = pairs["day"] - pairs["scan_day"]
    pairs["far"] = pairs["distance"].abs()
    pairs = pairs[pairs["far"] <= within].sort_values(["scan", "far", "day"], kind="stable")
    best = pairs.drop_duplicates("scan").set_index("scan")
    return best[[*columns, "distance"]].reindex(scans.index)


def sources(near: pd.DataFrame, within: float) -> pd.Series:
    """Return the source of each label: the exam's ``source``, and its distance from the scan."""
    days = near["distance"].fillna(0).round().astype(int)
    words = {-1: "{} days before", 0: "on the day", 1: "{} days after"}
    when = [words[int(np.sign(n))].format(abs(n)) for n in days]
    found = near["source"] + ", " + pd.Series(when, index=near.index)
    return found.fillna(f"no exam within {within:g} days")


BASELINE = "Labels are those at the subject's baseline, not at the scan."


def label(scans: pd.DataFrame, exams: pd.DataFrame, options: Mapping[str, Value]) -> list[str]:
    """Add the ``diagnosis`` and ``source`` of an exam to each scan; return warnings.

    Parameters
    ----------
    scans : DataFrame
        Scans with ``subject_id`` and ``day``; the two columns are added in place.
    exams : DataFrame
        ``subject_id, day, diagnosis, source`` of all exams with a diagnosis.
    options : mapping
        ``labels``: ``visit`` uses the nearest exam within ``within_days``, ``baseline`` the first.
    """
    if options["labels"] == "baseline":
        first = exams.sort_values("day").drop_duplicates("subject_id").set_index("subject_id")
        scans["diagnosis"] = scans["subject_id"].map(first["diagnosis"]).fillna("")
        scans["source"] = scans["subject_id"].map("first exam, " + first["source"]).fillna("")
        return [BASELINE]
    near = nearest_exam(scans, exams, float(options["within_days"]))
    scans["diagnosis"] = near["diagnosis"].fillna("")
    scans["source"] = sources(near, float(options["within_days"]))
    return []
