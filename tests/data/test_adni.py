"""ADNI in its true layout, with its traps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench.data.adapters.loni import rank_images
from registry.errors import UserError
from tests.data.trees import adni
from tests.data.trees.scans import assert_listed, listed_scans


def test_the_manifest_is_the_expected_one_row_by_row(tmp_path: Path) -> None:
    expected = adni.write(tmp_path)
    assert_listed(listed_scans("adni", tmp_path), expected)


def test_registered_files_are_in_mni_space(tmp_path: Path) -> None:
    expected = adni.write(tmp_path, registered=True)
    scans = listed_scans("adni", tmp_path)
    assert_listed(scans, expected)
    assert set(scans["space"]) == {"mni"}
    assert set(scans["path"].str.count("space-MNI")) == {1}


def test_the_registered_file_of_an_image_outranks_the_native_one(tmp_path: Path) -> None:
    adni.write(tmp_path)
    first = sorted(tmp_path.rglob(f"*{adni.ptid(2)}*.nii"))[0]
    shutil.copy(first, first.with_name(first.stem + adni.CSYM + ".nii"))
    scans = listed_scans("adni", tmp_path)
    used = scans[(scans["subject_id"] == adni.ptid(2)) & (scans["reason"] == "")]
    assert used["space"].tolist() == ["mni"]


def test_a_flat_folder_takes_dates_from_the_search_table(tmp_path: Path) -> None:
    tree, flat = tmp_path / "tree", tmp_path / "flat"
    expected = adni.write(tree)
    flat.mkdir()
    for file in tree.rglob("*.nii"):
        shutil.copy(file, flat / file.name)
    shutil.copy(tree / "ADNIMERGE_17May.csv", flat)
    for dotted in (False, True):
        adni.write_search_table(tree, expected, flat / "idaSearch.csv", dotted)
        scans = listed_scans("adni", flat)
        moved = expected.assign(path=expected["path"].str.split("/").str[-1])
        lost = moved["reason"] == "subject not in the table"
        columns = ["subject_id", "session_id", "path", "reason"]
        found = scans.sort_values("path")[columns].reset_index(drop=True)
        wanted = moved.assign(reason=moved["reason"].where(~lost, "no diagnosis"))
        pd.testing.assert_frame_equal(
            found, wanted.sort_values("path")[columns].reset_index(drop=True), check_dtype=False
        )


def test_a_flat_folder_without_dates_uses_the_image_ids_of_adnimerge(tmp_path: Path) -> None:
    tree, flat = tmp_path / "tree", tmp_path / "flat"
    adni.write(tree)
    flat.mkdir()
    for file in tree.rglob("*.nii"):
        shutil.copy(file, flat / file.name)
    shutil.copy(tree / "ADNIMERGE_17May.csv", flat)
    scans = listed_scans("adni", flat)
    reasons = scans["reason"].value_counts()
    assert reasons["scan date unknown"] > 0
    assert reasons[""] > 0
    assert (scans.loc[scans["reason"] == "", "session_id"] != "").all()


def test_raw_images_are_used_where_asked_for(tmp_path: Path) -> None:
    adni.write(tmp_path)
    scans = listed_scans("adni", tmp_path, image="raw")
    first = scans[(scans["subject_id"] == adni.ptid(0)) & (scans["reason"] == "")]
    assert first["path"].str.split("/").str[3].tolist() == [adni.RAW, adni.PROCESSED]


def test_images_are_ranked_by_the_stated_rule() -> None:
    images = pd.DataFrame(
        {
            "space": ["", "", "", "", "mni"],
            "description": [adni.RAW, adni.REPEAT, adni.SECOND, adni.PROCESSED, adni.RAW],
            "image_id": ["1", "2", "30", "4", "5"],
        }
    )
    ranks = rank_images(images, "processed")
    assert ranks.sort_values().index.tolist() == [4, 3, 1, 2, 0]


@pytest.mark.parametrize(
    ("column", "codes"),
    [
        ("DIAGNOSIS", {"CN": "1", "MCI": "2", "AD": "3"}),
        ("DXCURREN", {"CN": "1", "MCI": "2", "AD": "3"}),
        ("DXCHANGE", {"CN": "9", "MCI": "4", "AD": "6"}),
    ],
)
@pytest.mark.parametrize("key", ["RID", "PTID"])
def test_dxsum_in_its_three_codings(column: str, codes: dict, key: str, tmp_path: Path) -> None:
    expected = adni.write(tmp_path)
    merge = pd.read_csv(tmp_path / "ADNIMERGE_17May.csv", dtype=str, keep_default_na=False)
    meaning = merge["DX"].replace({"NL": "CN", "Dementia": "AD", "MCI to Dementia": "AD"})
    dxsum = merge[[key, "VISCODE", "EXAMDATE"]].assign(**{column: meaning.map(codes).fillna("-4")})
    dxsum.to_csv(tmp_path / "DXSUM_PDXCONV_ADNIALL.csv", index=False)
    merge.assign(DX="").to_csv(tmp_path / "ADNIMERGE_17May.csv", index=False)
    scans = listed_scans("adni", tmp_path)
    columns = ["subject_id", "session_id", "path", "diagnosis", "reason"]
    order = ["subject_id", "session_id", "path"]
    pd.testing.assert_frame_equal(
        scans[columns].sort_values(order, ignore_index=True), expected[columns]
    )
    assert scans.loc[scans["reason"] == "", "source"].str.contains(f"DXSUM.* {column} ").all()


def test_dxsum_and_the_search_table_are_enough(tmp_path: Path) -> None:
    expected = adni.write(tmp_path)
    merge = pd.read_csv(tmp_path / "ADNIMERGE_17May.csv", dtype=str, keep_default_na=False)
    dxsum = merge[["RID", "VISCODE", "EXAMDATE"]].assign(
        DIAGNOSIS=merge["DX"].map({"NL": "1", "CN": "1", "AD": "3", "Dementia": "3"}).fillna("-4")
    )
    dxsum.to_csv(tmp_path / "DXSUM.csv", index=False)
    adni.write_search_table(tmp_path, expected, tmp_path / "search.csv")
    (tmp_path / "ADNIMERGE_17May.csv").unlink()
    used = listed_scans("adni", tmp_path).query("reason == ''")
    assert set(used["age"]) == {71.0}
    assert set(used["sex"]) == {"F"}
    assert set(used["diagnosis"]) == {"CN", "AD"}


def test_baseline_labels_are_said_to_be_so(tmp_path: Path) -> None:
    adni.write(tmp_path)
    scans = listed_scans("adni", tmp_path, labels="baseline")
    assert "baseline" in scans.attrs["warnings"][0]
    converter = scans[scans["subject_id"] == adni.ptid(15)]
    assert converter["source"].tolist() == ["ADNIMERGE_17May DX_bl 'AD'"]


def test_the_research_group_is_used_only_where_asked_for(tmp_path: Path) -> None:
    expected = adni.write(tmp_path)
    with pytest.raises(UserError, match="The search table is needed"):
        listed_scans("adni", tmp_path, labels="group")
    adni.write_search_table(tmp_path, expected, tmp_path / "search.csv")
    scans = listed_scans("adni", tmp_path, labels="group")
    assert "research group" in scans.attrs["warnings"][0]
    reasons = set(scans["reason"])
    assert "diagnosis SMC, not among the classes" in reasons
    assert "no diagnosis" in reasons


def test_three_classes_and_conversion(tmp_path: Path) -> None:
    adni.write(tmp_path)
    three = listed_scans("adni", tmp_path, classes="CN,MCI,AD")
    assert set(three.loc[three["reason"] == "", "diagnosis"]) == {"CN", "MCI", "AD"}
    followed = listed_scans("adni", tmp_path, classes="sMCI,pMCI")
    mci = followed[followed["subject_id"] == adni.ptid(16)]
    assert mci["reason"].tolist() == ["MCI followed for less than 36 months"]


def test_dicom_leaves_are_folders(tmp_path: Path) -> None:
    adni.write(tmp_path)
    leaf = tmp_path / f"ADNI1/ADNI/{adni.ptid(2)}/{adni.RAW}/2009-01-01_08_20_30.0/I999"
    leaf.mkdir(parents=True)
    for number in range(3):
        (leaf / f"ADNI_{adni.ptid(2)}_MR_{adni.RAW}_br_raw_{number}_S1_I999.dcm").write_bytes(b"x")
    scans = listed_scans("adni", tmp_path)
    row = scans[scans["session_id"] == "2009-01-01"]
    assert row["path"].tolist() == [leaf.relative_to(tmp_path).as_posix()]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.rename(columns={"EXAMDATE": "EXAM_DAT"}), "did you mean"),
        (lambda t: t.drop(columns="EXAMDATE"), "has no column 'EXAMDATE'.*it has 'RID', 'PTID'"),
        (lambda t: t.drop(columns="AGE"), "has no column 'AGE'"),
        (
            lambda t: t.assign(PTID="001_S_9999"),
            "None of the 20 subjects .*'002_S_0295'.*'001_S_99",
        ),
        (lambda t: t.assign(DX="Unsure"), "'Unsure'; known are 'cn'"),
        (lambda t: t.assign(EXAMDATE="last spring"), "no dates: 'last spring'"),
        (lambda t: t.assign(AGE="old"), "no ages in years: 'old'"),
    ],
)
def test_a_table_that_cannot_serve_says_why(spoil, words: str, tmp_path: Path) -> None:
    adni.write(tmp_path)
    file = tmp_path / "ADNIMERGE_17May.csv"
    spoil(pd.read_csv(file, dtype=str, keep_default_na=False)).to_csv(file, index=False)
    with pytest.raises(UserError, match=words):
        listed_scans("adni", tmp_path)


def test_no_table_and_no_images_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no image of ADNI"):
        listed_scans("adni", tmp_path)
    adni.write(tmp_path)
    (tmp_path / "ADNIMERGE_17May.csv").unlink()
    with pytest.raises(UserError, match=r"ADNIMERGE or DXSUM is needed.*--table FILE"):
        listed_scans("adni", tmp_path)
