"""AIBL in its original layout, including special cases."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from registry.errors import UserError
from tests.data.trees import aibl
from tests.data.trees.scans import assert_listed, listed_scans


def test_the_manifest_is_the_expected_one_row_by_row(tmp_path: Path) -> None:
    expected = aibl.write(tmp_path)
    assert_listed(listed_scans("aibl", tmp_path), expected)


def test_baseline_labels_are_said_to_be_so(tmp_path: Path) -> None:
    aibl.write(tmp_path)
    scans = listed_scans("aibl", tmp_path, labels="baseline")
    assert "baseline" in scans.attrs["warnings"][0]
    later = scans[scans["subject_id"] == "2"]
    assert later["source"].tolist() == ["first exam, DXCURREN 1 at bl"] * 2


def test_a_visit_without_mri_is_dated_by_its_name(tmp_path: Path) -> None:
    aibl.write(tmp_path)
    file = next(tmp_path.glob("aibl_pdxconv*"))
    file.write_text(file.read_text() + "2,m36,3\n")
    exams = listed_scans("aibl", tmp_path).attrs["exams"].query("subject_id == '2'")
    assert exams["diagnosis"].tolist() == ["CN", "CN", "AD"]
    assert exams["day"].iloc[2] - exams["day"].iloc[0] == pytest.approx(3 * 365.25)


@pytest.mark.parametrize("table", ["ptdemog", "pdxconv", "mrimeta"])
def test_a_table_that_is_missing_is_named(table: str, tmp_path: Path) -> None:
    aibl.write(tmp_path)
    next(tmp_path.glob(f"aibl_{table}*")).unlink()
    with pytest.raises(UserError, match=f"aibl_{table} is needed.*--table FILE"):
        listed_scans("aibl", tmp_path)


@pytest.mark.parametrize(
    ("table", "column", "value", "words"),
    [
        ("pdxconv", "DXCURREN", "Vascular", "'DXCURREN': 'Vascular'"),
        ("ptdemog", "PTGENDER", "3", "do not mean F or M: '3'"),
        ("ptdemog", "PTDOB", "/9999", "not years of birth: '/9999'"),
        ("mrimeta", "EXAMDATE", "0207-01-10", "not dates: '0207-01-10'"),
    ],
)
def test_a_value_that_nobody_knows_is_a_sentence(
    table: str, column: str, value: str, words: str, tmp_path: Path
) -> None:
    aibl.write(tmp_path)
    file = next(tmp_path.glob(f"aibl_{table}*"))
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    rows.loc[1, column] = value
    rows.to_csv(file, index=False)
    with pytest.raises(UserError, match=words):
        listed_scans("aibl", tmp_path)


def test_codes_of_other_diagnoses_label_nobody_and_are_counted(tmp_path: Path) -> None:
    aibl.write(tmp_path)
    file = next(tmp_path.glob("aibl_pdxconv*"))
    file.write_text(file.read_text() + "2,m36,7\n")
    assert "1 exams with a DXCURREN above 3" in listed_scans("aibl", tmp_path).attrs["warnings"][-1]
