"""A small copy of OASIS-3: sessions named by days, runs, clinical visits on other days."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.data.trees.scans import expect, write_scan

PEOPLE, CLINICAL = "OASIS3_demographics.csv", "OASIS3_UDSb4_cdr.csv"
COURSES = (("0", "0"), ("1", "2"), ("0", "0.5"), ("0.5", "1.0"))
"""CDR at the first and the second clinical visit."""

DAYS = (129, 757)
"""Of the scans; clinical visits are 30 days before the first and 60 after the second."""

DX1 = {"0": "Cognitively normal", "0.5": "uncertain dementia", "1.0": "DLBD, primary"}
DIAGNOSES = {"0": "CN", "0.5": "", "1": "AD", "1.0": "AD", "2": "AD"}
"""Among the classes CN and AD."""


def write(root: Path, n_subjects: int = 24, old: bool = False) -> pd.DataFrame:
    """Write the cohort; return its manifest with default options.

    The first scan of each subject has two runs, the second lies in a folder ``NIFTI`` and has none.
    The last subject is in no table; the last but one had no clinical visit in the year of the
    scans. `old` writes the tables as XNAT exported them.
    """
    people, visits, rows, seed = [], [], [], 0
    for i in range(1, n_subjects + 1):
        subject, sex, entry = f"OAS3{i:04d}", i // 2 % 2, 60 + i % 20 + 0.25
        course = COURSES[i % 4]
        listed, late = i < n_subjects, 3000 if i == n_subjects - 1 else 0
        if listed:
            people.append((subject, f"{entry}", f"{2 - sex}"))
        for visit, (day, rating) in enumerate(zip(DAYS, course, strict=True)):
            gap = 60 if visit else -30
            dx1 = DX1.get(rating, "AD Dementia")
            if listed:
                visits.append((subject, day + gap + late, rating, dx1, f"{entry}"))
            session = f"d{day:04d}"
            stem = f"sub-{subject}_ses-{session}"
            names = (
                [f"anat3/NIFTI/{stem}_T1w.nii.gz"]
                if visit
                else [f"anat{run}/{stem}_run-0{run}_T1w.nii.gz" for run in (1, 2)]
            )
            when = f"{abs(gap)} days {'after' if gap > 0 else 'before'}"
            source = f"CDR {rating} ({dx1}), {when}"
            reason = "diagnosis MCI, not among the classes" if rating == "0.5" else ""
            if late:
                source, reason = "no exam within 180 days", "no diagnosis"
            for name in names:
                seed += 1
                place = f"{subject}_MR_{session}/{name}"
                write_scan(root / place, seed)
                left = "another image of the same visit is used" if "run-02" in name else reason
                rows.append(
                    {
                        "subject_id": subject,
                        "session_id": session,
                        "path": place,
                        "age": entry + day / 365.25 if listed else None,
                        "sex": "MF"[1 - sex] if listed else "",
                        "diagnosis": DIAGNOSES[rating] if listed and not late else "",
                        "source": source if listed else "",
                        "reason": left if listed else "subject not in the table",
                    }
                )
    _write_tables(root, people, visits, old)
    return expect(rows)


def _write_tables(root: Path, people: list[tuple], visits: list[tuple], old: bool) -> None:
    """Write demographics and clinical data; some visits have no rating."""
    if old:
        sexes = {"1": "M", "2": "F"}
        (root / "subjects.csv").write_text(
            "Subject,M/F\n" + "".join(f"{who},{sexes[sex]}\n" for who, _, sex in people)
        )
        lines = ["ADRC_ADRCCLINICALDATA ID,Subject,Date,cdr,dx1,ageAtEntry"]
        for who, day, rating, dx1, entry in visits:
            lines.append(f'{who}_ClinicalData_d{day:04d},{who},,{rating},"{dx1}",{entry}')
        (root / "adrc.csv").write_text("\n".join(lines) + "\n")
        return
    (root / PEOPLE).write_text(
        "OASISID,AgeatEntry,GENDER\n" + "".join(",".join(row) + "\n" for row in people)
    )
    lines = ["OASISID,OASIS_session_label,days_to_visit,age at visit,CDRTOT,CDRSUM,dx1"]
    for who, day, rating, dx1, _ in visits:
        lines.append(f'{who},{who}_UDSb4_d{day:04d},{day},,{rating},,"{dx1}"')
    lines.append("OAS30001,OAS30001_UDSb4_d0129,0129,,,,")
    (root / CLINICAL).write_text("\n".join(lines) + "\n")
