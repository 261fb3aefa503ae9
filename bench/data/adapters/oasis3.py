"""OASIS-3: MRI sessions and clinical visits of the same people on different days."""

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
from bench.data.adapters.visits import NOT_LISTED, YEAR, nearest_exam, sources
from registry.cards import Value

SESSION = re.compile(r"(OAS3\d{4})_(?:MR_|ses+-)(d\d+)(?=[/_.]).*T1w\.nii(?:\.gz)?$")


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the T1w images of OASIS-3; see `bench.data.manifest.tidy`.

    Days count from a subject's entry: a scan's are in the name of its session, and its age is the
    age at entry and those days. Its diagnosis is the CDR of the nearest clinical visit.

    Parameters
    ----------
    root : Path
        Holds the folders ``OAS30001_MR_d0757``, at any depth.
    options : mapping
        ``table`` (demographics and clinical data), ``labels``, ``within_days``.

    Raises
    ------
    UserError
        When there are no images, or a table is missing.
    """
    scans = find_images(root, SESSION, "OASIS-3")
    names = scans["path"].map(lambda path: Path(path).name)
    scans["space"] = names.map(space_of)
    scans["rank"] = (scans["space"] != "mni").astype(int).astype(str) + names
    scans["day"] = scans["session_id"].str.removeprefix("d").astype(float)
    tables = tables_of(root, options)
    people_file, people = need_table(
        tables, ("OASISID", "AgeatEntry", "GENDER"), (), "OASIS3_demographics", root
    )
    clinical_file, clinical = need_table(
        tables, ("OASISID", "days_to_visit", "CDRTOT"), ("dx1",), "the clinical data", root
    )
    people = people.drop_duplicates("OASISID").set_index("OASISID")
    refuse_disjoint(scans["subject_id"], people.index, root, people_file.name)
    scans["reason"] = np.where(scans["subject_id"].isin(people.index), "", NOT_LISTED)
    entry = scans["subject_id"].map(parse_ages(people["AgeatEntry"], people_file))
    scans["age"] = entry + scans["day"] / YEAR
    sex = people["GENDER"].str.removesuffix(".0").map(SEXES)
    scans["sex"] = scans["subject_id"].map(sex).fillna("")

    words = "CDR " + clinical["CDRTOT"]
    if "dx1" in clinical.columns:
        words += (" (" + clinical["dx1"] + ")").replace(" ()", "")
    exams = pd.DataFrame(
        {
            "subject_id": clinical["OASISID"],
            "day": pd.to_numeric(clinical["days_to_visit"], errors="coerce"),
            "diagnosis": diagnoses(clinical["CDRTOT"], clinical_file),
            "source": words,
        }
    )
    exams = exams[exams["day"].notna() & (exams["diagnosis"] != "")]
    warnings = []
    if options["labels"] == "baseline":
        first = exams.sort_values("day").drop_duplicates("subject_id").set_index("subject_id")
        scans["diagnosis"] = scans["subject_id"].map(first["diagnosis"]).fillna("")
        scans["source"] = scans["subject_id"].map("first visit, " + first["source"]).fillna("")
        warnings.append("Labels are those at the subject's baseline, not at the scan.")
    else:
        near = nearest_exam(scans, exams, float(options["within_days"]))
        scans["diagnosis"] = near["diagnosis"].fillna("")
        scans["source"] = sources(near, float(options["within_days"]))
    scans.attrs = {
        "columns": [*people.columns, *clinical.columns],
        "exams": exams[["subject_id", "day", "diagnosis"]],
        "warnings": warnings,
    }
    return scans
