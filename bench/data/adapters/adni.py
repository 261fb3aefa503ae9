"""ADNI as downloaded from LONI, labelled by ADNIMERGE or DXSUM.

The diagnosis is that of the exam nearest to the scan. The Group of the search table is the research
group at the time of the search, and is used only where the user asks for it.
"""

from __future__ import annotations

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
    refuse_disjoint,
    tables_of,
    take_columns,
)
from bench.data.adapters.visits import BASELINE, NOT_LISTED, YEAR, days_of, label
from registry.cards import Value

PTID = re.compile(r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)")
DATES = ("%Y-%m-%d", "%m/%d/%Y", "%m/%d/%y")
NO_DATE = "scan date unknown"

SEARCH = ("Image Data ID", "Subject", "Acq Date")
SEARCH_MORE = ("Group", "Sex", "Age", "Description", "Modality")
MERGE = ("PTID", "VISCODE", "EXAMDATE")
MERGE_MORE = ("DX", "DX_bl", "AGE", "EXAMDATE_bl", "PTGENDER", "SITE", "IMAGEUID")
CODES: dict[str, dict[str, str]] = {
    "DIAGNOSIS": {"1": "CN", "2": "MCI", "3": "AD"},
    "DXCURREN": {"1": "CN", "2": "MCI", "3": "AD"},
    # Stable, then conversions to MCI, AD and AD, then reversions to CN, MCI and CN.
    "DXCHANGE": dict(
        zip("123456789", ("CN", "MCI", "AD", "MCI", "AD", "AD", "CN", "MCI", "CN"), strict=True)
    ),
}
"""What the codes of DXSUM mean after the exam; -4 and all others are missing."""


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List every image of ADNI below a folder; see `bench.data.manifest.tidy`.

    A visit is a day. The date of a scan is that of its folder, else that of the search table, else
    that of the exam whose ``IMAGEUID`` it is. Its age is the age at baseline and the time since,
    else that of the search table.

    Parameters
    ----------
    root : Path
        The folder that the downloads were unpacked in, or a flat one.
    options : mapping
        ``table``, ``image``, ``labels``, ``within_days``.

    Raises
    ------
    UserError
        When there are no images or no table that labels them, or a table lacks a column.
    """
    images = find_images(root, _subject_of, "ADNI")
    tables = tables_of(root, options)
    search = find_table(tables, SEARCH, SEARCH_MORE)
    merge = find_table(tables, MERGE, MERGE_MORE)
    labels = str(options["labels"])
    if labels == "group":
        search = need_table(tables, (*SEARCH, "Group"), SEARCH_MORE, "The search table", root)
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
    found = [table for table in (search, merge) if table is not None]
    scans.attrs["columns"] = [name for _, table in found for name in table.columns]
    return scans


def _subject_of(path: str) -> str:
    found = PTID.findall(path)
    return found[-1] if found else ""


Found = tuple[Path, pd.DataFrame] | None


def _describe_images(images: pd.DataFrame, search: Found) -> None:
    """Add what the search table says of images: the description where paths have none."""
    if search is None:
        return
    table = search[1].assign(image=search[1]["Image Data ID"].str.removeprefix("I"))
    rows = table.drop_duplicates("image").set_index("image")
    if "Description" in rows.columns:
        said = images["image_id"].map(rows["Description"]).fillna("")
        images["description"] = images["description"].where(images["description"] != "", said)
    if "Modality" in rows.columns:
        images["words"] += " " + images["image_id"].map(rows["Modality"]).fillna("")


def _exams(tables: Sequence[Path], merge: Found, subjects: pd.Series) -> pd.DataFrame | None:
    """Return every exam that has a diagnosis and a date, of ADNIMERGE first, None without any."""
    parts = []
    if merge is not None:
        file, table = merge
        take_columns(table, ["DX", "EXAMDATE"], file)
        day = days_of(table["EXAMDATE"], file, DATES)
        parts.append(
            _exam(table["PTID"], day, table["DX"], f"{file.stem} DX " + _quoted(table["DX"]))
        )
    rid = {str(int(ptid.rsplit("_", 1)[1])): ptid for ptid in subjects.unique()}
    for file in tables:
        for key in ("PTID", "RID"):
            found = None
            for code in CODES:
                found = found or find_table([file], (key, code, "EXAMDATE"), tuple(CODES))
            if found is None:
                continue
            table = found[1]
            who = table["PTID"] if key == "PTID" else table["RID"].str.lstrip("0").map(rid)
            diagnosis = pd.Series("", index=table.index)
            source = pd.Series("", index=table.index)
            for code, meaning in CODES.items():
                if code in table.columns:
                    coded = table[code].str.removesuffix(".0")
                    new = (diagnosis == "") & coded.isin(list(meaning))
                    diagnosis = diagnosis.where(~new, coded.map(meaning))
                    source = source.where(~new, f"{file.stem} {code} " + coded)
            day = days_of(table["EXAMDATE"], file, DATES)
            parts.append(_exam(who, day, diagnosis, source))
            break
    if not parts:
        return None
    exams = pd.concat(parts, ignore_index=True)
    return exams[exams["subject_id"].notna() & exams["day"].notna() & (exams["diagnosis"] != "")]


def _exam(who: pd.Series, day: pd.Series, diagnosis: pd.Series, source: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"subject_id": who, "day": day, "diagnosis": diagnosis, "source": source})


def _quoted(texts: pd.Series) -> pd.Series:
    return "'" + texts + "'"


def _known_subjects(search: Found, merge: Found, exams: pd.DataFrame | None) -> set[str]:
    known: set[str] = set() if exams is None else set(exams["subject_id"])
    if search is not None:
        known |= set(search[1]["Subject"])
    if merge is not None:
        known |= set(merge[1]["PTID"])
    return known


def _date(scans: pd.DataFrame, search: Found, merge: Found) -> None:
    """Fill ``date``, ``session_id`` and ``day``; a scan without a date has no place in time."""
    date = scans["date"]
    for found, key, name in (
        (search, "Image Data ID", "Acq Date"),
        (merge, "IMAGEUID", "EXAMDATE"),
    ):
        if found is not None and key in found[1].columns:
            file, table = found
            ids = table[key].str.removesuffix(".0").str.removeprefix("I")
            days = days_of(table[name], file, DATES)
            texts = pd.to_datetime(days, unit="D").dt.strftime("%Y-%m-%d").fillna("")
            by_image = dict(zip(ids, texts, strict=True))
            date = date.where(date != "", scans["image_id"].map(by_image).fillna(""))
    scans["date"] = scans["session_id"] = date
    scans["day"] = days_of(date, Path("scans"), DATES)
    undated = (date == "") & (scans["reason"] == "")
    scans.loc[undated, "reason"] = NO_DATE


def _describe(scans: pd.DataFrame, search: Found, merge: Found) -> None:
    """Fill age, sex and site, of ADNIMERGE before the search table."""
    scans["age"] = np.nan
    scans["sex"] = ""
    scans["site"] = scans["subject_id"].str[:3]
    if merge is not None:
        file, table = merge
        take_columns(table, ["AGE", "EXAMDATE_bl"], file)
        # AGE is the age at baseline on every row.
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
        file, table = search
        table = table.assign(image=table["Image Data ID"].str.removeprefix("I"))
        rows = table.drop_duplicates("image").set_index("image")
        if "Age" in table.columns:
            ages = scans["image_id"].map(parse_ages(rows["Age"], file))
            scans["age"] = scans["age"].fillna(ages)
        if "Sex" in table.columns:
            sexes = scans["image_id"].map(parse_sexes(rows["Sex"], file)).fillna("")
            scans["sex"] = scans["sex"].where(scans["sex"] != "", sexes)


def _label(
    scans: pd.DataFrame,
    options: Mapping[str, Value],
    search: Found,
    merge: Found,
    exams: pd.DataFrame | None,
) -> list[str]:
    """Fill diagnosis and source; return what a user must know of them."""
    if options["labels"] == "group":
        assert search is not None
        table = search[1].assign(image=search[1]["Image Data ID"].str.removeprefix("I"))
        group = scans["image_id"].map(table.drop_duplicates("image").set_index("image")["Group"])
        # LONI writes Patient where the project has given no group.
        scans["diagnosis"] = group.fillna("").replace("Patient", "")
        scans["source"] = "search table Group " + _quoted(group.fillna(""))
        return [
            "Labels are the Group of the search table: the research group when it was searched, "
            "not the diagnosis at the scan."
        ]
    assert exams is not None
    if options["labels"] == "baseline" and merge is not None and "DX_bl" in merge[1].columns:
        rows = merge[1][merge[1]["DX_bl"] != ""].drop_duplicates("PTID").set_index("PTID")
        scans["diagnosis"] = scans["subject_id"].map(rows["DX_bl"]).fillna("")
        scans["source"] = f"{merge[0].stem} DX_bl " + _quoted(scans["diagnosis"])
        return [BASELINE]
    return label(scans, exams, options)
