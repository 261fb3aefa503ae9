from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.data.adapters import bids, table
from bench.data.adapters.reading import parse_ages, read_table, restore_zeros, space_of
from bench.data.choices import NOT_CHOSEN, choose
from bench.data.manifest import tidy
from registry.errors import UserError

DEFAULTS = {"withdrawals": "", "visits": "all", "classes": "", "horizon": 36.0}


def touch(root: Path, *places: str) -> None:
    """Create empty files, because adapters only use names."""
    for place in places:
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def participants(root: Path, text: str) -> None:
    root.mkdir(exist_ok=True)
    (root / "participants.tsv").write_text(text.replace(" ", "\t"), encoding="utf-8")


def used(scans: pd.DataFrame) -> pd.DataFrame:
    return scans[scans["reason"] == ""].set_index("path")


# --- BIDS -----------------------------------------------------------------------------------------


def test_ids_keep_their_zeros_and_match_with_or_without_prefix(tmp_path: Path) -> None:
    touch(tmp_path, "sub-007/anat/sub-007_T1w.nii.gz", "sub-08/anat/sub-08_T1w.nii")
    participants(tmp_path, "participant_id age sex\n007 61.5 F\nsub-08 70 male\n")
    scans = bids.manifest(tmp_path, {})
    assert scans["subject_id"].tolist() == ["007", "08"]
    assert scans["age"].tolist() == [61.5, 70]
    assert scans["sex"].tolist() == ["F", "M"]
    assert scans["session_id"].tolist() == ["", ""]


def test_derivatives_and_other_images_are_not_scans(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-1/anat/sub-1_T2w.nii.gz",
        "sub-1/anat/sub-1_T1w.json",
        "sub-1/func/sub-1_T1w.nii.gz",
        "derivatives/x/sub-1/anat/sub-1_T1w.nii.gz",
    )
    participants(tmp_path, "participant_id age\n1 60\n")
    assert bids.manifest(tmp_path, {})["path"].tolist() == ["sub-1/anat/sub-1_T1w.nii.gz"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["T1w.nii.gz", "run-1_T1w.nii.gz"], "T1w.nii.gz"),
        (["run-2_T1w.nii.gz", "run-1_T1w.nii.gz"], "run-1_T1w.nii.gz"),
        (["acq-x_space-MNI152Lin_T1w.nii.gz", "T1w.nii.gz"], "acq-x_space-MNI152Lin_T1w.nii.gz"),
        (
            ["rec-n_space-MNI152Lin_T1w.nii", "space-MNI152Lin_T1w.nii"],
            "space-MNI152Lin_T1w.nii",
        ),
        (["acq-b_T1w.nii", "rec-a_T1w.nii"], "acq-b_T1w.nii"),
    ],
)
def test_one_image_of_a_visit_is_used_and_the_others_are_listed(
    names: list[str], chosen: str, tmp_path: Path
) -> None:
    touch(tmp_path, *(f"sub-1/ses-a/anat/sub-1_ses-a_{name}" for name in names))
    participants(tmp_path, "participant_id age\nsub-1 60\n")
    scans = choose(tidy(bids.manifest(tmp_path, {})), DEFAULTS)
    assert used(scans).index.tolist() == [f"sub-1/ses-a/anat/sub-1_ses-a_{chosen}"]
    assert set(scans["reason"]) == {"", NOT_CHOSEN}
    assert len(scans) == len(names)


def test_the_age_may_be_in_either_table_and_the_visit_wins(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(
            f"sub-{s}/ses-{v}/anat/sub-{s}_ses-{v}_T1w.nii.gz"
            for s in (1, 2)
            for v in ("M0", "M12")
        ),
    )
    participants(tmp_path, "participant_id age diagnosis sex\nsub-1 60 CN F\nsub-2 89+ AD M\n")
    (tmp_path / "sub-1/sub-1_sessions.tsv").write_text(
        "session_id\tage\tdiagnosis\tsex\nses-M0\t60,5\tCN\tn/a\nM12\t61,5\tn/a\t\n"
    )
    scans = bids.manifest(tmp_path, {}).set_index(["subject_id", "session_id"])
    assert scans["age"].tolist() == [60.5, 61.5, 89, 89]
    # Missing labels of a visit are not taken from other visits, except the sex.
    assert scans["diagnosis"].tolist() == ["CN", "", "AD", "AD"]
    assert scans["sex"].tolist() == ["F", "F", "M", "M"]


def test_participants_may_have_one_row_a_visit(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sub-1/ses-{v}/anat/sub-1_ses-{v}_T1w.nii.gz" for v in (1, 2)))
    participants(tmp_path, "participant_id session_id age\nsub-1 ses-1 60\nsub-1 2 62\n")
    assert bids.manifest(tmp_path, {})["age"].tolist() == [60, 62]


def test_derivatives_take_the_participants_of_the_raw_data_set(tmp_path: Path) -> None:
    root = tmp_path / "raw" / "derivatives" / "fmriprep"
    touch(root, *(f"sub-1/ses-{v}/anat/sub-1_ses-{v}_desc-preproc_T1w.nii" for v in "ab"))
    with pytest.raises(UserError, match=r"copy it there, name that of the raw .* --table FILE"):
        bids.manifest(root, {})
    participants(tmp_path / "raw", "participant_id age sex\nsub-1 60 F\n")
    (tmp_path / "raw/sub-1").mkdir()
    (tmp_path / "raw/sub-1/sub-1_sessions.tsv").write_text("session_id\tage\nses-b\t62\n")
    scans = bids.manifest(root, {"table": str(tmp_path / "raw/participants.tsv")})
    assert scans["age"].tolist() == [60, 62]
    with pytest.raises(UserError, match=r"none\.tsv does not exist"):
        bids.manifest(root, {"table": "none.tsv"})


def test_ids_that_excel_took_for_numbers_are_those_of_the_folders(tmp_path: Path) -> None:
    touch(tmp_path, "sub-007/anat/sub-007_T1w.nii", "sub-12/anat/sub-12_T1w.nii")
    table = tmp_path / "people.xlsx"
    pd.DataFrame({"participant_id": [7, 12], "age": [60, 61]}).to_excel(table, index=False)
    scans = bids.manifest(tmp_path, {"table": str(table)})
    assert scans["age"].tolist() == [60, 61]
    assert scans.attrs["warnings"] == [
        "1 ids of people.xlsx lack the leading zeros of the folder names; "
        "for example, '7' is read as '007'."
    ]


@pytest.mark.parametrize(
    ("ids", "known", "found"),
    [
        (["7", "12"], ["007", "12"], ["007", "12"]),
        (["7", "07"], ["007"], ["7", "07"]),
        (["7"], ["007", "07"], ["7"]),
        (["7", "7"], ["07"], ["07", "07"]),
        (["7", "007"], ["007"], ["7", "007"]),
        (["A7"], ["A07"], ["A7"]),
    ],
)
def test_zeros_are_restored_only_where_one_id_can_be_meant(ids, known, found) -> None:
    assert restore_zeros(pd.Series(ids), known).tolist() == found


def test_scans_of_people_who_are_not_listed_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-2/anat/sub-2_T1w.nii")
    participants(tmp_path, "participant_id age\nsub-1 60\nsub-9 50\n")
    assert bids.manifest(tmp_path, {})["reason"].tolist() == ["", bids.NOT_LISTED]


def test_columns_may_be_called_otherwise(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii")
    participants(tmp_path, "participant_id group Age\nsub-1 AD 60\n")
    scans = bids.manifest(tmp_path, {"diagnosis": "group", "age": "Age"})
    assert scans["diagnosis"].tolist() == ["AD"]
    assert scans["age"].tolist() == [60]
    assert scans.attrs["columns"] == ["subject_id", "group", "Age"]
    with pytest.raises(UserError, match=r"no such column; its columns are .*'group'"):
        bids.manifest(tmp_path, {"diagnosis": "dx"})


def test_bids_without_images_or_table_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no T1w image"):
        bids.manifest(tmp_path, {})
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii")
    with pytest.raises(UserError, match=r"no participants\.tsv"):
        bids.manifest(tmp_path, {})
    participants(tmp_path, "participant_id age\nABC1 60\n")
    with pytest.raises(UserError, match="'1', the table such as 'ABC1'"):
        bids.manifest(tmp_path, {})
    participants(tmp_path, "id age\n1 60\n")
    with pytest.raises(UserError, match="no column 'participant_id'; its columns are 'id', 'age'"):
        bids.manifest(tmp_path, {})
    participants(tmp_path, "participant_id age\n1 60\nsub-1 61\n")
    with pytest.raises(UserError, match="more than one row for '1'"):
        bids.manifest(tmp_path, {})


# --- Values ---------------------------------------------------------------------------------------


def test_ages_as_people_write_them() -> None:
    texts = pd.Series(["61", "61.5", "61,5", "89+", ""], name="age")
    found = parse_ages(texts, Path("t.tsv"))
    assert found.tolist()[:4] == [61, 61.5, 61.5, 89]
    assert found.isna().tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("text", ["old", "-4", "999", "1950-02-03", "inf", "60-65"])
def test_what_is_no_age_is_listed(text: str) -> None:
    with pytest.raises(UserError, match=f"not ages in years: '{text}'"):
        parse_ages(pd.Series(["60", text], name="age"), Path("t.tsv"))


def test_sexes_as_numbers_are_not_guessed(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii")
    participants(tmp_path, "participant_id age sex\nsub-1 60 1\n")
    with pytest.raises(UserError, match="do not mean F or M: '1'"):
        bids.manifest(tmp_path, {})
    assert "sex" not in bids.manifest(tmp_path, {"sex": ""})


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("sub-1_space-MNI152NLin2009aSym_T1w.nii.gz", "mni"),
        ("sub-1_space-MNI152NLin6Asym_res-2_T1w.nii", "mni"),
        ("brain_space-MNI.nii", "mni"),
        ("sub-1_space-T1w_T1w.nii", "unknown"),
        ("sub-MNI_T1w.nii", "unknown"),
        ("T1_to_MNI.nii", "unknown"),
    ],
)
def test_mni_space_is_read_from_the_entity_only(name: str, space: str) -> None:
    assert space_of(name) == space


# --- Tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_a_table_names_its_scans(suffix: str, comma: str, tmp_path: Path) -> None:
    file = tmp_path / f"t.{suffix}"
    rows = [
        ["path", "subject_id", "age", "sex", "diagnosis", "site"],
        ["a/1.nii", "001", "60.5", "f", "CN", "X"],
        [str(tmp_path / "b.nii.gz"), "002", "n/a", "", "AD", "Y"],
        ["/elsewhere/s_space-MNI152_T1w.nii", "003", "70", "M", "NA", ""],
    ]
    file.write_text("\n".join(comma.join(row) for row in rows), encoding="utf-8-sig")
    scans = table.manifest(tmp_path, {"table": str(file)})
    assert scans["subject_id"].tolist() == ["001", "002", "003"]
    assert scans["path"].tolist() == ["a/1.nii", "b.nii.gz", "/elsewhere/s_space-MNI152_T1w.nii"]
    assert scans["diagnosis"].tolist() == ["CN", "AD", ""]
    assert scans["sex"].tolist() == ["F", "", "M"]
    assert scans["age"].isna().tolist() == [False, True, False]
    assert scans["space"].tolist() == ["unknown", "unknown", "mni"]


def test_a_table_may_call_its_columns_as_it_likes(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("File,PTID,Visit,AGE\nx.nii,1,m12,60\n,2,m12,61\n")
    options = {
        "table": str(file),
        "path": "File",
        "subject": "PTID",
        "session": "Visit",
        "age": "AGE",
    }
    scans = table.manifest(tmp_path, options)
    assert scans["session_id"].tolist() == ["m12", "m12"]
    assert scans["age"].tolist() == [60, 61]
    assert scans["reason"].tolist() == ["", table.NO_PATH]
    with pytest.raises(UserError, match=r"no column 'path'; .* are 'File', 'PTID'"):
        table.manifest(tmp_path, {"table": str(file)})
    with pytest.raises(UserError, match="no column 'Dx'"):
        table.manifest(tmp_path, options | {"diagnosis": "Dx"})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.csv", b"", "cannot be read"),
        ("t.csv", b"path,subject_id\nx,1,2,3\n", "cannot be read"),
        ("t.csv", b"\x7fELF\x00\x01\x02path,subject_id\n\xe4,1\n", "is not a text file"),
        ("t.csv", b"path,age,subject_id,age\nx,60,1,61\n", "columns of the same name: 'age'"),
        ("t.csv", b'path,subject_id,note\nx,1,"a, b\ny,2,c\n', "opened in line 2 is not closed"),
        ("t.csv", b"path, path,subject_id\nx,y,1\n", "columns of the same name"),
        ("t.csv", b"path,subject_id\nx.nii,\n", "without a subject"),
        ("t.xlsx", b"PK", "not an Excel file"),
        ("t.parquet", b"PK", "not a Parquet file"),
        ("t.doc", b"PK", r"is not supported; save it as one of \.csv"),
    ],
)
def test_a_table_that_cannot_serve_is_refused_in_a_sentence(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason):
        table.manifest(tmp_path, {"table": str(tmp_path / name)})


def test_no_table_and_a_missing_table_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--table FILE"):
        table.manifest(tmp_path, {"table": ""})
    with pytest.raises(UserError, match="does not exist"):
        table.manifest(tmp_path, {"table": str(tmp_path / "t.csv")})


def test_parquet_ids_stay_text_and_gaps_make_no_floats(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["007", "8"], "n": [7.0, None], "x": [0.5, 1.0], "k": [1, 2]})
    frame.to_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")
    assert found.to_dict("list") == {
        "id": ["007", "8"],
        "n": ["7", ""],
        "x": ["0.5", "1.0"],
        "k": ["1", "2"],
    }
