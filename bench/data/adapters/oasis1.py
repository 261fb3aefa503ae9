"""OASIS-1: one session of adults of all ages, some with dementia, and 20 rescans."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
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
from bench.data.adapters.visits import NOT_LISTED
from registry.cards import Value
from registry.errors import UserError

SESSION = re.compile(r"(OAS1_\d{4})_(MR\d)(?=[/_.])")
KINDS = {
    "T88_111": r"_t88_(?:masked_)?gfc",
    "SUBJ_111": r"_sbj_111",
    "RAW": r"_mpr-\d",
}
"""Patterns of file names for each kind of image, independent of the folder; segmentations match
none of them."""

MARKS = ("ID", "M/F", "Age", "CDR")


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the images of OASIS-1; see `bench.data.manifest.tidy`.

    ``MR2`` is a rescan of the same subject within 90 days; values that are missing in its row of
    the table are taken from ``MR1``. No image is declared to be in MNI space: ``T88_111`` is in
    the atlas space of Talairach and Tournoux, and its header gives no orientation. Of the two
    atlas images the skull-stripped one is used, and of raw repeats the first.

    Parameters
    ----------
    root : Path
        The directory that contains the folders ``OAS1_0001_MR1``, at any depth.
    options : mapping
        ``table`` and ``image``.

    Raises
    ------
    UserError
        If there are no images or no table, or if a CDR is invalid.
    """
    scans = _find_scans(root, str(options["image"]))
    tables = tables_of(root, options)
    file, table = need_table(tables, MARKS, ("Delay",), "oasis_cross-sectional", root)
    rows = by_id(
        table, "ID", [name for name in ("M/F", "Age", "CDR", "Delay") if name in table], file
    )
    labels = pd.DataFrame(
        {
            "age": parse_ages(rows["Age"], file),
            "sex": parse_sexes(rows["M/F"], file, SEXES),
            "diagnosis": diagnoses(rows["CDR"], file).replace("", np.nan),
            "cdr": rows["CDR"].replace("", np.nan),
        }
    )
    own_id = scans["subject_id"] + "_" + scans["session_id"]
    first_id = scans["subject_id"] + "_MR1"
    refuse_disjoint(
        scans["subject_id"], {name.rpartition("_")[0] for name in rows.index}, root, file.name
    )
    own = labels.reindex(own_id).reset_index(drop=True)
    first = labels.reindex(first_id).reset_index(drop=True)
    scans[["age", "sex", "diagnosis"]] = own.combine_first(first)[["age", "sex", "diagnosis"]]
    borrowed = own["cdr"].isna() & first["cdr"].notna() & (scans["session_id"] != "MR1")
    rating = own["cdr"].fillna(first["cdr"]).fillna("blank")
    known = own_id.isin(rows.index) | first_id.isin(rows.index)
    scans["source"] = ("CDR " + rating + np.where(borrowed, " of MR1", "")).where(known, "")
    scans.loc[~known & (scans["reason"] == ""), "reason"] = NOT_LISTED
    # Delay is the number of days since the first session; only rescans have one.
    delay = own_id.map(rows["Delay"]) if "Delay" in rows.columns else np.nan
    scans["day"] = pd.to_numeric(delay, errors="coerce")
    scans.loc[scans["session_id"] == "MR1", "day"] = 0.0
    scans.attrs["columns"] = list(table.columns)
    return scans


def _find_scans(root: Path, image: str) -> pd.DataFrame:
    scans = find_images(root, SESSION, "OASIS-1")
    names = scans["path"].str.rpartition("/")[2]
    kinds = [names.str.contains(pattern, case=False) for pattern in KINDS.values()]
    kind = pd.Series(np.select(kinds, list(KINDS), ""), index=scans.index)
    scan = (kind != "") & ~names.str.contains("_fseg", case=False)
    if not scan.any():
        raise UserError(
            f"None of the {len(scans)} images of OASIS-1 in {root} has the name of a scan "
            f"(OAS1_*_mpr-*, OAS1_*_sbj_111*, OAS1_*_t88_*gfc*), for example {scans['path'][0]}; "
            "use the files as downloaded."
        )
    scans["space"] = names.map(space_of)
    skull = ~names.str.contains("_masked", case=False)
    scans["rank"] = skull.astype(int).astype(str) + names.map(rank_of)
    other = (kind != image) & (scans["reason"] == "")
    scans.loc[other, "reason"] = f"not the image asked for ({image})"
    return scans[scan].reset_index(drop=True)
