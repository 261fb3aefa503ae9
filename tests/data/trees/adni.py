"""A small copy of ADNI: downloads to be merged, raw and processed images, exams on other days."""

from __future__ import annotations

import datetime
from pathlib import Path

import pandas as pd

from tests.data.trees.scans import expect, write_scan

PROCESSED = "MPR__GradWarp__B1_Correction__N3__Scaled"
REPEAT = "MPR-R__GradWarp__B1_Correction__N3__Scaled"
SECOND = PROCESSED + "_2"
RAW = "MP-RAGE"
SCREENING = datetime.date(2006, 4, 18)
NOT_CHOSEN = "another image of the same visit is used"
CSYM = "_space-MNI152NLin2009cSym"


def ptid(i: int) -> str:
    return f"{i % 5 + 2:03d}_S_{295 + i:04d}"


def write(root: Path, n_subjects: int = 20, registered: bool = False) -> pd.DataFrame:
    """Write the cohort; return its manifest with default options.

    Even subjects are CN and odd ones AD, but for the last five: one converts, one is MCI, one has
    no diagnosis at its exam, one had its exam half a year and more away, one is in no table. The
    first has images of two phases in two downloads, and at its first visit a raw image, a repeat
    and a second copy besides the processed one.
    """
    table, search, rows = [], [], []
    image = 40965
    for i in range(n_subjects):
        trap = i - (n_subjects - 5)
        subject = ptid(i)
        dx = ("NL", "Dementia")[i % 2] if i % 4 < 2 else ("CN", "AD")[i % 2]
        gap = 12 if i % 2 else 0
        if trap >= 0:
            dx = ("MCI to Dementia", "MCI", "", "CN", "CN")[trap]
            gap = 200 if trap == 3 else gap
        meaning = {"NL": "CN", "Dementia": "AD", "MCI to Dementia": "AD"}.get(dx, dx)
        visits = [SCREENING + datetime.timedelta(days=30 * i)]
        if i == 0:
            visits.append(visits[0] + datetime.timedelta(days=1461))
        for visit, day in enumerate(visits):
            exam = day + datetime.timedelta(days=gap)
            if trap != 4:
                table.append(
                    {
                        "RID": str(295 + i),
                        "PTID": subject,
                        "VISCODE": ("bl", "m48")[visit],
                        "SITE": str(i % 5 + 2),
                        "EXAMDATE": str(exam),
                        "DX_bl": {"CN": "CN", "AD": "AD"}.get(meaning, "LMCI"),
                        "AGE": f"{70 + i % 9}.5",
                        "PTGENDER": ("Male", "Female")[i // 2 % 2],
                        "DX": dx,
                        "EXAMDATE_bl": str(visits[0]),
                        "IMAGEUID": "" if i % 3 else str(float(image + 1)),
                    }
                )
            kinds = [PROCESSED]
            if i == 0 and visit == 0:
                kinds = [RAW, REPEAT, PROCESSED, SECOND]
            for kind in kinds:
                image += 1
                part = "ADNI3" if visit else ("ADNI1", "ADNI1_2")[i % 2]
                leaf = f"I{image}" if i % 2 == 0 else f"S{13000 + i}"
                name = (
                    f"ADNI_{subject}_MR_{kind}_Br_{20070215131200000 + image}"
                    f"_S{13000 + i}_I{image}{CSYM if registered else ''}.nii"
                )
                place = f"{part}/ADNI/{subject}/{kind}/{day}_08_20_30.0/{leaf}/{name}"
                write_scan(root / place, seed=image)
                search.append((image, subject, meaning or "MCI", "MF"[i // 2 % 2], day, kind))
                years = (day - visits[0]).days / 365.25
                reason, source = "", f"ADNIMERGE_17May DX '{dx}', "
                source += f"{gap} days after" if gap else "on the day"
                if trap == 1:
                    reason = "diagnosis MCI, not among the classes"
                if trap in (2, 3):
                    reason, source = "no diagnosis", "no exam within 180 days"
                if trap == 4:
                    reason, source = "subject not in the table", "no exam within 180 days"
                rows.append(
                    {
                        "subject_id": subject,
                        "session_id": str(day),
                        "path": place,
                        "age": float("nan") if trap == 4 else 70.5 + i % 9 + years,
                        "sex": "" if trap == 4 else "MF"[i // 2 % 2],
                        "diagnosis": meaning if not reason else "",
                        "site": subject[:3] if trap == 4 else str(i % 5 + 2),
                        "source": source,
                        "reason": reason if kind == PROCESSED else NOT_CHOSEN,
                    }
                )
                if kind != PROCESSED:
                    rows[-1]["diagnosis"] = "CN"
    pd.DataFrame(table).to_csv(root / "ADNIMERGE_17May.csv", index=False)
    return expect(rows)


def write_search_table(root: Path, images: pd.DataFrame, file: Path, dotted: bool = False) -> None:
    """Write LONI's search table of the images in a manifest; ids have their ``I`` or not."""
    ids = images["path"].str.extract(r"_I(\d+)(?=[_.])")[0]
    days = pd.to_datetime(images["session_id"])
    table = pd.DataFrame(
        {
            "Image Data ID": ids if dotted else "I" + ids,
            "Subject": images["subject_id"],
            "Group": ["CN", "AD", "Patient", "SMC"] * (len(images) // 4)
            + ["CN"] * (len(images) % 4),
            "Sex": "F",
            "Age": 71,
            "Visit": "sc",
            "Modality": "MRI",
            "Description": images["path"].str.split("/").str[3],
            "Acq Date": [f"{day.month}/{day.day}/{day.year}" for day in days],
            "Format": "NiFTI",
        }
    )
    if dotted:
        table.columns = [name.replace(" ", ".") for name in table.columns]
    table.to_csv(file, index=False)
