"""ADNI in its original layout, including special cases."""

from __future__ import annotations

import re
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


def flatten(tree: Path, flat: Path) -> None:
    """Copy all images of a tree, and its ADNIMERGE, into one new folder."""
    flat.mkdir()
    for file in tree.rglob("*.nii"):
        shutil.copy(file, flat / file.name)
    shutil.copy(tree / "ADNIMERGE_17May.csv", flat)


def test_a_flat_folder_takes_dates_from_the_search_table(tmp_path: Path) -> None:
    tree, flat = tmp_path / "tree", tmp_path / "flat"
    expected = adni.write(tree)
    flatten(tree, flat)
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
    flatten(tree, flat)
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


def dxsum(root: Path, column: str, meaning: dict[str, str]) -> None:
    """Replace ADNIMERGE by a DXSUM as LONI exports it now."""
    file = root / "ADNIMERGE_17May.csv"
    merge = pd.read_csv(file, dtype=str, keep_default_na=False)
    words = merge["DX"].replace({"NL": "CN", "Dementia": "AD", "MCI to Dementia": "AD"})
    table = merge[["PTID", "RID", "VISCODE", "EXAMDATE"]].assign(PHASE="ADNI3")
    table[column] = words.map(meaning).fillna("")
    table.to_csv(root / "DXSUM_01May2025.csv", index=False)
    file.unlink()


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("DIAGNOSIS", {"CN": "CN", "MCI": "MCI", "AD": "Dementia"}),
        ("DIAGNOSIS", {"CN": "1.0", "MCI": "2.0", "AD": "3.0"}),
        ("DXCHANGE", {"CN": "Stable: NL", "MCI": "Reversion: Dementia to MCI", "AD": "MCI to AD"}),
    ],
)
def test_a_dxsum_of_today_labels_alone_by_words_or_codes(
    column: str, words: dict, tmp_path: Path
) -> None:
    expected = adni.write(tmp_path)
    dxsum(tmp_path, column, words)
    scans = listed_scans("adni", tmp_path, classes="CN,MCI,AD").set_index("path")
    known = expected[expected["diagnosis"] != ""].set_index("path")["diagnosis"]
    assert (scans.loc[known.index, "diagnosis"] == known).all()


@pytest.mark.parametrize("word", ["Depression", "7", "AD?"])
def test_an_unknown_diagnosis_of_dxsum_stops(word: str, tmp_path: Path) -> None:
    adni.write(tmp_path)
    dxsum(tmp_path, "DIAGNOSIS", {"CN": "CN", "MCI": "MCI", "AD": word})
    with pytest.raises(UserError, match=rf"'DIAGNOSIS': '{re.escape(word)}'"):
        listed_scans("adni", tmp_path)


def test_a_table_is_known_by_what_it_needs_not_by_what_others_share(tmp_path: Path) -> None:
    expected = adni.write(tmp_path)
    header = "PHASE,PTID,RID,VISCODE,EXAMDATE"
    (tmp_path / "ADAS.csv").write_text(
        f"{header},TOTSCORE\nADNI3,{adni.ptid(0)},1,bl,2012-03-01,5\n"
    )
    (tmp_path / "A_DXSUM.csv").write_text(f"{header},DIAGNOSIS\nADNI3,{adni.ptid(0)},1,bl,,\n")
    assert_listed(listed_scans("adni", tmp_path), expected)


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.0", "%m/%d/%Y %H:%M"])
def test_a_date_may_have_a_time(form: str, tmp_path: Path) -> None:
    expected = adni.write(tmp_path)
    file = tmp_path / "ADNIMERGE_17May.csv"
    merge = pd.read_csv(file, dtype=str, keep_default_na=False)
    for name in ("EXAMDATE", "EXAMDATE_bl"):
        merge[name] = pd.to_datetime(merge[name]).dt.strftime(form)
    merge.to_csv(file, index=False)
    assert_listed(listed_scans("adni", tmp_path), expected)


@pytest.mark.parametrize("date", ["9999-12-31", "0207-01-10", "1/10/0207", "2012-13-45"])
def test_what_cannot_be_a_date_is_a_sentence(date: str, tmp_path: Path) -> None:
    adni.write(tmp_path)
    file = tmp_path / "ADNIMERGE_17May.csv"
    merge = pd.read_csv(file, dtype=str, keep_default_na=False)
    merge.loc[0, "EXAMDATE"] = date
    merge.to_csv(file, index=False)
    with pytest.raises(UserError, match=f"not dates: '{date}'"):
        listed_scans("adni", tmp_path)


def test_a_folder_of_an_impossible_day_has_no_date(tmp_path: Path) -> None:
    adni.write(tmp_path)
    folder = next(path for path in tmp_path.rglob("20*-*-*") if adni.ptid(2) in str(path))
    folder.rename(folder.with_name("9999-12-31_08_20_30.0"))
    scans = listed_scans("adni", tmp_path)
    moved = scans[scans["path"].str.contains("9999-12-31")]
    assert set(moved["reason"]) <= {"scan date unknown", ""}
    assert not scans["session_id"].str.startswith("9999").any()


def test_the_export_of_an_advanced_search_dates_a_flat_folder(tmp_path: Path) -> None:
    tree, flat = tmp_path / "tree", tmp_path / "flat"
    expected = adni.write(tree)
    flatten(tree, flat)
    adni.write_search_table(tree, expected, tmp_path / "search.csv")
    search = pd.read_csv(tmp_path / "search.csv", dtype=str, keep_default_na=False)
    names = {
        "Image Data ID": "Image ID",
        "Subject": "Subject ID",
        "Group": "Research Group",
        "Acq Date": "Study Date",
    }
    search = search.rename(columns=names).assign(Project="ADNI", Modality="MRI")
    # Each download has its own list.
    search.iloc[::2].to_csv(flat / "idaSearch_3_01_2024.csv", index=False)
    search.iloc[1::2].to_csv(flat / "idaSearch_4_01_2024.csv", index=False)
    used = expected[expected["reason"] == ""].assign(path=expected["path"].str.split("/").str[-1])
    found = listed_scans("adni", flat).query("reason == ''")
    columns = ["path", "session_id", "diagnosis"]
    assert sorted(map(tuple, found[columns].to_numpy())) == sorted(
        map(tuple, used[columns].to_numpy())
    )
    assert set(listed_scans("adni", flat, labels="group")["diagnosis"]) >= {"CN", "AD"}


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
        (lambda t: t.drop(columns="EXAMDATE"), "has no column 'EXAMDATE'.*are 'RID', 'PTID'"),
        (lambda t: t.drop(columns="AGE"), "has no column 'AGE'"),
        (
            lambda t: t.assign(PTID="001_S_9999"),
            "None of the 20 subjects .*'002_S_0295'.*'001_S_99",
        ),
        (lambda t: t.assign(DX="Unsure"), "'Unsure'; replace them in the table by one of 'cn'"),
        (lambda t: t.assign(EXAMDATE="last spring"), "not dates: 'last spring'"),
        (lambda t: t.assign(AGE="old"), "not ages in years: 'old'"),
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
