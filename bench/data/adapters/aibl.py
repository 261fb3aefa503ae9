"""AIBL as downloaded from LONI, labelled by its three clinical tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bench.data.adapters.loni import find_images, leave_out_others, rank_images
from bench.data.adapters.reading import (
    listed,
    need_table,
    parse_sexes,
    refuse_disjoint,
    tables_of,
)
from bench.data.adapters.visits import NEWEST, NOT_LISTED, OLDEST, YEAR, days_of, label, parse_days
from bench.data.diagnosis import decode
from registry.cards import Value
from registry.errors import UserError

DATES = ("%m/%d/%Y", "%Y-%m-%d")
MISSING = "-4"
NO_DATE = "scan date unknown"
DIAGNOSES = {"1": "CN", "2": "MCI", "3": "AD"}
SEXES = {"1": "M", "2": "F"}
_SUBJECT = re.compile(r"AIBL_(\d+)_|(?:^|/)(\d{1,5})(?=/)")


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List all images of AIBL in a directory; see `bench.data.manifest.tidy`.

    All images of one day are one visit. Diagnoses have the name of a visit but no date; they get
    the date of the MRI of that visit, else that of the baseline MRI plus the months in the name.
    Only the year of birth is known; subjects are assumed to be born in the middle of it.

    Parameters
    ----------
    root : Path
        The directory with the unpacked downloads.
    options : mapping
        ``table``, ``image``, ``labels``, ``within_days``.

    Raises
    ------
    UserError
        If there are no images, or if a table is missing.
    """
    images = find_images(root, _subject_of, "AIBL")
    leave_out_others(images, root)
    tables = tables_of(root, options)
    people_file, people = need_table(tables, ("RID", "PTDOB", "PTGENDER"), (), "aibl_ptdemog", root)
    exam_file, diagnoses = need_table(
        tables, ("RID", "VISCODE", "DXCURREN"), (), "aibl_pdxconv", root
    )
    mri_file, mri = need_table(
        # Other tables also have dates of exams, but only those of the MRI table are scan dates.
        sorted(tables, key=lambda file: "mri" not in file.name.lower()),
        ("RID", "VISCODE", "EXAMDATE"),
        (),
        "aibl_mrimeta",
        root,
    )
    refuse_disjoint(images["subject_id"], people["RID"], root, "aibl_ptdemog")
    scans = images.assign(rank=rank_images(images, str(options["image"])))
    unknown = ~scans["subject_id"].isin(people["RID"]) & (scans["reason"] == "")
    scans.loc[unknown, "reason"] = NOT_LISTED
    scans["session_id"] = scans["date"]
    scans["day"] = parse_days(scans["date"], DATES)
    scans.loc[scans["day"].isna() & (scans["reason"] == ""), "reason"] = NO_DATE

    people = people.drop_duplicates("RID").set_index("RID")
    birth = _present(people["PTDOB"]).str.extract(r"^(?:.*/)?(\d{4})$", expand=False)
    wrong = (_present(people["PTDOB"]) != "") & ~birth.between(str(OLDEST), str(NEWEST))
    if wrong.any():
        raise UserError(
            f"{people_file} has values in the column 'PTDOB' that are not years of birth: "
            f"{listed(people.loc[wrong, 'PTDOB'].unique())}; correct them or replace them by n/a."
        )
    born = pd.to_numeric(birth) + 0.5
    year = 1970 + scans["day"] / YEAR
    scans["age"] = year - scans["subject_id"].map(born)
    sexes = parse_sexes(_present(people["PTGENDER"]), people_file, SEXES)
    scans["sex"] = scans["subject_id"].map(sexes).fillna("")

    other = diagnoses["DXCURREN"].str.fullmatch(r"[4-9](?:\.0)?")
    diagnoses["DXCURREN"] = diagnoses["DXCURREN"].where(~other, "")
    diagnoses["diagnosis"] = decode(diagnoses["DXCURREN"], exam_file, DIAGNOSES)
    exams = _exams(diagnoses, mri.assign(day=days_of(_present(mri["EXAMDATE"]), mri_file, DATES)))
    warnings = label(scans, exams, options)
    if other.any():
        warnings.append(
            f"{exam_file.name} has {int(other.sum())} exams with a DXCURREN above 3, which means "
            "none of CN, MCI and AD; they are not used as labels."
        )
    scans.attrs = {
        "columns": [*people.columns, *diagnoses.columns],
        "exams": exams[["subject_id", "day", "diagnosis"]],
        "warnings": [*images.attrs["warnings"], *warnings],
    }
    return scans


def _subject_of(path: str) -> str:
    found = [one or other for one, other in _SUBJECT.findall(path)]
    return found[-1] if found else ""


def _present(texts: pd.Series) -> pd.Series:
    return texts.where(texts != MISSING, "")


def _exams(diagnoses: pd.DataFrame, mri: pd.DataFrame) -> pd.DataFrame:
    """Return all diagnoses with the day of their visit."""
    code = diagnoses["DXCURREN"].str.removesuffix(".0")
    exams = pd.DataFrame(
        {
            "subject_id": diagnoses["RID"],
            "visit": diagnoses["VISCODE"],
            "diagnosis": diagnoses["diagnosis"],
            "source": "DXCURREN " + code + " at " + diagnoses["VISCODE"],
        }
    )
    days = mri.dropna(subset="day").drop_duplicates(["RID", "VISCODE"])
    at = days.set_index(["RID", "VISCODE"])["day"]
    visits = pd.MultiIndex.from_frame(exams[["subject_id", "visit"]])
    day = pd.Series(at.reindex(visits).to_numpy(), index=exams.index)
    baseline = exams["subject_id"].map(days[days["VISCODE"] == "bl"].set_index("RID")["day"])
    months = pd.to_numeric(
        exams["visit"].replace("bl", "m0").str.removeprefix("m"), errors="coerce"
    )
    exams["day"] = day.fillna(baseline + months * YEAR / 12)
    exams = exams[(exams["diagnosis"] != "") & exams["day"].notna()]
    return exams.drop(columns="visit").reset_index(drop=True)
