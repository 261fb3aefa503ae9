"""ADNI as downloaded from LONI, labelled by ADNIMERGE or DXSUM.

The diagnosis is that of the exam nearest to the scan. The Group of the search table is the research
group at the time of the search, and is used only on request.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.adapters.loni import find_images, leave_out_others, rank_images
from bench.data.adapters.reading import (
    find_table,
    need_table,
    parse_ages,
    parse_sexes,
    readable_columns,
    refuse_disjoint,
    tables_of,
)
from bench.data.adapters.visits import BASELINE, NOT_LISTED, YEAR, days_of, label, parse_days
from bench.data.diagnosis import decode
from registry.cards import Value

PTID = re.compile(r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)")
DATES = ("%Y-%m-%d", "%m/%d/%Y", "%m/%d/%y")
NO_DATE = "scan date unknown"

SEARCHES = (
    {"image": "Image Data ID", "subject": "Subject", "date": "Acq Date", "group": "Group"},
    {"image": "Image ID", "subject": "Subject ID", "date": "Study Date", "group": "Research Group"},
)
"""Columns of the two kinds of search tables: lists of collections, and advanced searches."""
SEARCH_MORE = ("Sex", "Age", "Description", "Modality")
MERGE = ("PTID", "EXAMDATE", "DX", "AGE", "EXAMDATE_bl")
MERGE_MORE = ("DX_bl", "PTGENDER", "SITE", "IMAGEUID")
CODES: dict[str, dict[str, str]] = {
    "DIAGNOSIS": {"1": "CN", "2": "MCI", "3": "AD"},
    "DXCURREN": {"1": "CN", "2": "MCI", "3": "AD"},
    # Stable, then conversions to MCI, AD and AD, then reversions to CN, MCI and CN.
    "DXCHANGE": dict(
        zip("123456789", ("CN", "MCI", "AD", "MCI", "AD", "AD", "CN", "MCI", "CN"), strict=True)
    ),
}
"""Diagnosis at the exam by the codes of the columns of DXSUM."""


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List all images of ADNI in a directory; see `bench.data.manifest.tidy`.

    All images of one day are one visit. The date of a scan is taken from its folder, else from the
    search table, else from the exam with its ``IMAGEUID``. The age is the age at baseline plus the
    time since then, else that of the search table.

    Parameters
    ----------
    root : Path
        The directory with the unpacked downloads, nested or flat.
    options : mapping
        ``table``, ``image``, ``labels``, ``within_days``.

    Raises
    ------
    UserError
        If there are no images, if no table has their labels, or if a table lacks a column.
    """
    images = find_images(root, _subject_of, "ADNI")
    tables = tables_of(root, options)
    search = _search(tables)
    merge = find_table(tables, MERGE, MERGE_MORE)
    labels = str(options["labels"])
    if labels == "group" and (search is None or "group" not in search.columns):
        need_table(tables, tuple(SEARCHES[0].values()), SEARCH_MORE, "The search table", root)
    _describe_images(images, search)
    leave_out_others(images, root)
    exams = _exams(tables, merge, images["subject_id"])
    if exams is None and labels != "group":
        need_table(tables, MERGE, MERGE_MORE, "ADNIMERGE or DXSUM", root)
    scans = images.assign(rank=rank_images(images, str(options["image"])))
    known = _known_subjects(search, merge, exams)
    refuse_disjoint(scans["subject_id"], known, root, "the tables")
    scans.loc[~scans["subject_id"].isin(known) & (scans["reason"] == ""), "reason"] = NOT_LISTED
    _date(scans, search, merge)
    _describe(scans, search, merge)
    warnings = _label(scans, options, search, merge, exams)
    if exams is not None:
        scans.attrs["exams"] = exams[["subject_id", "day", "diagnosis"]]
    scans.attrs["warnings"] = [*images.attrs["warnings"], *warnings]
    scans.attrs["columns"] = [name for file in tables for name in readable_columns(file)]
    return scans


def _subject_of(path: str) -> str:
    found = PTID.findall(path)
    return found[-1] if found else ""


Found = tuple[Path, pd.DataFrame] | None


def _describe_images(images: pd.DataFrame, search: pd.DataFrame | None) -> None:
    """Add the description, where the path has none, and the modality from the search table."""
    if search is None:
        return
    if "Description" in search.columns:
        described = images["image_id"].map(search["Description"]).fillna("")
        images["description"] = images["description"].where(images["description"] != "", described)
    if "Modality" in search.columns:
        images["words"] += " " + images["image_id"].map(search["Modality"]).fillna("")


def _search(tables: Sequence[Path]) -> pd.DataFrame | None:
    """Return the images of all search tables: ``subject, day, age, sex, group`` by image id."""
    parts = []
    for file in tables:
        for names in SEARCHES:
            marks = [name for key, name in names.items() if key != "group"]
            found = find_table([file], marks, (names["group"], *SEARCH_MORE))
            if found is None:
                continue
            table = found[1].rename(columns={name: key for key, name in names.items()})
            rows = pd.DataFrame({"subject": table["subject"], "image": _image_id(table["image"])})
            rows["day"] = days_of(table["date"].rename(names["date"]), file, DATES)
            if "Age" in table.columns:
                rows["age"] = parse_ages(table["Age"], file)
            if "Sex" in table.columns:
                rows["sex"] = parse_sexes(table["Sex"], file)
            for name in ("group", "Description", "Modality"):
                if name in table.columns:
                    rows[name] = table[name]
            parts.append(rows)
            break
    if not parts:
        return None
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["image"] != ""].drop_duplicates("image").set_index("image")


def _image_id(texts: pd.Series) -> pd.Series:
    return texts.str.removesuffix(".0").str.removeprefix("I")


def _exams(tables: Sequence[Path], merge: Found, subjects: pd.Series) -> pd.DataFrame | None:
    """Return all exams with a diagnosis and a date, of ADNIMERGE first; None without table."""
    parts = []
    if merge is not None:
        file, table = merge
        day = days_of(table["EXAMDATE"], file, DATES)
        parts.append(
            _exam(table["PTID"], day, table["DX"], f"{file.stem} DX " + _quoted(table["DX"]))
        )
    rid = {str(int(ptid.rsplit("_", 1)[1])): ptid for ptid in subjects.unique()}
    for file in tables:
        found = None
        for key, code in itertools.product(("PTID", "RID"), CODES):
            found = found or find_table([file], (key, code, "EXAMDATE"), ("PTID", *CODES))
        if found is None:
            continue
        table = found[1]
        if "PTID" in table.columns:
            who = table["PTID"]
        else:
            who = table["RID"].str.removesuffix(".0").str.lstrip("0").map(rid)
        diagnosis = pd.Series("", index=table.index)
        source = pd.Series("", index=table.index)
        for code in CODES:
            if code in table.columns:
                meaning = decode(table[code], file, CODES[code])
                new = (diagnosis == "") & (meaning != "")
                diagnosis = diagnosis.where(~new, meaning)
                source = source.where(~new, f"{file.stem} {code} " + table[code])
        day = days_of(table["EXAMDATE"], file, DATES)
        parts.append(_exam(who, day, diagnosis, source))
    if not parts:
        return None
    exams = pd.concat(parts, ignore_index=True)
    return exams[exams["subject_id"].notna() & exams["day"].notna() & (exams["diagnosis"] != "")]


def _exam(who: pd.Series, day: pd.Series, diagnosis: pd.Series, source: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"subject_id": who, "day": day, "diagnosis": diagnosis, "source": source})


def _quoted(texts: pd.Series) -> pd.Series:
    return "'" + texts + "'"


def _known_subjects(
    search: pd.DataFrame | None, merge: Found, exams: pd.DataFrame | None
) -> set[str]:
    known: set[str] = set() if exams is None else set(exams["subject_id"])
    if search is not None:
        known |= set(search["subject"])
    if merge is not None:
        known |= set(merge[1]["PTID"])
    return known


def _date(scans: pd.DataFrame, search: pd.DataFrame | None, merge: Found) -> None:
    """Fill ``date``, ``session_id`` and ``day``, and exclude scans without a date."""
    day = parse_days(scans["date"], DATES)
    if search is not None:
        day = day.fillna(scans["image_id"].map(search["day"]))
    if merge is not None and "IMAGEUID" in merge[1].columns:
        file, table = merge
        ids = _image_id(table["IMAGEUID"])
        exam = pd.Series(days_of(table["EXAMDATE"], file, DATES).to_numpy(), index=ids)
        exam = exam[(exam.index != "") & ~exam.index.duplicated(keep="last")]
        day = day.fillna(scans["image_id"].map(exam))
    scans["day"] = day
    texts = pd.to_datetime(day, unit="D").dt.strftime("%Y-%m-%d").fillna("")
    scans["date"] = scans["session_id"] = texts
    scans.loc[day.isna() & (scans["reason"] == ""), "reason"] = NO_DATE


def _describe(scans: pd.DataFrame, search: pd.DataFrame | None, merge: Found) -> None:
    """Fill age, sex and site, from ADNIMERGE if possible, else from the search table."""
    scans["age"] = np.nan
    scans["sex"] = ""
    scans["site"] = scans["subject_id"].str[:3]
    if merge is not None:
        file, table = merge
        # In all rows, AGE is the age at baseline.
        people = table[table["AGE"] != ""].drop_duplicates("PTID").set_index("PTID")
        baseline = days_of(people["EXAMDATE_bl"], file, DATES)
        years = (scans["day"] - scans["subject_id"].map(baseline)) / YEAR
        scans["age"] = scans["subject_id"].map(parse_ages(people["AGE"], file)) + years
        if "PTGENDER" in table.columns:
            scans["sex"] = scans["subject_id"].map(parse_sexes(people["PTGENDER"], file)).fillna("")
        if "SITE" in table.columns:
            site = scans["subject_id"].map(people["SITE"]).fillna("")
            scans["site"] = site.where(site != "", scans["site"])
    if search is not None:
        if "age" in search.columns:
            scans["age"] = scans["age"].fillna(scans["image_id"].map(search["age"]))
        if "sex" in search.columns:
            sexes = scans["image_id"].map(search["sex"]).fillna("")
            scans["sex"] = scans["sex"].where(scans["sex"] != "", sexes)


def _label(
    scans: pd.DataFrame,
    options: Mapping[str, Value],
    search: pd.DataFrame | None,
    merge: Found,
    exams: pd.DataFrame | None,
) -> list[str]:
    """Fill ``diagnosis`` and ``source``; return warnings about them."""
    if options["labels"] == "group":
        assert search is not None
        group = scans["image_id"].map(search["group"])
        # LONI writes Patient if the project gives no group.
        scans["diagnosis"] = group.fillna("").replace("Patient", "")
        scans["source"] = "search table Group " + _quoted(group.fillna(""))
        return [
            "Labels are the Group of the search table, i.e. the research group at the time of the "
            "search, not the diagnosis at the scan."
        ]
    assert exams is not None
    if options["labels"] == "baseline" and merge is not None and "DX_bl" in merge[1].columns:
        rows = merge[1][merge[1]["DX_bl"] != ""].drop_duplicates("PTID").set_index("PTID")
        scans["diagnosis"] = scans["subject_id"].map(rows["DX_bl"]).fillna("")
        scans["source"] = f"{merge[0].stem} DX_bl " + _quoted(scans["diagnosis"])
        return [BASELINE]
    return label(scans, exams, options)
