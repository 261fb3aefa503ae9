"""BIDS directories: ``sub-*/[ses-*/]anat/*_T1w.nii[.gz]`` with labels in ``participants.tsv``.

Labels of a visit, in ``sub-*/sub-*_sessions.tsv`` or in a ``participants.tsv`` with a column
``session_id``, take precedence over those of the subject. Visits are ordered by their ``acq_time``
in ``sessions.tsv`` or ``scans.tsv``, if available.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from bench.data.adapters.contrast import why_not_t1w
from bench.data.adapters.reading import (
    listed,
    parse_ages,
    parse_sexes,
    read_table,
    refuse_disjoint,
    restore_zeros,
    space_of,
    tables_of,
)
from bench.data.adapters.walk import Walk
from registry.cards import Value
from registry.errors import UserError

LABELS = ("age", "diagnosis", "sex", "site", "family", "split")
CHANGING = ("age", "diagnosis")
"""Labels that may differ between visits of a subject."""

_T1W = re.compile(r"sub-([^/]+)/(?:ses-([^/]+)/)?anat/[^/]+_T1w\.nii(?:\.gz)?", re.IGNORECASE)

NOT_LISTED = "subject not in participants.tsv"


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List all T1w images of a BIDS directory.

    Images of one visit are ranked: images in MNI space come first, then images without further
    entities (``acq``, ``rec``, ``run`` ...), then those with the lowest name (``run-2`` before
    ``run-10``).

    Parameters
    ----------
    root : Path
        The directory that contains ``participants.tsv``; ``derivatives`` are not searched.
    options : mapping
        ``table`` is the path of ``participants.tsv`` if it is not in the root (derivatives do not
        have one); ``age``, ``diagnosis``, ``sex``, ``site``, ``family`` and ``split`` are the
        names of the columns, if they differ.

    Returns
    -------
    DataFrame
        See `bench.data.manifest.tidy`; ids do not contain ``sub-`` and ``ses-``.

    Raises
    ------
    UserError
        If there is no T1w image or no ``participants.tsv``, if a table is contradictory, or if no
        subject of the table has an image.
    """
    scans = find_scans(root)
    file = _participants(root, options)
    participants = read_labels(file, "participant_id", "sub-")
    ids = participants["participant_id"]
    participants["participant_id"] = known = restore_zeros(ids, scans["subject_id"])
    refuse_disjoint(scans["subject_id"], known, root, file.name)
    scans.loc[~scans["subject_id"].isin(known) & (scans["reason"] == ""), "reason"] = NOT_LISTED

    by_visit = "session_id" in participants.columns
    keys = ["participant_id", "session_id"] if by_visit else ["participant_id"]
    _refuse_repeats(participants, keys, file)
    tables = [(participants.rename(columns={"participant_id": "subject_id"}), file)]
    tables += session_tables(dict.fromkeys((root, file.parent)), scans)
    columns = list(dict.fromkeys(name for table, _ in tables for name in table.columns))
    for label in LABELS:
        name = str(options.get(label, label))
        if name not in columns and name not in (label, ""):
            raise UserError(
                f"--data-set {label}={name}: {file} has no such column; its columns are "
                f"{listed(columns)}."
            )
        for table, source in tables:
            if name in table.columns:
                _fill(scans, label, table.rename(columns={name: label}), source)
    scans["day"] = _days(root, scans, [table for table, _ in tables])
    scans.attrs["columns"] = columns
    if (ids != known).any():
        one = int((ids != known).to_numpy().argmax())
        scans.attrs["warnings"] = [
            *scans.attrs["warnings"],
            f"{int((ids != known).sum())} ids of {file.name} lack the leading zeros of the folder "
            f"names; for example, {ids.iloc[one]!r} is read as {known.iloc[one]!r}.",
        ]
    return scans


def _participants(root: Path, options: Mapping[str, Value]) -> Path:
    named = str(options.get("table", ""))
    if named:
        tables_of(root, {"table": named})
        if len(named.splitlines()) > 1:
            raise UserError(
                "A BIDS directory has one table of participants; use --table only once."
            )
        return Path(named).expanduser()
    file = root / "participants.tsv"
    if not file.is_file():
        raise UserError(
            f"{root} has no participants.tsv, the table with participant_id and the labels; copy "
            "it there, name that of the raw data set with --table FILE, or use --data table."
        )
    return file


def _days(root: Path, scans: pd.DataFrame, tables: list[pd.DataFrame]) -> pd.Series:
    """Return the day of each scan, from any origin, NaN if no table has it."""
    keys = ["subject_id", "session_id"]
    days: dict[tuple[str, ...], float] = {}
    for table in tables:
        if {*keys, "acq_time"} <= set(table.columns):
            times = zip(*(table[key] for key in keys), table["acq_time"].map(_day), strict=True)
            days |= {(subject, session): day for subject, session, day in times}
    several = scans.groupby("subject_id")["session_id"].transform("nunique") > 1
    for subject, session in scans.loc[several, keys].drop_duplicates().itertuples(index=False):
        place = root / f"sub-{subject}" / f"ses-{session}"
        file = place / f"sub-{subject}_ses-{session}_scans.tsv"
        if math.isnan(days.get((subject, session), math.nan)) and file.is_file():
            made = read_table(file).get("acq_time", pd.Series(dtype=str)).map(_day)
            days[subject, session] = float(made.min())
    return pd.Series(
        [days.get(key, math.nan) for key in scans[keys].itertuples(index=False, name=None)],
        index=scans.index,
        dtype=float,
    )


def _day(time: str) -> float:
    """Return the day of an ``acq_time``; any year is valid because anonymised dates are shifted."""
    try:
        moment = datetime.datetime.fromisoformat(time)
    except ValueError:
        return math.nan
    return moment.toordinal() + (moment.hour * 60 + moment.minute) / 1440


def find_scans(root: Path) -> pd.DataFrame:
    """List all T1w images of a BIDS directory: ``subject_id, session_id, path, space, rank``.

    Raises
    ------
    UserError
        If there is none.
    """
    rows = []
    walk = Walk(root, within=r"sub-[^/]+(/ses-[^/]+)?(/anat)?")
    for path, name, reason in walk:
        match = _T1W.fullmatch(path)
        if match:
            entities = {part.split("-")[0] for part in name.split("_")[:-1]}
            extra = bool(entities - {"sub", "ses", "space"})
            space = space_of(name)
            rows.append(
                {
                    "subject_id": match[1],
                    "session_id": match[2] or "",
                    "path": path,
                    "space": space,
                    "rank": f"{int(space != 'mni')}{int(extra)}{name}",
                    "reason": reason or why_not_t1w(name),
                }
            )
    if not rows:
        raise walk.nothing(
            f"There is no T1w image in {root}: no file matches sub-*/[ses-*/]anat/*_T1w.nii[.gz]; "
            "--root must be the directory that contains participants.tsv."
        )
    scans = pd.DataFrame(rows).sort_values(["subject_id", "session_id", "rank"], ignore_index=True)
    scans.attrs["warnings"] = walk.warnings
    return scans.assign(source="")


def read_labels(file: Path, key: str, prefix: str) -> pd.DataFrame:
    """Read a table whose column `key` has ids, and remove their prefix."""
    table = read_table(file)
    if key not in table.columns:
        raise UserError(f"{file} has no column {key!r}; its columns are {listed(table.columns)}.")
    table[key] = table[key].str.removeprefix(prefix)
    if "session_id" in table.columns:
        table["session_id"] = table["session_id"].str.removeprefix("ses-")
    return table


def _refuse_repeats(table: pd.DataFrame, keys: list[str], file: Path) -> None:
    again = table[keys].duplicated()
    if again.any():
        raise UserError(
            f"{file} has more than one row for {listed(table.loc[again, keys[0]].unique())}; keep "
            "one row for each, or add a column session_id."
        )


def session_tables(roots: Iterable[Path], scans: pd.DataFrame) -> list[tuple[pd.DataFrame, Path]]:
    """Return all ``sub-*_sessions.tsv`` of the directories as one table, if there are any."""
    tables = []
    for root in roots:
        for subject in scans["subject_id"].unique():
            file = root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
            if file.is_file():
                table = read_labels(file, "session_id", "ses-")
                _refuse_repeats(table, ["session_id"], file)
                table["subject_id"] = subject
                tables.append(table)
    if not tables:
        return []
    return [(pd.concat(tables, ignore_index=True).fillna(""), Path("sub-*/sub-*_sessions.tsv"))]


def _fill(scans: pd.DataFrame, label: str, table: pd.DataFrame, file: Path) -> None:
    """Add a label from a table to the scans, overwriting that of an earlier table.

    If a visit has a row of its own without the label, labels that change between visits are not
    taken from the row of the subject.
    """
    parse = {"age": parse_ages, "sex": parse_sexes}.get(label)
    values = table[label] if parse is None else parse(table[label], file)
    keys = [key for key in ("subject_id", "session_id") if key in table.columns]
    known = scans[keys].merge(table[keys].assign(value=values), on=keys, how="left", indicator=True)
    value = known["value"] if label == "age" else known["value"].fillna("")
    if label in CHANGING:
        cells = scans[keys].merge(table[[*keys, label]], on=keys, how="left")[label]
        text = f"{file.name} {label} '" + cells + "'"
        # If a scan has both labels, the source of the diagnosis is more informative.
        empty = scans["source"] == ""
        scans["source"] = text.where(
            cells.notna() & ((label == "diagnosis") | empty), scans["source"]
        )
    if label in scans.columns:
        listed_here = known["_merge"] == "both"
        if label not in CHANGING:
            listed_here &= value != ""
        value = value.where(listed_here, scans[label])
    scans[label] = value
