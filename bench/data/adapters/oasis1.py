"""OASIS-1: one session of young, middle-aged and old adults, some demented, and 20 rescans."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.adapters.oasis import SEXES, diagnoses, find_images
from bench.data.adapters.reading import need_table, parse_ages, refuse_disjoint, tables_of
from bench.data.adapters.visits import NOT_LISTED
from registry.cards import Value

SESSION = re.compile(r"(OAS1_\d{4})_(MR\d)(?=[/_.])")
KINDS = ("T88_111", "SUBJ_111", "RAW")


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the images of OASIS-1; see `bench.data.manifest.tidy`.

    ``MR2`` is a rescan of the same person within 90 days; where the table has no labels for it,
    those of ``MR1`` hold. None of the images is said to be in MNI space: ``T88_111`` is in the
    atlas space of Talairach and Tournoux, and its header gives no orientation.

    Parameters
    ----------
    root : Path
        Holds the folders ``OAS1_0001_MR1``, directly or within ``disc1`` and so on.
    options : mapping
        ``table`` and ``image``.

    Raises
    ------
    UserError
        When there are no images or no table, or a CDR is none.
    """
    scans = find_images(root, SESSION, "OASIS-1")
    scans = scans[~scans["path"].str.contains("FSL_SEG")].reset_index(drop=True)
    kind = scans["path"].str.extract(f"/({'|'.join(KINDS)})/")[0].fillna("")
    wanted = kind == options["image"]
    # Of the two atlas images the one without skull.
    masked = scans["path"].str.contains("masked")
    scans["rank"] = (~masked).astype(int).astype(str) + scans["path"]
    scans["reason"] = np.where(wanted, "", f"not the image asked for ({options['image']})")

    file, table = need_table(
        tables_of(root, options),
        ("ID", "M/F", "Age", "CDR"),
        ("Delay",),
        "oasis_cross-sectional",
        root,
    )
    table = table.drop_duplicates("ID").set_index("ID")
    own = scans["subject_id"] + "_" + scans["session_id"]
    first = scans["subject_id"] + "_MR1"
    refuse_disjoint(own, table.index, root, file.name)
    labelled = own.isin(table.index[table["CDR"] != ""])
    row = own.where(labelled | ~first.isin(table.index), first)
    scans.loc[~row.isin(table.index) & wanted, "reason"] = NOT_LISTED
    scans["age"] = row.map(parse_ages(table["Age"], file))
    scans["sex"] = row.map(table["M/F"].map(SEXES)).fillna("")
    scans["diagnosis"] = row.map(diagnoses(table["CDR"], file)).fillna("")
    cdr = row.map(table["CDR"]).fillna("")
    scans["source"] = "CDR " + cdr.replace("", "blank") + np.where(row == own, "", " of MR1")
    if "Delay" in table.columns:
        scans["day"] = pd.to_numeric(own.map(table["Delay"]), errors="coerce").fillna(0.0)
    scans.attrs["columns"] = list(table.columns)
    return scans
