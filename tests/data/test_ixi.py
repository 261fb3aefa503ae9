"""IXI in its original layout, including special cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import UserError
from tests.data.trees import ixi
from tests.data.trees.scans import assert_listed, listed_scans


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "xls"])
def test_the_manifest_is_the_expected_one_row_by_row(suffix: str, tmp_path: Path) -> None:
    expected = ixi.write(tmp_path, suffix=suffix)
    scans = listed_scans("ixi", tmp_path)
    assert_listed(scans, expected)
    assert (
        "3 repeated ids; excluded because of contradictory rows: 1 subject."
        in scans.attrs["warnings"][0]
    )


def test_a_registered_copy_is_the_same_scan(tmp_path: Path) -> None:
    ixi.write(tmp_path)
    file = tmp_path / "IXI001-HH-0701-T1.nii.gz"
    copy = tmp_path / "registered" / "IXI001-HH-0701-T1_space-MNI152NLin2009cSym.nii.gz"
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    scans = listed_scans("ixi", tmp_path).query("subject_id == '001'")
    assert scans.loc[scans["reason"] == "", "space"].tolist() == ["mni"]
    assert len(scans) == 2


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"IXI002-Guys-0828-T1\.nii\.gz"):
        listed_scans("ixi", tmp_path)
    ixi.write(tmp_path)
    (tmp_path / "IXI.csv").rename(tmp_path / "IXI.doc")
    with pytest.raises(UserError, match=r"IXI.xls is needed.*'SEX_ID \(1=m, 2=f\)'"):
        listed_scans("ixi", tmp_path)
