"""IXI: a folder of T1 images from three London hospitals, and a table."""

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
from registry.core import counted

CONTRADICTORY = "contradictory rows in the table"
SEXES = {"1": "M", "2": "F"}
_NAME = re.compile(r"^IXI(\d+)-([A-Za-z]+)-\d+-T1([_.].*)?\.(?i:nii(?:\.gz)?)")


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the T1 images of IXI; see `bench.data.manifest.tidy`.

    The site is part of the file name. In the table, ids have no leading zeros and some occur
    twice: equal rows are merged, and subjects with contradictory rows are excluded.

    Parameters
    ----------
    root : Path
        A directory that contains ``IXI002-Guys-0828-T1.nii.gz`` etc., at any depth.
    options : mapping
        ``table`` is the path of IXI.xls (or the same as csv or xlsx), if it is not in the root.

    Raises
    ------
    UserError
        If there is no image or no table.
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
            f"There is no T1 image of IXI in {root}: no file has a name such as "
            "IXI002-Guys-0828-T1.nii.gz; check --root."
        )
    scans = pd.DataFrame(rows, columns=["subject_id", "path", "site", "space", "reason"])
    # Registered or skull-stripped copies next to the original are images of the same visit.
    names = scans["path"].str.rpartition("/")[2]
    scans["rank"] = (scans["space"] != "mni").astype(int).astype(str) + names
    marks = ("IXI_ID", "SEX_ID (1=m, 2=f)", "AGE")
    file, table = need_table(tables_of(root, options), marks, (), "IXI.xls", root)
    table["subject_id"] = table["IXI_ID"].str.removesuffix(".0").str.zfill(3)
    refuse_disjoint(scans["subject_id"], table["subject_id"], root, file.name)
    table["age"] = parse_ages(table["AGE"], file).round(2)
    table["sex"] = parse_sexes(table[marks[1]], file, SEXES)

    labels = table[["subject_id", "age", "sex"]].drop_duplicates()
    # A row without an age does not contradict one with an age.
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
        f"{file.name} has {counted(repeated, 'repeated id')}; excluded because of contradictory "
        f"rows: {counted(len(twice), 'subject')}."
    )
    scans.attrs["warnings"] = [*walk.warnings, *([warning] if repeated else [])]
    return scans
