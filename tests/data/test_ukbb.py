"""UK Biobank in its original layouts, including special cases."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from bench.data import formats
from bench.data.adapters.wide import read_columns
from bench.data.formats import ScanError
from registry.errors import UserError
from tests.data.trees import ukbb
from tests.data.trees.scans import assert_listed, listed_scans


@pytest.mark.parametrize("style", ukbb.STYLES)
@pytest.mark.parametrize("suffix", ["csv", "tab", "parquet"])
def test_the_manifest_is_the_expected_one_row_by_row(
    style: str, suffix: str, tmp_path: Path
) -> None:
    expected = ukbb.write(tmp_path, style=style, suffix=suffix)
    scans = listed_scans("ukbb", tmp_path)
    assert_listed(scans, expected)
    assert set(scans["space"]) == {"mni"}
    assert "non-linearly" in scans.attrs["warnings"][0]


def test_every_form_on_disk_can_be_read(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    used = listed_scans("ukbb", tmp_path).query("reason == ''")
    zipped = used["path"].str.contains(".zip!/", regex=False)
    assert 0 < zipped.sum() < len(used)
    for path in used["path"]:
        assert formats.read(tmp_path / path).voxels.shape == (24, 28, 24)


def test_another_image_is_native_and_says_what_is_missing(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    scans = listed_scans("ukbb", tmp_path, image="T1_brain")
    assert set(scans["space"]) == {""}
    assert scans["path"].str.contains("T1_brain.nii").sum() > 15
    with pytest.raises(
        UserError, match=r"25 scans .* file T1_unbiased; .* T1_brain \(23\).*image="
    ):
        listed_scans("ukbb", tmp_path, image="T1_unbiased")


def test_the_first_imaging_visit_alone(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    scans = listed_scans("ukbb", tmp_path, visits="baseline").set_index(
        ["subject_id", "session_id"]
    )
    assert scans.loc[(ukbb.eid(0), "2"), "reason"] == ""
    assert scans.loc[(ukbb.eid(0), "3"), "reason"] == "not the subject's first visit"


def test_withdrawals_are_honoured(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    (tmp_path / "w12345.csv").write_text(f"{ukbb.eid(1)}\n{ukbb.eid(4)}\n")
    scans = listed_scans("ukbb", tmp_path, withdrawals=str(tmp_path / "w12345.csv"))
    gone = scans.loc[scans["reason"] == "withdrawn", "subject_id"]
    assert gone.tolist() == [ukbb.eid(1), ukbb.eid(4)]


def test_several_tables_are_joined(tmp_path: Path) -> None:
    expected = ukbb.write(tmp_path)
    file = tmp_path / "ukb.csv"
    sexes = read_columns(file, lambda name: name in ("eid", "31-0.0"))
    others = read_columns(file, lambda name: name != "31-0.0")
    sexes.to_csv(tmp_path / "more.csv", index=False)
    others.to_csv(file, index=False)
    assert_listed(listed_scans("ukbb", tmp_path), expected)


@pytest.mark.parametrize("word", ["2", "woman", "9"])
def test_an_unknown_sex_is_a_sentence(word: str, tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    file = tmp_path / "ukb.csv"
    file.write_text(file.read_text().replace("\n1000010,0,", f"\n1000010,{word},"))
    with pytest.raises(UserError, match=f"do not mean F or M: '{word}'"):
        listed_scans("ukbb", tmp_path)


def test_contradictory_rows_of_a_participant_are_refused(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    with open(tmp_path / "ukb.csv", "a") as table:
        table.write("1000010,1,40,99,99,11025,11027,\n")
    with pytest.raises(UserError, match="contradictory rows for '1000010'"):
        listed_scans("ukbb", tmp_path)


def test_ages_at_another_instance_than_the_scans_are_said_to_be_so(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    file = tmp_path / "ukb.csv"
    eids = read_columns(file, lambda name: name in ("eid", "21003-0.0"))
    eids.to_csv(file, index=False)
    scans = listed_scans("ukbb", tmp_path)
    assert scans["age"].isna().all()
    assert "age (field 21003) at instance 0, but not at instance 2, 3" in scans.attrs["warnings"][0]


def test_a_table_without_ages_is_said_to_have_none(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    file = tmp_path / "ukb.csv"
    read_columns(file, lambda name: name in ("eid", "31-0.0")).to_csv(file, index=False)
    scans = listed_scans("ukbb", tmp_path)
    assert "no field 21003 (age at the visit)" in scans.attrs["warnings"][0]
    assert set(scans.loc[scans["reason"] == "", "sex"]) == {"F", "M"}


def test_a_table_without_fields_is_shown_by_its_columns(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    (tmp_path / "ukb.csv").write_text("eid,gender,years\n1000010,F,60\n")
    with pytest.raises(UserError, match=r"ukb\.csv are 'eid', 'gender', 'years'"):
        listed_scans("ukbb", tmp_path)


def test_no_table_says_which_fields_are_needed(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    (tmp_path / "ukb.csv").unlink()
    with pytest.raises(UserError, match=r"21003-2\.0, f\.21003\.2\.0, 21003_2_0 or p21003_i2"):
        listed_scans("ukbb", tmp_path)


def test_no_overlap_shows_both_ids(tmp_path: Path) -> None:
    ukbb.write(tmp_path)
    file = tmp_path / "ukb.csv"
    file.write_text(file.read_text().replace("\n10000", "\n90000"))
    with pytest.raises(UserError, match=r"None of the 24 subjects .*'1000010'.*'9000010'"):
        listed_scans("ukbb", tmp_path)


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no <eid>_20252_2_0\.zip"):
        listed_scans("ukbb", tmp_path)


@pytest.mark.parametrize("name", ["../T1/T1.nii.gz", "/etc/T1.nii.gz", "a\\..\\..\\T1.nii.gz"])
def test_an_archive_that_leaves_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    ukbb.write(tmp_path, n_subjects=20)
    file = next(tmp_path.glob("*_20252_2_0.zip"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(ScanError, match="lead out of its folder"):
        formats.read(Path(f"{file}!/T1/T1_brain_to_MNI.nii.gz"))


def test_a_table_of_many_columns_gives_those_that_are_wanted(tmp_path: Path) -> None:
    names = ["eid", *(f"{field}-0.0" for field in range(3000))]
    lines = [",".join(names)]
    lines += [",".join([f"00{i}", *(f'"a ""b"", {i}\n"' for _ in range(3000))]) for i in range(20)]
    (tmp_path / "wide.csv").write_text("\n".join(lines))
    table = read_columns(tmp_path / "wide.csv", lambda name: name in ("eid", "31-0.0"))
    assert table["eid"].tolist() == [f"00{i}" for i in range(20)]
    assert table["31-0.0"].tolist() == [f'a "b", {i}' for i in range(20)]
