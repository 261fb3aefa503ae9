"""Output of Clinica: BIDS directories of known cohorts, and CAPS directories of registered scans.

BIDS: ``sub-ADNI002S0295/ses-M000/anat/*_T1w.nii.gz`` (older: ``ses-M00``) with ``participants.tsv``
and ``sub-*/sub-*_sessions.tsv``. CAPS: ``subjects/sub-*/ses-*/t1_linear/*_T1w.nii.gz``, without
tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.data.adapters.contrast import why_not_t1w
from bench.data.adapters.reading import (
    blanked,
    columns_of,
    listed,
    parse_ages,
    parse_sexes,
    read_table,
    refuse_disjoint,
    refuse_twice,
    space_of,
    tables_of,
)
from bench.data.adapters.rows import rows_of
from bench.data.adapters.visits import BASELINE, NOT_LISTED, YEAR
from bench.data.adapters.walk import Walk
from registry.cards import Value
from registry.errors import UserError

SESSIONS = "sub-*/sub-*_sessions.tsv"

AT_VISIT = ("age", "diagnosis")
"""Columns of ``sessions.tsv`` that are used."""

AT_BASELINE = ("diagnosis_sc", "diagnosis_bl")
"""Names of the diagnosis at the first visit in ``participants.tsv``, depending on the converter."""

FIRST_VISIT = "M000"

CONVERTED = (
    (re.compile(r"ADNI(\d{3})S(\d+)"), r"\1_S_\2"),
    (re.compile(r"AIBL(\d+)"), r"\1"),
    (re.compile(r"OASIS1(\d{4})"), r"OAS1_\1"),
)
"""Patterns to restore a cohort's own ids from those of the converters, so that a subject has one id
in all datasets."""

_MONTH = re.compile(r"m(\d+)", re.IGNORECASE)
_ENTITIES = re.compile(r"_(?!sub-|ses-|space-|res-|desc-)[a-z]+-", re.IGNORECASE)


def bids(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the T1w images of a BIDS directory made by Clinica; see `bench.data.manifest.tidy`.

    Images of one visit are ranked: images in MNI space come first, then images without further
    entities (``acq``, ``run`` ...), then those with the lowest name.

    Parameters
    ----------
    root : Path
        The directory that contains ``participants.tsv``.
    options : mapping
        ``labels`` is visit (``sessions.tsv``) or baseline (``participants.tsv``); ``table`` is the
        path of ``participants.tsv``, if it is not in the root, or of a table with one row per
        visit.

    Returns
    -------
    DataFrame
        One row per image. Subjects have their cohort's own id (``002_S_0295``), visits are months
        (``M006``), and days are counted from the visit ``M000``.

    Raises
    ------
    UserError
        If there are no images or tables, or if they have no subject in common.
    """
    scans = _find_scans(
        root, "sub-*/ses-*/anat", "", "the directory that contains participants.tsv"
    )
    names = scans["name"]
    further = names.str.contains(_ENTITIES)
    scans["rank"] = _digit(scans["space"] != "mni") + _digit(further) + names
    return _label(scans, root, options)


def caps(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the images registered by Clinica's ``t1-linear``; see `bench.data.manifest.tidy`.

    If a visit lacks the requested image (full or crop), the other one is used: both are the same
    volume on the same grid and differ only in the margin.

    Parameters
    ----------
    root : Path
        The directory that contains ``subjects``.
    options : mapping
        ``image`` is full or crop; ``labels`` and ``table`` as for `bids`.

    Returns
    -------
    DataFrame
        As `bids`. Tensors (``.pt``) are ignored.

    Raises
    ------
    UserError
        If there are no images or tables, or if they have no subject in common.
    """
    folders = "subjects/sub-*/ses-*/t1_linear"
    scans = _find_scans(root, folders, "_space-MNI*", "the directory that contains `subjects`")
    crop = scans["name"].str.contains("_desc-Crop_")
    other = crop != (options["image"] == "crop")
    scans["rank"] = _digit(other) + scans["name"]
    lacking = int(other.groupby([scans["subject_id"], scans["session_id"]]).all().sum())
    warnings = []
    if lacking:
        there = "the whole volume" if options["image"] == "crop" else "Clinica's crop"
        warnings.append(
            f"{lacking} visits lack the image requested with image={options['image']}, so "
            f"{there} is used."
        )
    return _label(scans, root, options, warnings)


def _find_scans(root: Path, folders: str, named: str, holds: str) -> pd.DataFrame:
    """List the T1w images whose folders and names match patterns in which ``*`` is a wildcard."""
    parts = folders.split("/")
    # A folder is entered if its path matches the beginning of the pattern.
    within = "|".join("/".join(map(_matching, parts[: n + 1])) for n in range(len(parts)))
    image = re.compile(rf"{_matching(f'*{named}_T1w')}\.nii(\.gz)?", re.IGNORECASE)
    walk = Walk(root, within)
    found = [
        entry
        for entry in walk
        if entry.path.count("/") == len(parts) and image.fullmatch(entry.name)
    ]
    if not found:
        raise walk.nothing(
            f"There is no T1w image in {root}: no file matches {folders}/*{named}_T1w.nii[.gz]; "
            f"--root must be {holds}."
        )
    places = [entry.path.split("/")[-4:] for entry in found]
    scans = pd.DataFrame(
        {
            "subject_id": [own_id(place[0]) for place in places],
            "session_id": [_visit(place[1]) for place in places],
            "path": [entry.path for entry in found],
            "name": [entry.name for entry in found],
            "space": [space_of(entry.name) for entry in found],
            "reason": [entry.reason or why_not_t1w(entry.name) for entry in found],
        }
    )
    scans.attrs["warnings"] = walk.warnings
    return scans


def _matching(pattern: str) -> str:
    """Return a regular expression for a pattern in which ``*`` is a wildcard."""
    return re.escape(pattern).replace(r"\*", "[^/]*")


def own_id(name: str) -> str:
    """Return the id of a participant as used by the cohort itself."""
    name = name.removeprefix("sub-")
    for written, own in CONVERTED:
        if written.fullmatch(name):
            return written.sub(own, name)
    return name


def _visit(name: str) -> str:
    """Return the month of a visit with three digits: ``ses-M00`` and ``ses-M000`` are the same."""
    name = name.removeprefix("ses-")
    month = _MONTH.fullmatch(name)
    return f"M{int(month[1]):03d}" if month else name


def _days(visits: pd.Series) -> pd.Series:
    months = visits.str.extract(_MONTH, expand=False)
    return pd.to_numeric(months) * YEAR / 12


def _digit(flags: pd.Series) -> pd.Series:
    return flags.astype(int).astype(str)


def _label(
    scans: pd.DataFrame, root: Path, options: Mapping[str, Value], warnings: Sequence[str] = ()
) -> pd.DataFrame:
    """Add the labels in the tables to the scans."""
    file, people, visits, visits_file = _tables(root, options)
    refuse_disjoint(scans["subject_id"], people.index, root, str(file))
    warnings = [*scans.attrs["warnings"], *warnings]
    keys = ["subject_id", "session_id"]
    scans = scans.merge(visits, on=keys, how="left").drop(columns="name")
    scans["day"] = _days(scans["session_id"])

    known = scans["subject_id"].isin(people.index)
    scans.loc[~known & (scans["reason"] == ""), "reason"] = NOT_LISTED
    for column in ("sex", "site"):
        if column in people.columns:
            scans[column] = scans["subject_id"].map(people[column]).fillna("")
    if "age_bl" in people.columns:
        # The age at the first visit is not used for later visits.
        first = scans["session_id"] == FIRST_VISIT
        at_baseline = scans["subject_id"].map(parse_ages(people["age_bl"], file))
        scans["age"] = scans["age"].fillna(at_baseline.where(first))

    if options["labels"] == "visit":
        if visits.empty:
            warnings.append(
                f"There is no {visits_file}, so the diagnosis at each scan is unknown; use "
                "--data-set labels=baseline to use the diagnosis at the first visit."
            )
        table = visits_file.name.removeprefix("sub-*_")
        text = f"{table} diagnosis '" + scans["diagnosis"] + "'"
        source = text.where(scans["diagnosis"] != "", f"no diagnosis in {table}")
        source = source.where(scans["diagnosis"].notna(), f"visit not in {table}")
    elif options["labels"] == "baseline":
        named = [name for name in AT_BASELINE if name in people.columns]
        if not named:
            raise UserError(
                f"{file} has no column {AT_BASELINE[0]!r}, which labels=baseline needs; its "
                f"columns are {listed(people.columns)}."
            )
        scans["diagnosis"] = scans["subject_id"].map(people[named[0]]).fillna("")
        source = f"{file.name} {named[0]} '" + scans["diagnosis"] + "'"
        warnings.append(BASELINE)
    else:
        raise UserError(
            "Clinica's tables have no research group; use labels=visit or labels=baseline."
        )
    scans["source"] = source.where(known, "")
    exams = visits.assign(day=_days(visits["session_id"]))
    scans.attrs = {
        "columns": list(dict.fromkeys((*people.columns, *visits.columns))),
        "exams": exams.loc[exams["day"].notna(), ["subject_id", "day", "diagnosis"]],
        "warnings": warnings,
    }
    return scans


def _tables(
    root: Path, options: Mapping[str, Value]
) -> tuple[Path, pd.DataFrame, pd.DataFrame, Path]:
    """Return the table of participants by ``subject_id``, the table of visits, and their files.

    Both may be the same table, as written by ``clinica iotools merge-tsv``.
    """
    tables = tables_of(root, options)
    file = next((file for file in tables if _describes_people(columns_of(file))), None)
    if file is None:
        raise UserError(
            f"There is no table of participants in {root} or at --table: a table with the column "
            "'participant_id' and, if it has 'session_id', also 'age' or 'diagnosis'. Name "
            "Clinica's participants.tsv, or a table of all visits, with --table FILE."
        )
    table = read_table(file)
    table = table[table["participant_id"] != ""]
    table["subject_id"] = table["participant_id"].map(own_id)
    if "session_id" in table.columns:
        table["session_id"] = table["session_id"].map(_visit)
        visits, visits_file = table, file
        people = table.drop_duplicates("subject_id")
    else:
        visits, visits_file = _read_sessions(file.parent), file.parent / SESSIONS
        people = table.drop_duplicates()
    _refuse_repeats(people, ["subject_id"], file)
    _refuse_repeats(visits, ["subject_id", "session_id"], visits_file)
    people = people.set_index("subject_id")
    if "sex" in people.columns:
        people["sex"] = parse_sexes(people["sex"], file)
    ages = visits["age"] if "age" in visits.columns else pd.Series("", index=visits.index)
    diagnosis = visits["diagnosis"] if "diagnosis" in visits.columns else ""
    visits = visits[["subject_id", "session_id"]].assign(
        age=parse_ages(ages.rename("age"), visits_file), diagnosis=diagnosis
    )
    return file, people, visits, visits_file


def _describes_people(columns: Sequence[str]) -> bool:
    """Tell whether a table describes participants and is not merely a list of visits."""
    return "participant_id" in columns and (
        "session_id" not in columns or bool(set(AT_VISIT) & set(columns))
    )


def _read_sessions(folder: Path) -> pd.DataFrame:
    """Return the visits of all ``sub-*/sub-*_sessions.tsv``.

    There are thousands of them with a hundred columns each, so only the columns needed are kept.
    """
    columns = ("session_id", *AT_VISIT)
    rows = []
    for file in sorted(folder.glob(SESSIONS)):
        header, *lines = rows_of(file) or [[]]
        header = [name.strip() for name in header]
        if lines and "session_id" not in header:
            raise UserError(f"{file} has no column 'session_id'; its columns are {listed(header)}.")
        refuse_twice(pd.Index(name for name in header if name in columns), file)
        subject = own_id(file.parent.name)
        places = [header.index(name) if name in header else len(header) for name in columns]
        rows += [
            (subject, *(line[at] if at < len(line) else "" for at in places)) for line in lines
        ]
    visits = pd.DataFrame(rows, columns=["subject_id", *columns], dtype=str)
    for name in columns:
        visits[name] = blanked(visits[name])
    visits["session_id"] = visits["session_id"].map(_visit)
    return visits


def _refuse_repeats(table: pd.DataFrame, keys: list[str], file: Path) -> None:
    again = table.duplicated(keys)
    if again.any():
        raise UserError(
            f"{file} has more than one row for {listed(table.loc[again, keys[0]].unique())}; keep "
            f"one row for each {' and '.join(keys)}."
        )
