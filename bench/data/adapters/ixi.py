"""IXI: one folder of T1 images from three London hospitals, and one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bench.data.adapters.contrast import why_no_scan
from bench.data.adapters.reading import (
    need_table,
    parse_ages,
    parse_sexes,
    refuse_disjoint,
    space_of,
    tables_of,
)
from bench.data.adapters.visits import NOT_LISTED
from bench.data.adapters.walk import Walk
from registry.cards import Value

CONTRADICTORY = "contradictory rows in the table"
SEXES = {"1": "M", "2": "F"}
_NAME = re.compile(r"^IXI(\d+)-([A-Za-z]+)-\d+-T1([_.].*)?\.(?i:nii(?:\.gz)?)")


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the T1 images of IXI; see `bench.data.manifest.tidy`.

    The site is in the name of a scan. The table has ids without leading zeros, some of them twice:
    rows that agree are one, those that contradict each other label nobody.

    Parameters
    ----------
    root : Path
        A folder that holds ``IXI002-Guys-0828-T1.nii.gz`` and so on, at any depth.
    options : mapping
        ``table``: IXI.xls, or saved as csv or xlsx, if it is not in the root.

    Raises
    ------
    UserError
        When there is no image or no table.
    """
    rows = []
    walk = Walk(root)
    for path, name, reason in walk:
        match = _NAME.fullmatch(name)
        if match:
            reason = reason or why_no_scan(match[3] or "")
            rows.append((match[1], path, match[2], space_of(name), reason))
    if not rows:
        raise walk.nothing(
            f"There is no T1 image of IXI in {root}: no file is called like "
            "IXI002-Guys-0828-T1.nii.gz."
        )
    scans = pd.DataFrame(rows, columns=["subject_id", "path", "site", "space", "reason"])
    # A registered copy beside the original is the same scan; so is one without the skull.
    names = scans["path"].str.rpartition("/")[2]
    scans["rank"] = (scans["space"] != "mni").astype(int).astype(str) + names
    marks = ("IXI_ID", "SEX_ID (1=m, 2=f)", "AGE")
    file, table = need_table(tables_of(root, options), marks, (), "IXI.xls", root)
    table["subject_id"] = table["IXI_ID"].str.removesuffix(".0").str.zfill(3)
    refuse_disjoint(scans["subject_id"], table["subject_id"], root, file.name)
    table["age"] = parse_ages(table["AGE"], file).round(2)
    table["sex"] = parse_sexes(table[marks[1]], file, SEXES)

    labels = table[["subject_id", "age", "sex"]].drop_duplicates()
    # A row without an age says nothing against one that has it.
    labels = labels[labels["age"].notna() | ~labels["subject_id"].duplicated(keep=False)]
    twice = set(labels.loc[labels["subject_id"].duplicated(), "subject_id"])
    people = labels[~labels["subject_id"].isin(twice)].set_index("subject_id")
    scans["age"] = scans["subject_id"].map(people["age"])
    scans["sex"] = scans["subject_id"].map(people["sex"]).fillna("")
    image = scans["reason"] == ""
    scans.loc[image & ~scans["subject_id"].isin(table["subject_id"]), "reason"] = NOT_LISTED
    scans.loc[image & scans["subject_id"].isin(twice), "reason"] = CONTRADICTORY
    texts = table.drop_duplicates("subject_id").set_index("subject_id")["AGE"]
    scans["source"] = (f"{file.name} AGE " + scans["subject_id"].map(texts)).fillna("")
    repeated = int(table["subject_id"].duplicated().sum())
    scans.attrs["columns"] = list(table.columns)
    warning = (
        f"{file.name} repeats {repeated} ids; rows of {len(twice)} subjects contradict each other, "
        "and these are left out."
    )
    scans.attrs["warnings"] = [*walk.warnings, *([warning] if repeated else [])]
    return scans
