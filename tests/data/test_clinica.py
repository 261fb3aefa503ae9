"""BIDS and CAPS directories written by Clinica."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.data.manifest import task_of
from registry.errors import UserError
from tests.data.trees import clinica
from tests.data.trees.scans import assert_listed, listed_scans


def used(scans: pd.DataFrame) -> pd.DataFrame:
    return scans[scans["reason"] == ""].set_index(["subject_id", "session_id"])


def of(i: int, scans: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the cohort's i-th subject."""
    return scans[scans["subject_id"] == f"{2 + i % 2:03d}_S_{290 + i:04d}"]


# --- BIDS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
def test_the_manifest_of_bids_is_the_expected_one(old: bool, tmp_path: Path) -> None:
    expected = clinica.write_bids(tmp_path, old=old)
    scans = listed_scans("clinica", tmp_path)
    assert_listed(scans, expected)
    assert set(scans["space"]) == {"unknown"}
    assert scans.attrs["warnings"] == []
    assert task_of(scans, "diagnosis").classes == ("CN", "AD")


def test_months_of_two_and_three_digits_are_one_visit(tmp_path: Path) -> None:
    expected = clinica.write_bids(tmp_path)
    for file in tmp_path.glob("sub-*/*_sessions.tsv"):
        file.write_text(file.read_text().replace("ses-M0", "ses-M"))
    assert_listed(listed_scans("clinica", tmp_path), expected)


def test_baseline_diagnoses_are_told(tmp_path: Path) -> None:
    clinica.write_bids(tmp_path)
    scans = listed_scans("clinica", tmp_path, labels="baseline", classes="CN,MCI,AD")
    converter = of(5, scans)
    assert converter["diagnosis"].tolist() == ["MCI", "MCI"]
    assert set(converter["source"]) == {"participants.tsv diagnosis_sc 'LMCI'"}
    assert scans.attrs["warnings"] == [
        "Labels are those at the subject's baseline, not at the scan."
    ]
    at_visit = of(5, listed_scans("clinica", tmp_path, classes="CN,MCI,AD"))
    assert at_visit["diagnosis"].tolist() == ["MCI", "AD"]


def test_the_age_at_baseline_is_given_to_the_first_visit_only(tmp_path: Path) -> None:
    clinica.write_bids(tmp_path)
    for file in tmp_path.glob("sub-*/*_sessions.tsv"):
        file.unlink()
    scans = listed_scans("clinica", tmp_path, labels="baseline")
    known = scans[scans["reason"] != "subject not in the table"]
    assert set(known.loc[known["age"].notna(), "session_id"]) == {"M000"}
    assert set(known.loc[known["age"].isna(), "session_id"]) == {"M012"}


def test_without_sessions_the_diagnosis_at_a_visit_is_not_known(tmp_path: Path) -> None:
    clinica.write_bids(tmp_path)
    for file in tmp_path.glob("sub-*/*_sessions.tsv"):
        file.unlink()
    scans = listed_scans("clinica", tmp_path)
    assert used(scans).empty
    assert "labels=baseline" in scans.attrs["warnings"][0]


def test_exams_after_the_last_scan_decide_between_stable_and_progressive(tmp_path: Path) -> None:
    clinica.write_bids(tmp_path)
    scans = listed_scans("clinica", tmp_path, classes="sMCI,pMCI", horizon=24.0)
    assert of(5, scans)["diagnosis"].tolist() == ["pMCI", ""]
    exams = scans.attrs["exams"]
    assert exams["day"].max() == pytest.approx(2 * 365.25)
    assert exams.groupby("subject_id").size().max() == 3


def test_clinica_knows_no_group(tmp_path: Path) -> None:
    clinica.write_bids(tmp_path, n_subjects=4)
    with pytest.raises(UserError, match="no research group"):
        listed_scans("clinica", tmp_path, labels="group")


@pytest.mark.parametrize(
    ("written", "own"), [("AIBL12", "12"), ("OASIS10001", "OAS1_0001"), ("OAS30001", "OAS30001")]
)
def test_people_of_other_cohorts_have_their_own_ids(written: str, own: str, tmp_path: Path) -> None:
    folder = tmp_path / f"sub-{written}" / "ses-M000" / "anat"
    folder.mkdir(parents=True)
    (folder / f"sub-{written}_ses-M000_T1w.nii.gz").touch()
    (tmp_path / "participants.tsv").write_text(
        f"participant_id\tsex\tdiagnosis_bl\nsub-{written}\tF\tCN\n"
    )
    scans = listed_scans("clinica", tmp_path, labels="baseline")
    assert scans["subject_id"].tolist() == [own]
    assert scans["source"].tolist() == ["participants.tsv diagnosis_bl 'CN'"]


@pytest.mark.parametrize(
    ("old", "new", "labels", "sentence"),
    [
        ("diagnosis_sc", "dx", "baseline", r"no column 'diagnosis_sc'.*are 'participant_id'"),
        ("site\n", "site\nADNI003S0291\t\tM\t50\tAD\t1\n", "visit", "row for '003_S_0291'"),
        ("sub-ADNI", "sub-X", "visit", "ids such as '002_S_0292', '002_S_0294', the table such as"),
        ("participant_id", "id", "visit", r"no table of participants.*--table FILE"),
        ("\tF\t", "\t2\t", "visit", "do not mean F or M: '2'"),
    ],
)
def test_participants_that_cannot_serve_are_refused_in_a_sentence(
    old: str, new: str, labels: str, sentence: str, tmp_path: Path
) -> None:
    clinica.write_bids(tmp_path, n_subjects=4)
    file = tmp_path / "participants.tsv"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=sentence):
        listed_scans("clinica", tmp_path, labels=labels)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("MMS\n", "MMS\nses-M00\t61\tAD\t\n", "more than one row for '003_S_0291'"),
        ("session_id", "visit", "no column 'session_id'; its columns are 'visit', 'age'"),
        ("CN", "d\xe9mence", "unknown diagnoses: 'démence'"),
        ("n/a", "old", "not ages in years: 'old'"),
    ],
)
def test_visits_that_cannot_serve_are_refused_in_a_sentence(
    old: str, new: str, sentence: str, tmp_path: Path
) -> None:
    clinica.write_bids(tmp_path, n_subjects=4)
    (file,) = tmp_path.glob("sub-ADNI003S0291/*_sessions.tsv")
    text = file.read_text().replace("61.5", "n/a").replace("AD", "CN")
    file.write_bytes(text.replace(old, new).encode("latin-1"))
    with pytest.raises(UserError, match=sentence):
        listed_scans("clinica", tmp_path)


def test_bids_without_images_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"matches sub-\*/ses-\*/anat/\*_T1w"):
        listed_scans("clinica", tmp_path)


# --- CAPS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
def test_the_manifest_of_caps_is_the_expected_one(old: bool, tmp_path: Path) -> None:
    expected = clinica.write_caps(tmp_path / "caps", old=old)
    clinica.write_tables(tmp_path / "bids", old=old)
    table = str(tmp_path / "bids" / "participants.tsv")
    scans = listed_scans("caps", tmp_path / "caps", table=table)
    assert_listed(scans, expected)
    assert set(scans["space"]) == {"mni"}
    (warning,) = scans.attrs["warnings"]
    assert warning.startswith("24 visits lack the image requested with image=full")
    assert task_of(scans, "diagnosis").classes == ("CN", "AD")


def test_the_crop_may_be_asked_for(tmp_path: Path) -> None:
    clinica.write_caps(tmp_path)
    clinica.write_tables(tmp_path / "bids")
    table = str(tmp_path / "bids" / "participants.tsv")
    scans = listed_scans("caps", tmp_path, table=table, image="crop")
    assert used(scans)["path"].str.contains("desc-Crop").all()
    assert scans.attrs["warnings"] == []


def test_one_table_of_all_visits_will_do(tmp_path: Path) -> None:
    expected = clinica.write_caps(tmp_path)
    # A list of visits without labels is not a table of labels.
    (tmp_path / "a_list.tsv").write_text("participant_id\tsession_id\nsub-ADNI003S0291\tses-M000\n")
    (tmp_path / "merged.tsv").write_text(clinica.merged())
    scans = listed_scans("caps", tmp_path)
    expected["source"] = expected["source"].str.replace("sessions.tsv", "merged.tsv")
    assert_listed(scans, expected)


def test_caps_without_images_or_tables_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--root must be the directory that contains `subjects`"):
        listed_scans("caps", tmp_path)
    clinica.write_caps(tmp_path, n_subjects=4)
    with pytest.raises(UserError, match=r"no table of participants.*--table FILE"):
        listed_scans("caps", tmp_path)
