"""OASIS-2: older adults with and without dementia, at two to five visits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bench.data.adapters.oasis import SEXES, diagnoses, find_images, rank_of
from bench.data.adapters.reading import (
    by_id,
    need_table,
    parse_ages,
    parse_sexes,
    refuse_disjoint,
    space_of,
    tables_of,
)
from bench.data.adapters.visits import BASELINE, NOT_LISTED
from registry.cards import Value

SESSION = re.compile(r"(OAS2_\d{4})_(MR\d+)(?=[/_.]).*mpr", re.IGNORECASE)
MARKS = ("Subject ID", "MRI ID", "Group", "M/F", "Age", "CDR")
GROUP = "Labels are the Group of the table, which is the same for all visits of a subject."


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the images of OASIS-2; see `bench.data.manifest.tidy`.

    A visit has three or four scans, of which the first is used. The diagnosis is the CDR of the
    visit; the Group of the table is the same for all visits of a subject.

    Parameters
    ----------
    root : Path
        The directory that contains the folders ``OAS2_0001_MR1``, at any depth.
    options : mapping
        ``table`` and ``labels``.

    Raises
    ------
    UserError
        If there are no images or no table, or if a CDR is invalid.
    """
    scans = find_images(root, SESSION, "OASIS-2")
    names = scans["path"].str.rpartition("/")[2]
    scans["space"] = names.map(space_of)
    scans["rank"] = names.map(rank_of)
    file, table = need_table(
        tables_of(root, options),
        MARKS,
        ("MR Delay",),
        "oasis_longitudinal_demographics",
        root,
    )
    columns = [name for name in (*MARKS, "MR Delay") if name in table and name != "MRI ID"]
    rows = by_id(table, "MRI ID", columns, file)
    refuse_disjoint(scans["subject_id"], rows["Subject ID"], root, file.name)
    rows["diagnosis"] = diagnoses(rows["CDR"], file)
    rows["source"] = "CDR " + rows["CDR"].replace("", "blank")

    visit = scans["subject_id"] + "_" + scans["session_id"]
    listed = scans["subject_id"].isin(rows["Subject ID"])
    scans.loc[~listed & (scans["reason"] == ""), "reason"] = NOT_LISTED
    scans["age"] = visit.map(parse_ages(rows["Age"], file))
    # Sex and group are properties of the subject, known even if the table lacks the visit.
    people = rows[~rows["Subject ID"].duplicated()].set_index("Subject ID")
    scans["sex"] = scans["subject_id"].map(parse_sexes(people["M/F"], file, SEXES)).fillna("")
    warnings = list(scans.attrs["warnings"])
    if options["labels"] == "group":
        scans["diagnosis"] = scans["subject_id"].map(people["Group"]).fillna("")
        scans["source"] = "Group '" + scans["diagnosis"] + "'"
        warnings.append(GROUP)
    elif options["labels"] == "baseline":
        number = rows.index.to_series().str.extract(r"_MR(\d+)$", expand=False).astype(float)
        first = rows.assign(number=number).sort_values("number").drop_duplicates("Subject ID")
        first = first.set_index("Subject ID")
        scans["diagnosis"] = scans["subject_id"].map(first["diagnosis"]).fillna("")
        scans["source"] = "first visit, " + scans["subject_id"].map(first["source"])
        warnings.append(BASELINE)
    else:
        scans["diagnosis"] = visit.map(rows["diagnosis"]).fillna("")
        scans["source"] = visit.map(rows["source"]).fillna("visit not in the table")
    scans.loc[~listed, "source"] = ""
    scans.attrs = {"columns": list(table.columns), "warnings": warnings}
    if "MR Delay" in rows.columns:
        rows["day"] = pd.to_numeric(rows["MR Delay"], errors="coerce")
        scans["day"] = visit.map(rows["day"])
        exams = rows.rename(columns={"Subject ID": "subject_id"})
        exams = exams[["subject_id", "day", "diagnosis"]].dropna()
        scans.attrs["exams"] = exams.reset_index(drop=True)
    return scans
