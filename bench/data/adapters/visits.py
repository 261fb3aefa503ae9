"""Joining scans to exams in time: which exam labels a scan, and how old its subject was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.adapters.reading import listed
from registry.cards import Value
from registry.errors import UserError

YEAR = 365.25
"""Days."""

NOT_LISTED = "subject not in the table"
"""Why a scan is left out whose subject no table knows."""


_TIME = r"[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s?[AP]M)?(?:Z|[+-]\d{2}:?\d{2})?$"

OLDEST, NEWEST = 1900, 2100
"""Years between which a date is one; others stand for none (9999) or are slips (0207)."""


def parse_days(texts: pd.Series, formats: tuple[str, ...]) -> pd.Series:
    """Return dates as days since 1970, NaN for what is no date of these forms and years.

    A time of day is left out (``2012-03-01 00:00:00``).
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
    """Return dates as days since 1970, NaN where there is none.

    Parameters
    ----------
    texts : Series of str
        Dates, ``""`` for none.
    file : Path
        Where they stand, for the error.
    formats : tuple of str
        What `strptime` calls their forms; the first that fits a date counts.

    Raises
    ------
    UserError
        When a text is no date in any of these forms, or of no year that anybody was scanned in.
    """
    days = parse_days(texts, formats)
    wrong = days.isna() & (texts != "")
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {texts.name!r} that are no dates: "
            f"{listed(texts[wrong].unique())}; correct them in the table, or write n/a."
        )
    return days


def nearest_exam(scans: pd.DataFrame, exams: pd.DataFrame, within: float) -> pd.DataFrame:
    """Return for each scan the exam of its subject that is nearest in time.

    Parameters
    ----------
    scans : DataFrame
        ``subject_id`` and ``day`` of each scan.
    exams : DataFrame
        ``subject_id``, ``day`` and whatever else an exam says; exams that say nothing of use must
        be left out before, or they hide those that do.
    within : float
        Days at most between the two.

    Returns
    -------
    DataFrame
        The exams' columns besides ``subject_id``, and ``distance`` (days, exam minus scan), indexed
        as `scans`; NaN where no exam is near enough. Of two exams as near the earlier one counts.
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
    """Return where each label came from: the exam's ``source``, and how far it is from the scan."""
    days = near["distance"].fillna(0).round().astype(int)
    words = {-1: "{} days before", 0: "on the day", 1: "{} days after"}
    when = [words[int(np.sign(n))].format(abs(n)) for n in days]
    found = near["source"] + ", " + pd.Series(when, index=near.index)
    return found.fillna(f"no exam within {within:g} days")


BASELINE = "Labels are those at the subject's baseline, not at the scan."


def label(scans: pd.DataFrame, exams: pd.DataFrame, options: Mapping[str, Value]) -> list[str]:
    """Give scans the ``diagnosis`` and ``source`` of an exam; return what a user must know of that.

    Parameters
    ----------
    scans : DataFrame
        ``subject_id`` and ``day``; the two columns are added.
    exams : DataFrame
        ``subject_id, day, diagnosis, source`` of every exam that has a diagnosis.
    options : mapping
        ``labels``: of the nearest exam within ``within_days`` (visit), or of the first (baseline).
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
