"""A small copy of OASIS-2: pairs of NIfTI in two parts, several visits and repeats."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.data.trees.scans import expect, write_scan

TABLE = "oasis_longitudinal_demographics.csv"
HEADER = "Subject ID,MRI ID,Group,Visit,MR Delay,M/F,Hand,Age,EDUC,SES,MMSE,CDR,eTIV,nWBV,ASF"

COURSES = {
    "Nondemented": ("0", "0"),
    "Demented": ("1", "2"),
    "Converted": ("0", "1"),
    "Demented mildly": ("0.5", "1.0"),
}
"""CDR at the first and the second visit."""

DIAGNOSES = {"0": "CN", "0.5": "", "1": "AD", "1.0": "AD", "2": "AD"}
"""Among the classes CN and AD."""


def write(root: Path, n_subjects: int = 24, suffix: str = ".nifti.img") -> pd.DataFrame:
    """Write the cohort; return its manifest with default options.

    Every fourth subject has one visit only; the last visit of the last subject is in no table, and
    the last subject but one neither.
    """
    lines, rows, seed = [HEADER], [], 0
    for i in range(1, n_subjects + 1):
        subject, sex = f"OAS2_{i:04d}", "FM"[i // 2 % 2]
        group = list(COURSES)[i % 4]
        in_table = i != n_subjects - 1
        for visit, rating in enumerate(COURSES[group][: 1 if i % 4 == 0 else 2], start=1):
            session, age, day = f"MR{visit}", 65 + i % 20 + visit, (visit - 1) * (500 + i)
            has_row = in_table and not (i == n_subjects - 2 and visit == 2)
            if has_row:
                lines.append(
                    f"{subject},{subject}_{session},{group.split()[0]},{visit},{day},{sex},R,{age},"
                    f"14,2,27,{rating},1987,0.696,0.883"
                )
            for repeat in (1, 2):
                place = f"OAS2_RAW_PART{1 + i % 2}/{subject}_{session}/RAW/mpr-{repeat}{suffix}"
                seed += 1
                write_scan(root / place, seed)
                source = f"CDR {rating}" if has_row else "visit not in the table"
                reason = "" if has_row else "no diagnosis"
                if rating == "0.5" and has_row:
                    reason = "diagnosis MCI, not among the classes"
                if repeat == 2:
                    reason = "another image of the same visit is used"
                rows.append(
                    {
                        "subject_id": subject,
                        "session_id": session,
                        "path": place,
                        "age": age if has_row else None,
                        "sex": sex if in_table else "",
                        "diagnosis": DIAGNOSES[rating] if has_row else "",
                        "source": source if in_table else "",
                        "reason": reason if in_table else "subject not in the table",
                    }
                )
    (root / TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return expect(rows)
