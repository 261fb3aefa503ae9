"""OASIS-1, OASIS-2 and OASIS-3 in their original layouts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench.data.adapters.reading import read_table
from bench.data.choices import NOT_CHOSEN
from bench.data.manifest import task_of
from registry.errors import UserError
from tests.data.trees import oasis1, oasis2, oasis3
from tests.data.trees.scans import assert_listed, listed_scans

TREES = {"oasis1": oasis1, "oasis2": oasis2, "oasis3": oasis3}


def used(scans: pd.DataFrame) -> pd.DataFrame:
    return scans[scans["reason"] == ""].set_index(["subject_id", "session_id"])


def rewrite(file: Path, *changes: tuple[str, str]) -> None:
    """Replace texts that occur in a table."""
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


@pytest.mark.parametrize("name", TREES)
def test_the_manifest_is_the_expected_one_row_by_row(name: str, tmp_path: Path) -> None:
    expected = TREES[name].write(tmp_path)
    scans = listed_scans(name, tmp_path)
    assert_listed(scans, expected)
    assert task_of(scans, "diagnosis").classes == ("CN", "AD")
    assert set(scans["space"]) <= {"", "unknown"}
    assert scans.attrs["columns"]


@pytest.mark.parametrize("name", TREES)
def test_a_folder_without_images_or_table_says_what_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no image of OASIS-"):
        listed_scans(name, tmp_path)
    TREES[name].write(tmp_path, n_subjects=4)
    for file in tmp_path.glob("*.csv"):
        file.unlink()
    with pytest.raises(UserError, match=r"--table FILE"):
        listed_scans(name, tmp_path)


@pytest.mark.parametrize(("name", "prefix"), [(name, f"OAS{name[-1]}") for name in TREES])
def test_tables_of_other_people_are_refused_with_both_ids(
    name: str, prefix: str, tmp_path: Path
) -> None:
    TREES[name].write(tmp_path, n_subjects=4)
    for file in tmp_path.glob("*.csv"):
        file.write_text(file.read_text().replace(prefix, "OASX"))
    with pytest.raises(UserError, match=rf"ids such as '{prefix}.*the table such as 'OASX"):
        listed_scans(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "table", "rating"),
    [
        ("oasis1", oasis1.TABLE, ",29,1,"),
        ("oasis2", oasis2.TABLE, ",27,1,"),
        ("oasis3", oasis3.CLINICAL, ",,1,"),
    ],
)
def test_a_rating_that_is_none_is_listed(
    name: str, table: str, rating: str, tmp_path: Path
) -> None:
    TREES[name].write(tmp_path, n_subjects=4)
    rewrite(tmp_path / table, (rating, rating.replace(",1,", ",mild,")))
    with pytest.raises(UserError, match=r"not a CDR \(0, 0.5, 1, 2, 3\): 'mild'"):
        listed_scans(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "table", "old", "new"),
    [
        ("oasis1", oasis1.TABLE, "OAS1_0002_MR1,", "OAS1_0001_MR1,"),
        ("oasis2", oasis2.TABLE, "OAS2_0002_MR1,", "OAS2_0001_MR1,"),
        ("oasis3", oasis3.PEOPLE, "OAS30002,", "OAS30001,"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(
    name: str, table: str, old: str, new: str, tmp_path: Path
) -> None:
    TREES[name].write(tmp_path, n_subjects=4)
    rewrite(tmp_path / table, (old, new))
    with pytest.raises(UserError, match=f"contradictory rows for '{new[:-1]}'"):
        listed_scans(name, tmp_path)


# --- OASIS-1 --------------------------------------------------------------------------------------


def test_a_rescan_is_the_same_person_with_the_label_of_the_first_session(tmp_path: Path) -> None:
    oasis1.write(tmp_path, discs=False)
    scans = used(listed_scans("oasis1", tmp_path))
    both = scans.loc[["OAS1_0001", "OAS1_0002"]]
    assert both["diagnosis"].tolist() == ["CN", "CN", "AD", "AD"]
    assert both["source"].tolist() == ["CDR 0", "CDR 0 of MR1", "CDR 1", "CDR 1 of MR1"]
    assert both["day"].fillna(-1).tolist() == [0, 40, 0, -1]
    assert not used(listed_scans("oasis1", tmp_path, visits="baseline")).index.duplicated().any()
    assert set(used(listed_scans("oasis1", tmp_path, visits="baseline")).index.levels[1]) == {"MR1"}


def test_young_adults_without_a_rating_are_no_controls(tmp_path: Path) -> None:
    oasis1.write(tmp_path)
    scans = listed_scans("oasis1", tmp_path)
    blank = scans[scans["source"] == "CDR blank"]
    assert blank["subject_id"].nunique() >= 2
    assert set(blank["diagnosis"]) == {""}
    assert not (blank["reason"] == "").any()
    young = used(listed_scans("oasis1", tmp_path, classes=""))
    assert (young["age"] == 25).any()


@pytest.mark.parametrize(
    ("image", "end"), [("SUBJ_111", "_sbj_111.img"), ("RAW", "_mpr-1_anon.img")]
)
def test_another_image_may_be_asked_for(image: str, end: str, tmp_path: Path) -> None:
    oasis1.write(tmp_path)
    scans = listed_scans("oasis1", tmp_path, image=image)
    assert used(scans)["path"].str.endswith(end).all()
    assert len(used(scans)) == len(used(listed_scans("oasis1", tmp_path)))
    repeats = scans.loc[scans["path"].str.contains("mpr-2"), "reason"]
    assert (NOT_CHOSEN in set(repeats)) == (image == "RAW")


def test_flattened_images_are_known_by_their_names(tmp_path: Path) -> None:
    oasis1.write(tmp_path / "discs", discs=False)
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (tmp_path / "discs").rglob("OAS1_*.*"):
        file.rename(flat / file.name)
    shutil.move(tmp_path / "discs" / oasis1.TABLE, tmp_path / "labels.csv")
    scans = listed_scans("oasis1", flat, table=str(tmp_path / "labels.csv"))
    assert set(used(scans)["path"].str.extract(r"MR\d(.*)")[0]) == {
        "_mpr_n4_anon_111_t88_masked_gfc.img"
    }
    (flat / "OAS1_0099_MR1.nii").touch()
    assert "OAS1_0099" not in set(
        listed_scans("oasis1", flat, table=str(tmp_path / "labels.csv"))["subject_id"]
    )


def test_a_registered_image_is_used_before_the_one_it_was_made_of(tmp_path: Path) -> None:
    oasis1.write(tmp_path, n_subjects=4)
    name = "OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc_space-MNI152NLin6Asym.nii.gz"
    (tmp_path / name).touch()
    first = used(listed_scans("oasis1", tmp_path)).loc[("OAS1_0001", "MR1")]
    assert (first["path"], first["space"]) == (name, "mni")


def test_images_of_other_names_are_not_taken_for_scans(tmp_path: Path) -> None:
    (tmp_path / "OAS1_0001_MR1").mkdir()
    (tmp_path / "OAS1_0001_MR1" / "brain.nii").touch()
    with pytest.raises(UserError, match=r"has the name of a scan.*OAS1_0001_MR1/brain\.nii"):
        listed_scans("oasis1", tmp_path)


def test_the_table_may_be_a_workbook(tmp_path: Path) -> None:
    expected = oasis1.write(tmp_path)
    file = tmp_path / oasis1.TABLE
    # In Excel, ages and ratings are numbers, and missing values do not change ages.
    table = read_table(file)
    table["CDR"] = pd.to_numeric(table["CDR"])
    table["Age"] = pd.to_numeric(table["Age"])
    table.to_excel(tmp_path / "oasis_cross-sectional.xlsx", index=False)
    file.unlink()
    scans = listed_scans("oasis1", tmp_path)
    assert scans["diagnosis"].tolist() == expected["diagnosis"].tolist()
    assert used(scans)["source"].str.fullmatch(r"CDR [0-2](\.\d)?( of MR1)?").all()


def test_a_table_of_oasis1_without_a_rating_says_which_column(tmp_path: Path) -> None:
    oasis1.write(tmp_path, n_subjects=4)
    rewrite(tmp_path / oasis1.TABLE, (",CDR,", ",CDR_total,"))
    with pytest.raises(UserError, match=r"no column 'CDR'.*are 'ID', 'M/F'"):
        listed_scans("oasis1", tmp_path)


# --- OASIS-2 --------------------------------------------------------------------------------------


def test_diagnoses_of_oasis2_are_those_of_the_visit_unless_asked_for(tmp_path: Path) -> None:
    oasis2.write(tmp_path)
    converted = "OAS2_0002"
    at_visit = listed_scans("oasis2", tmp_path)
    assert used(at_visit).loc[converted, "diagnosis"].tolist() == ["CN", "AD"]
    assert at_visit.attrs["warnings"] == []
    at_first = listed_scans("oasis2", tmp_path, labels="baseline")
    assert used(at_first).loc[converted, "diagnosis"].tolist() == ["CN", "CN"]
    assert used(at_first).loc[converted, "source"].tolist() == ["first visit, CDR 0"] * 2
    assert "baseline" in at_first.attrs["warnings"][0]


def test_the_group_converted_needs_a_choice(tmp_path: Path) -> None:
    oasis2.write(tmp_path)
    scans = listed_scans("oasis2", tmp_path, labels="group")
    converted = scans[scans["source"] == "Group 'Converted'"]
    assert set(converted["reason"]) == {
        "diagnosis Converted, not among the classes",
        NOT_CHOSEN,
    }
    assert "Group" in scans.attrs["warnings"][0]
    chosen = used(listed_scans("oasis2", tmp_path, labels="group", classes="CN,AD+Converted"))
    assert chosen.loc["OAS2_0002", "diagnosis"].tolist() == ["AD+Converted"] * 2


def test_the_baseline_is_the_first_visit_whatever_the_order_of_rows(tmp_path: Path) -> None:
    oasis2.write(tmp_path)
    header, *lines = (tmp_path / oasis2.TABLE).read_text().splitlines()
    (tmp_path / oasis2.TABLE).write_text("\n".join([header, *reversed(lines)]))
    scans = used(listed_scans("oasis2", tmp_path, labels="baseline"))
    assert scans.loc["OAS2_0002", "diagnosis"].tolist() == ["CN", "CN"]


def test_visits_of_oasis2_are_exams_in_days(tmp_path: Path) -> None:
    oasis2.write(tmp_path)
    scans = listed_scans("oasis2", tmp_path)
    exams = scans.attrs["exams"].set_index("subject_id").loc["OAS2_0002"]
    assert exams["day"].tolist() == [0, 502]
    assert exams["diagnosis"].tolist() == ["CN", "AD"]
    last = used(listed_scans("oasis2", tmp_path, visits="last"))
    assert last.index.get_level_values(0).is_unique
    assert last.loc["OAS2_0002"].index.tolist() == ["MR2"]


def test_pairs_and_single_files_are_found(tmp_path: Path) -> None:
    expected = oasis2.write(tmp_path, suffix=".nii")
    scans = listed_scans("oasis2", tmp_path)
    assert_listed(scans, expected)
    assert scans["path"].str.endswith(".nii").all()


# --- OASIS-3 --------------------------------------------------------------------------------------


def test_tables_as_xnat_exported_them_say_the_same(tmp_path: Path) -> None:
    expected = oasis3.write(tmp_path, old=True)
    assert_listed(listed_scans("oasis3", tmp_path), expected)


def test_the_window_decides_which_exam_labels_a_scan(tmp_path: Path) -> None:
    oasis3.write(tmp_path)
    narrow = used(listed_scans("oasis3", tmp_path, within_days=40.0))
    assert set(narrow.index.get_level_values(1)) == {"d0129"}
    scans = listed_scans("oasis3", tmp_path, within_days=40.0)
    late = scans.loc[(scans["session_id"] == "d0757") & (scans["source"] != ""), "source"]
    assert set(late) == {"no exam within 40 days"}


def test_baseline_labels_of_oasis3_are_those_of_the_first_exam(tmp_path: Path) -> None:
    oasis3.write(tmp_path)
    scans = listed_scans("oasis3", tmp_path, labels="baseline")
    course = used(scans).loc["OAS30001"]
    assert course["source"].tolist() == ["first exam, CDR 1 (AD Dementia)"] * 2
    assert "baseline" in " ".join(scans.attrs["warnings"])
    with pytest.raises(UserError, match="no research group"):
        listed_scans("oasis3", tmp_path, labels="group")


def test_dementia_of_another_cause_is_told(tmp_path: Path) -> None:
    oasis3.write(tmp_path)
    warnings = " ".join(listed_scans("oasis3", tmp_path).attrs["warnings"])
    assert "the CDR indicates AD, but dx1 has another diagnosis: 'DLBD, primary'" in warnings


def test_a_rating_of_nothing_does_not_hide_one_on_another_day(tmp_path: Path) -> None:
    oasis3.write(tmp_path)
    # There is an exam without a rating on the day of this scan.
    assert (tmp_path / oasis3.CLINICAL).read_text().endswith("d0129,0129,,,,\n")
    first = used(listed_scans("oasis3", tmp_path)).loc[("OAS30001", "d0129")]
    assert first["source"] == "CDR 1 (AD Dementia), 30 days before"


def test_the_age_at_entry_may_come_from_the_visits(tmp_path: Path) -> None:
    expected = oasis3.write(tmp_path)
    (tmp_path / oasis3.PEOPLE).unlink()
    with pytest.raises(UserError, match="AgeatEntry"):
        listed_scans("oasis3", tmp_path)
    lines = (tmp_path / oasis3.CLINICAL).read_text().splitlines()
    people = expected.drop_duplicates("subject_id").set_index("subject_id")["age"]
    for i, line in enumerate(lines[1:-1], start=1):
        who, name, day, _, rest = line.split(",", 4)
        entry = people[who] - 129 / 365.25
        lines[i] = f"{who},{name},{day},{entry + int(day) / 365.25:.6f},{rest}"
    (tmp_path / oasis3.CLINICAL).write_text("\n".join(lines))
    scans = listed_scans("oasis3", tmp_path)
    assert scans["age"].tolist() == pytest.approx(expected["age"].tolist(), abs=1e-5, nan_ok=True)
    assert set(scans["sex"]) == {""}


def test_clinical_visits_without_days_are_refused(tmp_path: Path) -> None:
    oasis3.write(tmp_path, n_subjects=4)
    rewrite(
        tmp_path / oasis3.CLINICAL,
        ("OASIS_session_label", "label"),
        ("days_to_visit", "when"),
    )
    with pytest.raises(UserError, match=r"needs the days of its visits.*'label', 'when'"):
        listed_scans("oasis3", tmp_path)


def test_entities_other_than_the_run_come_last(tmp_path: Path) -> None:
    oasis3.write(tmp_path, n_subjects=4)
    folder = tmp_path / "OAS30001_MR_d0129" / "anat1"
    for name in (
        "sub-OAS30001_sess-d0129_acq-a_run-01_T1w.nii.gz",
        "sub-OAS30001_ses-d0129_T2w.nii.gz",
    ):
        (folder / name).touch()
    scans = listed_scans("oasis3", tmp_path)
    mine = scans[(scans["subject_id"] == "OAS30001") & (scans["session_id"] == "d0129")]
    assert mine["reason"].tolist().count("") == 1
    assert mine.loc[mine["reason"] == "", "path"].item().endswith("ses-d0129_run-01_T1w.nii.gz")
    assert len(mine) == 3
