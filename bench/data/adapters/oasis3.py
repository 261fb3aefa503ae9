"""OASIS-3: MRI sessions and clinical visits of the same subjects on different days."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.adapters.oasis import SEXES, diagnoses, find_images, rank_of
from bench.data.adapters.reading import (
    by_id,
    find_table,
    listed,
    need_table,
    parse_ages,
    parse_sexes,
    refuse_disjoint,
    space_of,
    tables_of,
)
from bench.data.adapters.visits import NOT_LISTED, YEAR, label
from registry.cards import Value
from registry.core import counted
from registry.errors import UserError

SESSION = re.compile(r"(OAS3\d{4})_(?:MR_|ses+-)(d\d+)(?=[/_.]).*(?i:T1w\.nii(?:\.gz)?)$")

RATINGS = (("OASISID", "CDRTOT"), ("Subject", "cdr"))
ENTRIES = (("OASISID", "AgeatEntry"), ("Subject", "ageAtEntry"))
GENDERS = (("OASISID", "GENDER"), ("Subject", "M/F"), ("Subject", "GENDER"))
"""Columns that identify a table: first of releases since 2022, then of earlier XNAT exports."""

VISITS = ("OASIS_session_label", "ADRC_ADRCCLINICALDATA ID")
"""Columns with names of clinical visits, such as ``OAS30001_UDSb4_d0339``."""

AGES = ("age at visit", "Age")

_FURTHER = re.compile(r"_(?!sub-|ses+-|space-|run-)[a-z]+-", re.IGNORECASE)


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the T1w images of OASIS-3; see `bench.data.manifest.tidy`.

    Days are counted from the subject's entry into the study. The day of a scan is part of the name
    of its session, and its age is the age at entry plus those days. The diagnosis is the CDR of
    the nearest clinical visit, whatever the cause of the dementia; the clinician's ``dx1`` is
    added to ``source``. Of several images of a session, one without entities other than ``run`` is
    preferred, then the one with the lowest run.

    Parameters
    ----------
    root : Path
        The directory that contains the folders ``OAS30001_MR_d0757``, at any depth.
    options : mapping
        ``table`` (demographics and clinical data), ``labels``, ``within_days``.

    Raises
    ------
    UserError
        If there are no images, or if a table is missing.
    """
    if options["labels"] == "group":
        raise UserError("OASIS-3 has no research group; use labels=visit or labels=baseline.")
    scans = find_images(root, SESSION, "OASIS-3")
    names = scans["path"].str.rpartition("/")[2]
    scans["space"] = names.map(space_of)
    further = names.str.contains(_FURTHER)
    native = scans["space"] != "mni"
    scans["rank"] = (native * 2 + further).astype(int).astype(str) + names.map(rank_of)
    scans["day"] = scans["session_id"].str.removeprefix("d").astype(float)

    tables = tables_of(root, options)
    exams, columns = _exams(tables, root)
    entry = _entry_ages(tables, exams, root)
    sex = _sexes(tables)
    subjects = {*exams["subject_id"], *entry.index, *sex.index}
    refuse_disjoint(scans["subject_id"], subjects, root, "the tables")
    known = scans["subject_id"].isin(subjects)
    scans.loc[~known & (scans["reason"] == ""), "reason"] = NOT_LISTED
    scans["age"] = scans["subject_id"].map(entry) + scans["day"] / YEAR
    scans["sex"] = scans["subject_id"].map(sex)
    rated = exams[exams["diagnosis"] != ""].drop(columns="age")
    warnings = _repeats(rated) + label(scans, rated, options)
    scans.loc[~known, "source"] = ""
    scans.attrs = {
        "columns": columns,
        "exams": rated[["subject_id", "day", "diagnosis"]].reset_index(drop=True),
        "warnings": [*scans.attrs["warnings"], *warnings, *_other_dementias(scans)],
    }
    return scans


def _exams(tables: Sequence[Path], root: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return all clinical visits, and the columns of their table."""
    wanted = ("days_to_visit", "dx1", *AGES, *VISITS)
    found = _first(tables, RATINGS, wanted)
    if found is None:
        form = RATINGS[0]
        found = *need_table(tables, form, wanted, "The clinical table of OASIS-3", root), form
    file, table, (subject, rating) = found
    days = pd.Series(np.nan, index=table.index)
    named = [name for name in ("days_to_visit", *VISITS) if name in table.columns]
    if not named:
        raise UserError(
            f"{file} needs the days of its visits in a column 'days_to_visit' or {VISITS[0]!r}, "
            f"but its columns are {listed(table.columns)}."
        )
    for name in named:
        # A visit's name ends with its day.
        days = days.fillna(pd.to_numeric(table[name].str.extract(r"(-?\d+)$", expand=False)))
    age = pd.Series(np.nan, index=table.index)
    for name in AGES:
        if name in table.columns:
            age = age.fillna(parse_ages(table[name], file))
    words = "CDR " + table[rating]
    if "dx1" in table.columns:
        words += (" (" + table["dx1"] + ")").replace(" ()", "")
    exams = pd.DataFrame(
        {
            "subject_id": table[subject],
            "day": days,
            "diagnosis": diagnoses(table[rating], file),
            "source": words,
            "age": age,
        }
    )
    return exams[exams["day"].notna() & (exams["subject_id"] != "")], list(table.columns)


def _entry_ages(tables: Sequence[Path], exams: pd.DataFrame, root: Path) -> pd.Series:
    """Return the age at entry by subject, from the demographics, else from the first visit."""
    visits = exams.dropna(subset="age").sort_values("day", kind="stable")
    visits = visits.drop_duplicates("subject_id").set_index("subject_id")
    by_visit = visits["age"] - visits["day"] / YEAR
    found = _first(tables, ENTRIES)
    if found is None:
        if by_visit.empty:
            need_table(tables, ENTRIES[0], (), "The demographic table of OASIS-3", root)
        return by_visit
    file, table, (subject, age) = found
    rows = by_id(table[table[age] != ""], subject, [age], file)
    return parse_ages(rows[age], file).combine_first(by_visit)


def _sexes(tables: Sequence[Path]) -> pd.Series:
    found = _first(tables, GENDERS)
    if found is None:
        return pd.Series(dtype=str)
    file, table, (subject, sex) = found
    return parse_sexes(by_id(table, subject, [sex], file)[sex], file, SEXES)


def _first(
    tables: Sequence[Path], forms: Sequence[tuple[str, str]], wanted: Sequence[str] = ()
) -> tuple[Path, pd.DataFrame, tuple[str, str]] | None:
    """Return the first table with one of these pairs of columns, and that pair."""
    for form in forms:
        found = find_table(tables, form, wanted)
        if found is not None:
            return *found, form
    return None


def _repeats(exams: pd.DataFrame) -> list[str]:
    days = exams[["subject_id", "day", "diagnosis"]].drop_duplicates()
    n = int(days.duplicated(["subject_id", "day"]).sum())
    return [f"{n} clinical visits have two different CDR; the first row is used."] if n else []


def _other_dementias(scans: pd.DataFrame) -> list[str]:
    """Report how many scans are AD by their CDR but have another clinical diagnosis."""
    ill = scans.loc[scans["diagnosis"] == "AD", "source"]
    named = ill.str.extract(r"\((.*)\)", expand=False).dropna()
    others = named[~named.str.match(r"(?:AD|DAT|Alzheimer)", case=False)]
    if others.empty:
        return []
    return [
        f"In {counted(len(others), 'scan')} the CDR indicates AD, but dx1 has another diagnosis: "
        f"{listed(others.unique(), 4)}."
    ]
