"""OASIS-2: old adults, demented or not, at two to five visits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.adapters.oasis import SEXES, diagnoses, find_images
from bench.data.adapters.reading import (
    need_table,
    parse_ages,
    refuse_disjoint,
    space_of,
    tables_of,
)
from bench.data.adapters.visits import NOT_LISTED
from registry.cards import Value

SESSION = re.compile(r"(OAS2_\d{4})_(MR\d+)(?=[/_.])")
MARKS = ("Subject ID", "MRI ID", "Group", "M/F", "Age", "CDR")


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the images of OASIS-2; see `bench.data.manifest.tidy`.

    A visit has three or four scans, of which the first is used. Its diagnosis is the CDR of that
    visit; the Group of the table is one for all visits of a subject.

    Parameters
    ----------
    root : Path
        Holds the folders ``OAS2_0001_MR1``, directly or within its two parts.
    options : mapping
        ``table`` and ``labels``.

    Raises
    ------
    UserError
        When there are no images or no table, or a CDR is none.
    """
    scans = find_images(root, SESSION, "OASIS-2")
    names = scans["path"].map(lambda path: Path(path).name)
    scans["space"] = names.map(space_of)
    scans["rank"] = (scans["space"] != "mni").astype(int).astype(str) + names
    file, table = need_table(
        tables_of(root, options), MARKS, ("MR Delay",), "oasis_longitudinal_demographics", root
    )
    table = table.drop_duplicates("MRI ID").set_index("MRI ID")
    visit = scans["subject_id"] + "_" + scans["session_id"]
    refuse_disjoint(visit, table.index, root, file.name)
    scans["reason"] = np.where(visit.isin(table.index), "", NOT_LISTED)
    scans["age"] = visit.map(parse_ages(table["Age"], file))
    scans["sex"] = visit.map(table["M/F"].map(SEXES)).fillna("")
    if "MR Delay" in table.columns:
        table["day"] = pd.to_numeric(table["MR Delay"], errors="coerce")
        scans["day"] = visit.map(table["day"])
    table["rated"] = diagnoses(table["CDR"], file)
    warnings = []
    if options["labels"] == "group":
        scans["diagnosis"] = visit.map(table["Group"]).fillna("")
        scans["source"] = "Group '" + scans["diagnosis"] + "'"
        warnings.append("Labels are the Group of the table, which is one for all visits.")
    else:
        row = visit
        if options["labels"] == "baseline":
            first = table.reset_index().drop_duplicates("Subject ID").set_index("Subject ID")
            row = scans["subject_id"].map(first["MRI ID"])
            warnings.append("Labels are those at the subject's baseline, not at the scan.")
        scans["diagnosis"] = row.map(table["rated"]).fillna("")
        scans["source"] = ("CDR " + row.map(table["CDR"]).replace("", "blank")).fillna("")
    scans.attrs = {"columns": list(table.columns), "warnings": warnings}
    if "day" in table.columns:
        exams = table.rename(columns={"Subject ID": "subject_id", "rated": "diagnosis"})
        scans.attrs["exams"] = exams[["subject_id", "day", "diagnosis"]].dropna()
    return scans
