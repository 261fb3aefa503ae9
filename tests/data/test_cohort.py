from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data import check
from bench.data.cohort import Cohort, open_cohort
from bench.data.listing import cohort_request
from bench.records import SubjectRecord
from registry.cards import DatasetCard, Task
from registry.core import catalogue
from registry.datasets import DATASETS, dataset_options
from registry.errors import UserError

Write = Callable[..., Path]


def opened(root: Path, cache: Path, name: str = "bids", progress=None, **given) -> Cohort:
    given.setdefault("target", "diagnosis")
    options = {"grid": "mni-4mm", **given.pop("options", {})}
    request = cohort_request(name, {}, root=root, options=options, **given)
    return open_cohort(request, cache, progress)


def split_of(cache: Path, target: str = "diagnosis") -> pd.Series:
    (file,) = cache.glob(f"cohorts/*/split-{target}.csv")
    return pd.read_csv(file, dtype=str).set_index("subject_id")["side"]


def every_file(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")


# --- Cohorts --------------------------------------------------------------------------------------


def test_a_bids_folder_becomes_a_cohort(write_bids: Write, tmp_path: Path) -> None:
    cohort = opened(write_bids(tmp_path / "bids"), tmp_path / "cache")
    assert (cohort.n_pool, cohort.n_validation, cohort.n_test) == (12, 4, 4)
    assert cohort.task == Task("diagnosis", "classification", ("CN", "AD"))
    assert cohort.shape == (46, 55, 46)
    assert cohort.flow == [("scans found", 20), ("scans used", 20), ("subjects used", 20)]
    volumes = np.load(cohort.volumes_file, mmap_mode="r")
    assert volumes.shape == (20, 46, 55, 46)
    assert volumes.dtype == np.float16
    one = volumes[3].astype(np.float64)
    assert one.mean() == pytest.approx(0, abs=1e-3)
    assert one.std() == pytest.approx(1, abs=1e-3)
    assert sorted(np.concatenate([cohort.side(s) for s in ("train", "validation", "test")])) == [
        *range(20)
    ]
    np.testing.assert_array_equal(cohort.targets, np.arange(20) % 2)
    rows = cohort.test_rows()
    np.testing.assert_array_equal(cohort.truth_of(cohort.subjects_of(rows)), rows % 2)
    assert not cohort.synthetic


def test_nothing_for_the_database_names_a_person_or_a_place(
    write_bids: Write, tmp_path: Path
) -> None:
    root = write_bids(tmp_path / "secret")
    for place in root.glob("sub-*"):
        shutil.move(place, place.with_name(place.name.replace("sub-", "sub-jane")))
    table = (root / "participants.tsv").read_text().replace("sub-", "sub-jane")
    (root / "participants.tsv").write_text(table)
    record = opened(root, tmp_path / "cache").record
    text = json.dumps(asdict(record))
    assert "jane" not in text
    assert "secret" not in text
    assert record.n_pool == 12
    side = record.subjects[0].side
    assert record.subjects[0] == SubjectRecord(0, side, truth=0.0, age=60.0, sex="F", site="A")


def test_training_uses_all_scans_of_a_person_and_evaluation_the_first(
    write_scan: Write, tmp_path: Path
) -> None:
    root = tmp_path / "bids"
    lines = ["participant_id\tage"]
    for i in range(15):
        lines.append(f"{i:02d}\t{60 + i}")
        for visit in ("M2", "M10"):
            name = f"sub-{i:02d}_ses-{visit}_space-MNI152Lin_T1w.nii"
            file = root / f"sub-{i:02d}" / f"ses-{visit}" / "anat" / name
            write_scan(file, seed=2 * i + (visit == "M10"))
    (root / "participants.tsv").write_text("\n".join(lines))
    cohort = opened(root, tmp_path / "cache", target="age")
    assert len(cohort.frame) == 30
    assert len(cohort.train_rows(9, "0")) == 18
    assert len(cohort.train_rows(4, "0")) == 8
    for rows in (cohort.test_rows(), cohort.validation_rows(9, "0", full=True)):
        assert len(rows) == len(set(cohort.subjects_of(rows))) == 3
        # Sorted by session with numbers as numbers, M2 is the even row of each pair.
        assert (rows % 2 == 0).all()
    assert set(cohort.frame.groupby("subject")["side"].nunique()) == {1}


def test_subsets_are_nested_and_never_leave_the_pool(write_bids: Write, tmp_path: Path) -> None:
    cohort = opened(write_bids(tmp_path / "bids", n=40), tmp_path / "cache")
    chosen = [set(cohort.train_rows(n, "3")) for n in (2, 8, 24)]
    assert chosen[0] < chosen[1] < chosen[2] == set(cohort.pool)
    assert set(cohort.targets[list(chosen[0])]) == {0, 1}
    assert set(cohort.train_rows(8, "3")) != set(cohort.train_rows(8, "tune"))
    validation = [cohort.validation_rows(n, "3", full=False) for n in (2, 24)]
    assert set(validation[0]) <= set(validation[1]) == set(cohort.side("validation"))
    assert not set(cohort.test_rows()) & (chosen[2] | set(validation[1]))


def test_a_table_is_a_cohort_without_a_root(write_scan: Write, tmp_path: Path) -> None:
    lines = ["path;subject_id;age"]
    for i in range(12):
        write_scan(tmp_path / "in" / f"{i}.nii", seed=i)
        lines.append(f"in/{i}.nii;{i:03d};{50 + i},5")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    options = {"table": str(tmp_path / "t.csv"), "space": "mni"}
    cohort = opened(None, tmp_path / "cache", "table", target="age", options=options)
    assert cohort.n_subjects == 12
    assert cohort.subjects["y"].tolist() == [50.5 + i for i in range(12)]
    assert "table" not in cohort.settings


# --- Fingerprint ----------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_files_labels_and_settings_not_of_the_place(
    write_bids: Write, write_scan: Write, tmp_path: Path
) -> None:
    root = write_bids(tmp_path / "a")
    first = opened(root, tmp_path / "cache").fingerprint
    shutil.copytree(root, tmp_path / "b")
    moved = tmp_path / "b"
    assert opened(moved, tmp_path / "other").fingerprint == first
    assert opened(root, tmp_path / "cache", target="sex").fingerprint != first
    assert opened(root, tmp_path / "cache", options={"zscore": "brain"}).fingerprint != first
    table = moved / "participants.tsv"
    text = table.read_text()
    table.write_text(text.replace("\t65\t", "\t66\t"))
    assert opened(moved, tmp_path / "other").fingerprint != first
    table.write_text(text)
    assert opened(moved, tmp_path / "other").fingerprint == first
    write_scan(next(moved.glob("sub-003/anat/*")), seed=99)
    assert opened(moved, tmp_path / "other").fingerprint != first


# --- Cache ----------------------------------------------------------------------------------------


def test_the_second_opening_reads_no_voxel(write_bids: Write, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids")
    calls: list[tuple[int, int]] = []
    first = opened(root, tmp_path / "cache", progress=lambda *step: calls.append(step))
    assert calls == [(i, 20) for i in range(1, 21)]
    # Other bytes with the same size and time would be noticed only by reading the file.
    file = next(root.glob("sub-001/anat/*"))
    status = file.stat()
    file.write_bytes(b"\0" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    calls.clear()
    again = opened(root, tmp_path / "cache", progress=lambda *step: calls.append(step))
    other = opened(root, tmp_path / "cache", target="age")
    assert again.fingerprint == first.fingerprint
    assert other.volumes_file == first.volumes_file
    assert calls == []


def test_a_complete_cache_is_read_without_writing_to_it(write_bids: Write, tmp_path: Path) -> None:
    """Open a cohort in a folder that cannot be written: without lock, creating nothing."""
    root, cache = write_bids(tmp_path / "bids"), tmp_path / "cache"
    first = opened(root, cache)
    (lock,) = cache.glob("cohorts/*/.lock")
    lock.unlink()
    before = {place: place.stat().st_mtime_ns for place in cache.rglob("*")}
    assert opened(root, cache).fingerprint == first.fingerprint
    assert {place: place.stat().st_mtime_ns for place in cache.rglob("*")} == before
    opened(root, cache, target="age")  # another split is something to keep
    assert lock.exists()


def test_the_group_may_go_on_with_a_cache(write_bids: Write, tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        opened(write_bids(tmp_path / "bids"), tmp_path / "cache")
    finally:
        os.umask(before)
    for place in (tmp_path / "cache").rglob("*"):
        assert place.stat().st_mode & 0o060 == 0o060, place


def test_a_system_without_posix_fallocate_and_fdatasync_makes_the_same_cache(
    write_bids: Write, tmp_path: Path, monkeypatch
) -> None:
    """As on macOS, and on file systems that cannot reserve space."""
    root = write_bids(tmp_path / "bids")
    expected = opened(root, tmp_path / "cache").volumes_file.read_bytes()
    monkeypatch.delattr(os, "fdatasync")

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert opened(root, tmp_path / "a").volumes_file.read_bytes() == expected
    monkeypatch.delattr(os, "posix_fallocate")
    assert opened(root, tmp_path / "b").volumes_file.read_bytes() == expected


def test_a_changed_file_makes_new_volumes(
    write_bids: Write, write_scan: Write, tmp_path: Path
) -> None:
    root = write_bids(tmp_path / "bids")
    before = opened(root, tmp_path / "cache")
    write_scan(next(root.glob("sub-001/anat/*")), seed=77)
    after = opened(root, tmp_path / "cache")
    old, new = (np.load(cohort.volumes_file, mmap_mode="r") for cohort in (before, after))
    assert not np.array_equal(old[0], new[0])
    np.testing.assert_array_equal(old[1:], new[1:])


def test_a_cut_cache_is_built_again(write_bids: Write, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids")
    cohort = opened(root, tmp_path / "cache")
    content = cohort.volumes_file.read_bytes()
    cohort.volumes_file.write_bytes(content[:-100])
    assert opened(root, tmp_path / "cache").volumes_file.read_bytes() == content


def test_corrupt_scans_are_left_out_by_reason_and_never_reach_training(
    write_bids: Write, write_scan: Write, tmp_path: Path
) -> None:
    root = write_bids(tmp_path / "bids", n=24)
    files = sorted(root.glob("sub-*/anat/*"))
    files[0].write_bytes(files[0].read_bytes()[:200])
    files[1].write_bytes(b"")
    files[2].unlink()
    files[2].symlink_to("nowhere")
    write_scan(files[3], data=np.full((12, 14, 12), 3, np.float32))
    text = (root / "participants.tsv").read_text()
    (root / "participants.tsv").write_text(text.replace("65\tF\tAD", "65\tF\tn/a"))
    cohort = opened(root, tmp_path / "cache")
    assert dict(cohort.flow) == {
        "scans found": 24,
        "left out: a link to a file that is not there": 1,
        "left out: all its voxels are equal": 1,
        "left out: the file is empty": 1,
        "left out: the gzip file is truncated": 1,
        "left out: no diagnosis": 1,
        "scans used": 19,
        "subjects used": 19,
    }
    # The link is excluded before anything is read, so it has no row.
    assert set(cohort.frame["row"]) == set(range(23)) - {0, 1, 2, 4}
    assert cohort.ids[cohort.frame["subject"].iloc[0]] == "005"


def test_a_cohort_of_which_nothing_can_be_read_says_why(write_bids: Write, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids")
    for file in root.glob("sub-*/anat/*"):
        file.write_bytes(b"x")
    with pytest.raises(UserError, match=r"None of the 20 scans.*not a gzip file"):
        opened(root, tmp_path / "cache")


def test_two_processes_at_once_make_one_cache(write_bids: Write, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(opened, [(root, tmp_path / "cache")] * 2)
    assert found[0].fingerprint == found[1].fingerprint
    assert len(list((tmp_path / "cache" / "volumes").iterdir())) == 1
    assert not list((tmp_path / "cache").rglob(".building-*"))


def test_what_a_killed_process_did_is_not_done_again(write_bids: Write, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids")
    process = multiprocessing.get_context("spawn").Process(
        target=opened, args=(root, tmp_path / "cache"), kwargs={"progress": die_at_five}
    )
    process.start()
    process.join()
    assert process.exitcode == 1
    assert len(list((tmp_path / "cache").rglob(".building-*"))) == 1
    read = []
    cohort = opened(root, tmp_path / "cache", progress=lambda done, total: read.append(done))
    assert cohort.n_subjects == 20
    assert read == list(range(6, 21))
    assert not list((tmp_path / "cache").rglob(".building-*"))


def die_at_five(done: int, total: int) -> None:
    if done == 5:
        os._exit(1)


def limited(root: Path, cache: Path) -> str:
    """Open a cohort with files limited to 1 MB, which simulates a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        opened(root, cache)
    except UserError as error:
        return str(error)
    return ""


def test_a_full_disk_is_one_sentence_and_leaves_no_half_cache(
    write_bids: Write, tmp_path: Path
) -> None:
    root = write_bids(tmp_path / "bids")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        said = pool.apply(limited, (root, tmp_path / "cache"))
    assert "cannot be written" in said
    assert "BENCH_CACHE" in said
    assert not (tmp_path / "cache" / "volumes").exists()
    assert not list((tmp_path / "cache").rglob(".building-*"))
    assert opened(root, tmp_path / "cache").n_subjects == 20


def test_values_too_large_for_16_bits_are_left_out(write_bids: Write, tmp_path: Path, write_scan):
    root = write_bids(tmp_path / "bids", n=24)
    data = np.random.default_rng(0).uniform(0, 1e6, (12, 14, 12)).astype(np.float32)
    write_scan(next(root.glob("sub-001/anat/*")), data=data)
    cohort = opened(root, tmp_path / "cache", options={"zscore": "none"})
    assert ("left out: its values do not fit 16 bits; use zscore=whole", 1) in cohort.flow


# --- Space ----------------------------------------------------------------------------------------


def test_scans_of_unknown_space_need_a_word(write_bids: Write, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids", space="")
    with pytest.raises(
        UserError, match=r"20 of 20 .*--space mni.*--register affine.*--space native"
    ):
        opened(root, tmp_path / "cache")
    found = {
        space: opened(root, tmp_path / "cache", options={"space": space})
        for space in ("mni", "native")
    }
    assert found["mni"].fingerprint != found["native"].fingerprint
    assert found["native"].settings["space"] == "native"


# --- Split ----------------------------------------------------------------------------------------


def test_a_subject_that_withdraws_moves_nobody(write_bids: Write, tmp_path: Path) -> None:
    root, cache = write_bids(tmp_path / "bids", n=30), tmp_path / "cache"
    opened(root, cache)
    before = split_of(cache)
    gone = before.index[before == "test"][0]
    shutil.rmtree(root / f"sub-{gone}")
    opened(root, cache)
    after = split_of(cache)
    assert after.to_dict() == before.drop(gone).to_dict()


def test_a_scan_that_cannot_be_read_today_keeps_its_side_for_tomorrow(
    write_bids: Write, tmp_path: Path
) -> None:
    root, cache = write_bids(tmp_path / "bids", n=30), tmp_path / "cache"
    first = opened(root, cache)
    before = split_of(cache)
    file = next(root.glob(f"sub-{before.index[before == 'test'][0]}/anat/*"))
    content = file.read_bytes()
    file.write_bytes(content[:50])
    assert opened(root, cache).n_subjects == 29
    assert split_of(cache).to_dict() == before.to_dict()
    file.write_bytes(content)
    assert opened(root, cache).fingerprint == first.fingerprint


def test_new_subjects_join_and_only_new_split_starts_over(
    write_bids: Write, tmp_path: Path
) -> None:
    root, cache = write_bids(tmp_path / "bids", n=23), tmp_path / "cache"
    opened(root, cache)
    before = split_of(cache)
    write_bids(root, n=30)
    opened(root, cache)
    kept = split_of(cache)
    assert kept[before.index].equals(before)
    assert len(kept) == 30
    fresh = opened(root, tmp_path / "elsewhere").split_digest
    assert opened(root, cache).split_digest != fresh
    assert opened(root, cache, new_split=True).split_digest == fresh


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("subject_id,side\n001,train\n001,test\n", "in more than one set"),
        ("subject_id,side\n001,holdout\n", "not a valid split"),
        ("id,side\n001,test\n", "not a valid split"),
    ],
)
def test_a_split_that_was_tampered_with_is_refused(
    text: str, reason: str, write_bids: Write, tmp_path: Path
) -> None:
    root, cache = write_bids(tmp_path / "bids"), tmp_path / "cache"
    opened(root, cache)
    (file,) = cache.glob("cohorts/*/split-diagnosis.csv")
    file.write_text(text)
    with pytest.raises(UserError, match=reason):
        opened(root, cache)


def test_a_frame_that_shares_a_subject_is_refused() -> None:
    frame = pd.DataFrame({"subject_id": ["a", "a", "b"], "side": ["train", "test", "test"]})
    with pytest.raises(UserError, match=r"1 subject .* 'a'"):
        check.refuse_shared_subjects(frame)
    check.refuse_shared_subjects(frame.iloc[1:])


def test_one_image_under_two_subjects_is_never_on_two_sides(
    write_bids: Write, tmp_path: Path
) -> None:
    root, cache = write_bids(tmp_path / "bids", n=24), tmp_path / "cache"
    first = opened(root, cache)
    sides, labels = split_of(cache), dict(zip(first.ids, first.subjects["y"], strict=True))
    one = sides.index[sides == "train"][0]
    others = [s for s in sides.index if sides[s] == "test"]
    other = next(s for s in others if labels[s] == labels[one])
    source = next(root.glob(f"sub-{one}/anat/*"))
    shutil.copy(source, next(root.glob(f"sub-{other}/anat/*")))
    cohort = opened(root, cache)
    assert cohort.n_subjects == 23
    assert ("left out: copy of another scan", 1) in cohort.flow
    assert (
        f"{one!r} and {other!r}" in cohort.warnings[0]
        or f"{other!r} and {one!r}" in (cohort.warnings[0])
    )


# --- Requests that cannot be met ------------------------------------------------------------------


def test_targets_that_cannot_be_learned_are_refused(write_bids: Write, tmp_path: Path) -> None:
    root, cache = write_bids(tmp_path / "bids"), tmp_path / "cache"
    file = root / "participants.tsv"
    text = file.read_text()

    def refused(table: str, match: str, target: str = "diagnosis") -> None:
        file.write_text(table)
        with pytest.raises(UserError, match=match):
            opened(root, cache, target=target)

    refused(text.replace("diagnosis", "dx"), r"No scan has .*diagnosis=COLUMN.*'dx'")
    refused(text.replace("AD", "CN"), "is CN for every scan")
    refused("\n".join(text.splitlines()[:8]), "Only 7 subjects")
    refused(text.replace("60\tF\tCN", "60\tF\tSMC"), "class 'SMC' of 'diagnosis' has 1 subjects")
    assert not (cache / "volumes").exists()
    file.write_text(text)
    assert opened(root, cache, target="sex").task.classes == ("F", "M")


def test_two_scans_of_one_visit_are_refused(write_scan: Write, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,subject_id,age\na.nii,1,60\nb.nii,1,61\n")
    options = {"table": str(tmp_path / "t.csv"), "space": "mni"}
    with pytest.raises(UserError, match=r"'1' has more than one scan.*session=COLUMN"):
        opened(tmp_path, tmp_path / "cache", "table", target="age", options=options)


@pytest.mark.parametrize(
    ("name", "configured", "given", "reason"),
    [
        ("bidz", {}, {}, "did you mean 'bids'"),
        ("bids", {}, {}, "--root DIR"),
        ("bids", {}, {"root": Path("x"), "target": "iq"}, "choose one of age, diagnosis, sex"),
        ("synthetic-age", {}, {"target": "diagnosis"}, "choose one of age, sex"),
        ("bids", {}, {"options": {"gird": "mni-2mm"}}, "did you mean 'grid'"),
        ("bids", {}, {"options": {"grid": "mni-3mm"}}, "--data-set grid=mni-3mm"),
        ("mine", {"adapter": "bids", "zscore": "x"}, {}, r"\[data.mine\] zscore=x"),
        ("mine", {"adapter": "nothing"}, {}, "no dataset 'nothing'"),
    ],
)
def test_requests_are_checked_before_a_file_is_touched(
    name: str, configured: dict, given: dict, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        cohort_request(name, configured, **given)


def test_the_command_line_wins_over_the_configuration(tmp_path: Path) -> None:
    configured = {"adapter": "bids", "root": "/a", "target": "sex", "grid": "mni-1mm", "age": "Age"}
    request = cohort_request("mine", configured, root=tmp_path, options={"grid": "mni-4mm"})
    assert (request.name, request.card.name, request.root) == ("mine", "bids", tmp_path)
    assert request.target == "sex"
    assert request.options["grid"] == "mni-4mm"
    assert request.options["age"] == "Age"
    assert request.options["zscore"] == "whole"


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the dataset bids is not a directory"):
        opened(tmp_path / "none", tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_one_sentence(write_bids: Write, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="BENCH_CACHE"):
        opened(root, tmp_path / "file")


# --- The catalogue --------------------------------------------------------------------------------


def test_every_card_has_a_target_that_it_offers_and_defaults_that_it_allows() -> None:
    for card in DATASETS:
        assert card.default_target in card.targets
        for name, value in card.defaults.items():
            assert dataset_options(card)[name].check(value) == value
    assert cohort_request("synthetic-ad-4mm", {}).options["grid"] == "mni-4mm"
    assert cohort_request("synthetic-ad", {}).options["grid"] == "mni-2mm"


def test_a_plugin_needs_ids_paths_and_labels_only(write_scan: Write, tmp_path: Path) -> None:
    def found(root: Path, options: dict) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "subject_id": range(12),
                "path": [f"{i}.nii" for i in range(12)],
                "age": [60 + i for i in range(12)],
                "space": "mni",
            }
        )

    for i in range(12):
        write_scan(tmp_path / "in" / f"{i}.nii", seed=i)
    catalogue.datasets.add(DatasetCard(name="mine", target=found), "a test")
    try:
        cohort = opened(tmp_path / "in", tmp_path / "cache", "mine", target="age")
    finally:
        catalogue.datasets.discard("a test")
    assert cohort.n_subjects == 12
    # As text, '10' comes before '2'; labels must be reordered in the same way.
    assert cohort.ids[2] == "10"
    assert cohort.truth_of(np.array([2])) == [70]


@pytest.mark.slow
def test_an_embedded_cohort_opens_by_name(tmp_path: Path) -> None:
    cohort = open_cohort(cohort_request("synthetic-ad-4mm", {}), tmp_path)
    assert (cohort.n_pool, cohort.n_validation, cohort.n_test) == (96, 32, 32)
    assert cohort.task.classes == ("CN", "AD")
    assert cohort.shape == (46, 55, 46)
    assert cohort.synthetic
