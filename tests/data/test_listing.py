"""Datasets by name: options, root directories, external test cohorts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.data.cohort import Cohort, open_cohort
from bench.data.listing import cohort_request, list_scans, manifest_table, with_test_cohort
from registry.core import catalogue
from registry.errors import UserError
from tests.data.trees import adni, oasis3, ukbb

SMALL = {"grid": "mni-4mm"}


def request(name: str, root: Path, **options: str):
    return cohort_request(name, {}, root=root, options={**SMALL, **options})


def opened(root: Path, cache: Path, **options: str) -> Cohort:
    return open_cohort(request("adni", root, **options), cache)


def test_classes_are_formed_for_the_diagnosis_only() -> None:
    def options(target: str, **given: str) -> str:
        found = cohort_request("adni", {}, root=Path(), target=target, options=given)
        return str(found.options["classes"])

    assert options("diagnosis") == "CN,AD"
    assert options("age") == ""
    assert options("age", classes="CN,MCI") == "CN,MCI"


def test_a_crop_needs_mni_space() -> None:
    with pytest.raises(UserError, match="crop=brain needs scans in MNI space"):
        request("adni", Path(), crop="brain", space="native")
    assert request("adni", Path(), crop="brain", space="native", register="affine")


def test_raw_scans_need_a_word_on_their_space(tmp_path: Path) -> None:
    adni.write(tmp_path / "tree", n_subjects=24)
    with pytest.raises(
        UserError, match=r"21 of 21 .*--space mni.*--register affine.*--space native"
    ):
        opened(tmp_path / "tree", tmp_path / "cache")
    cohort = opened(tmp_path / "tree", tmp_path / "cache", space="native")
    assert cohort.settings["space"] == "native"
    assert cohort.n_subjects == 20


def test_the_manifest_says_what_is_used_and_why_not(tmp_path: Path) -> None:
    expected = adni.write(tmp_path)
    table = manifest_table(
        list_scans(request("adni", tmp_path), tmp_path / "cache").scans, "diagnosis"
    )
    assert list(table.columns) == [
        *("subject_id", "session_id", "path", "age", "sex", "diagnosis", "site"),
        *("raw_label", "used", "reason"),
    ]
    assert len(table) == len(expected)
    assert ((table["used"] == "yes") == (table["reason"] == "")).all()
    assert (table["used"] == "yes").sum() == (expected["reason"] == "").sum()


def test_what_the_manifest_uses_is_what_is_opened(tmp_path: Path) -> None:
    adni.write(tmp_path / "tree", n_subjects=24, registered=True)
    listing = list_scans(request("adni", tmp_path / "tree"), tmp_path / "cache")
    used = manifest_table(listing.scans, "diagnosis").query("used == 'yes'")
    cohort = opened(tmp_path / "tree", tmp_path / "cache")
    assert {cohort.ids[subject] for subject in cohort.frame["subject"]} == set(used["subject_id"])
    assert len(cohort.frame) == len(used)


def test_two_phases_of_a_subject_are_on_one_side(tmp_path: Path) -> None:
    adni.write(tmp_path / "tree", n_subjects=24, registered=True)
    cohort = opened(tmp_path / "tree", tmp_path / "cache")
    scans = cohort.frame.groupby("subject")
    assert scans.size().max() == 2
    assert scans["side"].nunique().max() == 1


def test_a_later_table_moves_nobody(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    adni.write(root, n_subjects=24, registered=True)
    before = opened(root, tmp_path / "cache")
    table = root / "ADNIMERGE_17May.csv"
    table.rename(root / "ADNIMERGE_18June.csv")
    lines = (root / "ADNIMERGE_18June.csv").read_text().splitlines()
    gone = adni.ptid(3)
    kept = [line for line in lines if gone not in line]
    (root / "ADNIMERGE_18June.csv").write_text("\n".join(kept) + "\n")
    after = opened(root, tmp_path / "cache")
    first = {before.ids[s]: side for s, side in before.subjects["side"].items()}
    second = {after.ids[s]: side for s, side in after.subjects["side"].items()}
    assert second == {subject: side for subject, side in first.items() if subject != gone}


def test_withdrawals_move_nobody(tmp_path: Path) -> None:
    ukbb.write(tmp_path / "tree" / "x", n_subjects=24)
    (tmp_path / "w.csv").write_text(f"{ukbb.eid(2)}\n")
    found = []
    for more in ({}, {"withdrawals": str(tmp_path / "w.csv")}):
        asked = cohort_request(
            "ukbb", {}, root=tmp_path / "tree" / "x", options={**SMALL, **more}, target="age"
        )
        cohort = open_cohort(asked, tmp_path / "cache")
        found.append({cohort.ids[s]: side for s, side in cohort.subjects["side"].items()})
    assert found[1] == {s: side for s, side in found[0].items() if s != ukbb.eid(2)}


@pytest.mark.slow
def test_one_cohort_trains_and_another_tests(tmp_path: Path) -> None:
    adni.write(tmp_path / "adni", n_subjects=24, registered=True)
    oasis3.write(tmp_path / "oasis3")
    alone = opened(tmp_path / "adni", tmp_path / "cache", space="mni")
    train = request("adni", tmp_path / "adni", space="mni")
    cohort = open_cohort(
        with_test_cohort(train, request("oasis3", tmp_path / "oasis3")), tmp_path / "cache"
    )
    tested = {cohort.ids[subject] for subject in cohort.side("test")}
    assert tested
    assert all(subject.startswith("oasis3:") for subject in tested)
    assert cohort.tested_on == "oasis3"
    assert cohort.settings["test_cohort"] == "oasis3"
    trained = {cohort.ids[subject] for subject in cohort.pool}
    assert trained == {alone.ids[subject] for subject in alone.pool}
    assert ("left out: test side of the training cohort", alone.n_test) in cohort.flow


def test_a_test_cohort_that_shares_people_is_refused(tmp_path: Path) -> None:
    adni.write(tmp_path / "one", n_subjects=24, registered=True)
    adni.write(tmp_path / "two", n_subjects=20, registered=True)
    train, test = (request("adni", tmp_path / name) for name in ("one", "two"))
    with pytest.raises(UserError, match=r"share .* subjects .* leak into the test set"):
        open_cohort(with_test_cohort(train, test), tmp_path / "cache")


def test_a_test_cohort_that_shares_an_image_is_refused(tmp_path: Path) -> None:
    adni.write(tmp_path / "adni", n_subjects=24, registered=True)
    oasis3.write(tmp_path / "oasis3")
    ours = next((tmp_path / "adni").rglob(f"*{adni.ptid(1)}*.nii"))
    for theirs in (tmp_path / "oasis3").rglob("sub-OAS30001*T1w.nii.gz"):
        theirs.unlink()
        shutil.copy(ours, theirs.with_suffix("").with_suffix(".nii"))
    train = request("adni", tmp_path / "adni", space="mni")
    with pytest.raises(UserError, match="The training cohort and the test cohort share"):
        open_cohort(
            with_test_cohort(train, request("oasis3", tmp_path / "oasis3")), tmp_path / "cache"
        )


@pytest.mark.parametrize("card", list(catalogue.datasets), ids=lambda card: card.name)
def test_every_dataset_says_what_is_missing_in_an_empty_folder(card, tmp_path: Path) -> None:
    if card.synthetic:
        assert not card.needs_root
        return
    with pytest.raises(UserError) as refused:
        list_scans(request(card.name, tmp_path), tmp_path / "cache")
    assert str(refused.value).endswith(".")
