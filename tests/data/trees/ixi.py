"""A small copy of IXI: names with hospitals, a table with repeated ids."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import xlwt

from tests.data.trees.scans import expect, write_scan

HOSPITALS = ("Guys", "HH", "IOP")
HEAD = ("IXI_ID", "SEX_ID (1=m, 2=f)", "HEIGHT", "AGE", "DATE_AVAILABLE")


def table(n_subjects: int = 24) -> pd.DataFrame:
    """Return the table: the last subject is not in it, and some have traps."""
    rows = []
    for i in range(1, n_subjects):
        age = 20.5 + i
        rows.append((i, 1 + i % 2, 170, age, 1))
        if i == 2:
            rows.append((i, 1 + i % 2, 170, age, 1))
        if i == 3:
            rows.append((i, 1 + i % 2, 170, age + 9, 1))
        if i == 4:
            rows.append((i, 1 + i % 2, 170, None, 0))
        if i == 5:
            rows[-1] = (i, 1 + i % 2, 0, None, 0)
    rows.append((900, 1, 180, 33.25, 1))
    return pd.DataFrame(rows, columns=list(HEAD))


def write(root: Path, n_subjects: int = 24, suffix: str = "csv") -> pd.DataFrame:
    """Write the cohort; return its manifest with default options.

    One subject is in the table twice, one twice with contradictory ages, one once with and once
    without an age, one without an age, one not at all.
    """
    rows = []
    for i in range(1, n_subjects + 1):
        hospital = HOSPITALS[i % 3]
        name = f"IXI{i:03d}-{hospital}-{700 + i:04d}-T1.nii.gz"
        write_scan(root / name, seed=i)
        missing = i in (3, 5) or i == n_subjects
        sex = "" if i in (3, n_subjects) else "MF"[i % 2]
        reason = {3: "contradictory rows in the table", n_subjects: "subject not in the table"}
        source = f"IXI.{suffix} AGE {20.5 + i:g}" if i != n_subjects else ""
        rows.append(
            {
                "subject_id": f"{i:03d}",
                "session_id": "",
                "path": name,
                "age": float("nan") if missing else 20.5 + i,
                "sex": sex,
                "site": hospital,
                "source": f"IXI.{suffix} AGE " if i == 5 else source,
                "reason": reason.get(i, ""),
            }
        )
    write_scan(root / "IXI001-Guys-0701-T2.nii.gz")
    if suffix == "xls":
        _write_xls(table(n_subjects), root / "IXI.xls")
    elif suffix == "xlsx":
        table(n_subjects).to_excel(root / "IXI.xlsx", index=False)
    else:
        table(n_subjects).to_csv(root / "IXI.csv", index=False)
    return expect(rows)


def _write_xls(frame: pd.DataFrame, file: Path) -> None:
    """Write the Excel format of before 2007, in which the table is downloaded."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("Table")
    for column, name in enumerate(frame.columns):
        sheet.write(0, column, name)
        for row, value in enumerate(frame[name].tolist(), start=1):
            if pd.notna(value):
                sheet.write(row, column, value)
    book.save(str(file))
