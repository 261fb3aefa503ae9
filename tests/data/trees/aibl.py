"""A small copy of AIBL: a LONI nest with numeric ids, and three clinical tables."""

from __future__ import annotations

import datetime
from pathlib import Path

import pandas as pd

from tests.data.trees.scans import expect, write_scan

RAW = "MPRAGE_ADNI_confirmed"
START = datetime.date(2007, 3, 5)


def write(root: Path, n_subjects: int = 20) -> pd.DataFrame:
    """Write the cohort; return its manifest with default options.

    Subjects are CN and AD in turn, but for the last four: one is MCI, one has no diagnosis, one has
    it at a visit without MRI half a year away, one is in no table. The first came twice.
    """
    people, diagnoses, mri, rows = [], [], [], []
    for i in range(n_subjects):
        trap = i - (n_subjects - 4)
        subject, born, image = str(2 + i), 1930 + i, 70000 + i
        code = str((1, 3)[i % 2])
        days = [START + datetime.timedelta(days=10 * i)]
        if i == 0:
            days.append(days[0] + datetime.timedelta(days=548))
        if trap == 0:
            code = "2"
        if trap == 1:
            code = "-4"
        if trap != 3:
            people.append((subject, "bl", 1 + i % 2, f"/{born}"))
        for visit, day in enumerate(days):
            name = ("bl", "m18")[visit]
            us = f"{day.month:02d}/{day.day:02d}/{day.year}"
            if trap != 3:
                mri.append((subject, name, "-4" if trap == 2 else us))
                diagnoses.append((subject, name, code))
            leaf = f"AIBL/{subject}/{RAW}/{day}_10_12_13.0/I{image + 100 * visit}"
            place = f"{leaf}/AIBL_{subject}_MR_{RAW}_br_raw_20110214_S1_I{image + 100 * visit}.nii"
            write_scan(root / place, seed=image + visit)
            age = 1970 + (day - datetime.date(1970, 1, 1)).days / 365.25 - born - 0.5
            reason = {
                0: "diagnosis MCI, not among the classes",
                1: "no diagnosis",
                2: "no diagnosis",
                3: "subject not in the table",
            }.get(trap, "")
            source = f"DXCURREN {code} at {name}, on the day"
            if trap > 0:
                source = "no exam within 180 days"
            rows.append(
                {
                    "subject_id": subject,
                    "session_id": str(day),
                    "path": place,
                    "age": float("nan") if trap == 3 else age,
                    "sex": "" if trap == 3 else "MF"[i % 2],
                    "diagnosis": "" if reason else {"1": "CN", "3": "AD"}[code],
                    "source": source,
                    "reason": reason,
                }
            )
    for name, columns, table in (
        ("aibl_ptdemog_01-Jun-2018", ["RID", "VISCODE", "PTGENDER", "PTDOB"], people),
        ("aibl_pdxconv_01-Jun-2018", ["RID", "VISCODE", "DXCURREN"], diagnoses),
        ("aibl_mrimeta_01-Jun-2018", ["RID", "VISCODE", "EXAMDATE"], mri),
    ):
        pd.DataFrame(table, columns=columns).to_csv(root / f"{name}.csv", index=False)
    return expect(rows)
