"""Any BIDS folder: ``sub-*/[ses-*/]anat/*_T1w.nii[.gz]`` with labels in ``participants.tsv``.

Labels of a visit, in ``sub-*/sub-*_sessions.tsv`` or in a ``participants.tsv`` that has a column
``session_id``, win over those of the person. Visits are in order of their ``acq_time``, in
``sessions.tsv`` or in ``scans.tsv``, where they have any.
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
"""Labels that differ between visits of one person."""

_T1W = re.compile(r"sub-([^/]+)/(?:ses-([^/]+)/)?anat/[^/]+_T1w\.nii(?:\.gz)?", re.IGNORECASE)

NOT_LISTED = "subject not in participants.tsv"


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List every T1w image of a BIDS folder.

    The first in rank of several images of one visit is in MNI space rather than not, then without
    further entities (``acq``, ``rec``, ``run`` ...) rather than with, then has the lowest name,
    ``run-2`` before ``run-10``.

    Parameters
    ----------
    root : Path
        The folder that holds ``participants.tsv``; ``derivatives`` are not searched.
    options : mapping
        ``table`` names ``participants.tsv``, if it is not in the root (derivatives have none);
        ``age``, ``diagnosis``, ``sex``, ``site``, ``family`` and ``split`` name the columns, if
        they are called otherwise.

    Returns
    -------
    DataFrame
        See `bench.data.manifest.tidy`; ids without ``sub-`` and ``ses-``.

    Raises
    ------
    UserError
        When there is no T1w image or no ``participants.tsv``, when a table contradicts itself,
        or when no subject of the table has an image.
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
                f"--data-set {label}={name}: {file} has no such column; it has {listed(columns)}."
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
            f"{int((ids != known).sum())} ids of {file.name} lack the leading zeros that folders "
            f"have: {ids.iloc[one]!r} is taken for {known.iloc[one]!r}.",
        ]
    return scans


def _participants(root: Path, options: Mapping[str, Value]) -> Path:
    named = str(options.get("table", ""))
    if named:
        tables_of(root, {"table": named})
        if len(named.splitlines()) > 1:
            raise UserError("A BIDS folder has one table of participants; give --table once.")
        return Path(named).expanduser()
    file = root / "participants.tsv"
    if not file.is_file():
        raise UserError(
            f"{root} has no participants.tsv; a BIDS folder needs one with participant_id and the "
            "labels: copy it there, or name that of the raw data set with --table FILE (or use "
            "--data table)."
        )
    return file


def _days(root: Path, scans: pd.DataFrame, tables: list[pd.DataFrame]) -> pd.Series:
    """Return when each scan was made, in days on any axis, NaN where no table says so."""
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
    """Return the day of an ``acq_time``; of any year, because anonymised dates are shifted."""
    try:
        moment = datetime.datetime.fromisoformat(time)
    except ValueError:
        return math.nan
    return moment.toordinal() + (moment.hour * 60 + moment.minute) / 1440


def find_scans(root: Path) -> pd.DataFrame:
    """List every T1w image of a BIDS folder: ``subject_id, session_id, path, space, rank``.

    Raises
    ------
    UserError
        When there is none.
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
            f"There is no T1w image in {root}: sub-*/[ses-*/]anat/*_T1w.nii[.gz] matches nothing; "
            "--root is the folder that holds participants.tsv."
        )
    scans = pd.DataFrame(rows).sort_values(["subject_id", "session_id", "rank"], ignore_index=True)
    scans.attrs["warnings"] = walk.warnings
    return scans.assign(source="")


def read_labels(file: Path, key: str, prefix: str) -> pd.DataFrame:
    """Read a table whose column `key` has ids with or without a prefix."""
    table = read_table(file)
    if key not in table.columns:
        raise UserError(f"{file} has no column {key!r}; it has {listed(table.columns)}.")
    table[key] = table[key].str.removeprefix(prefix)
    if "session_id" in table.columns:
        table["session_id"] = table["session_id"].str.removeprefix("ses-")
    return table


def _refuse_repeats(table: pd.DataFrame, keys: list[str], file: Path) -> None:
    again = table[keys].duplicated()
    if again.any():
        raise UserError(
            f"{file} has more than one row for {listed(table.loc[again, keys[0]].unique())}; keep "
            "one row each, or add a column session_id."
        )


def session_tables(roots: Iterable[Path], scans: pd.DataFrame) -> list[tuple[pd.DataFrame, Path]]:
    """Return all ``sub-*_sessions.tsv`` of folders as one table; none when they have none."""
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
    """Add a label from a table to the scans, over what an earlier table said.

    What changes between visits is not taken from the person where the visit's own row lacks it.
    """
    parse = {"age": parse_ages, "sex": parse_sexes}.get(label)
    values = table[label] if parse is None else parse(table[label], file)
    keys = [key for key in ("subject_id", "session_id") if key in table.columns]
    known = scans[keys].merge(table[keys].assign(value=values), on=keys, how="left", indicator=True)
    value = known["value"] if label == "age" else known["value"].fillna("")
    if label in CHANGING:
        cells = scans[keys].merge(table[[*keys, label]], on=keys, how="left")[label]
        said = f"{file.name} {label} '" + cells + "'"
        # Of the two labels the diagnosis is the one that needs to be traced.
        empty = scans["source"] == ""
        scans["source"] = said.where(
            cells.notna() & ((label == "diagnosis") | empty), scans["source"]
        )
    if label in scans.columns:
        listed_here = known["_merge"] == "both"
        if label not in CHANGING:
            listed_here &= value != ""
        value = value.where(listed_here, scans[label])
    scans[label] = value
