"""Scans that are checked, listed, prepared and used are the same, also with damaged files."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data.cohort import Cohort, open_cohort
from bench.data.inspect import inspect, stored_inspection
from bench.data.listing import CohortRequest, cohort_request, list_scans, manifest_table
from bench.data.scanning import Job, checksum, do_scan
from tests.data.trees import adni, aibl, clinica, ixi, oasis1, oasis2, oasis3, ukbb

pytestmark = pytest.mark.slow

TREES: dict[str, tuple[Callable[[Path], object], dict[str, str], str]] = {
    "adni": (lambda root: adni.write(root, registered=True), {}, "diagnosis"),
    "aibl": (aibl.write, {"space": "native"}, "diagnosis"),
    "oasis1": (oasis1.write, {"space": "native"}, "diagnosis"),
    "oasis2": (oasis2.write, {"space": "native"}, "diagnosis"),
    "oasis3": (oasis3.write, {"space": "native"}, "diagnosis"),
    "ixi": (ixi.write, {"space": "native"}, "age"),
    "ukbb": (ukbb.write, {}, "age"),
    "clinica": (clinica.write_bids, {"space": "native"}, "diagnosis"),
    "caps": (lambda root: (clinica.write_caps(root), clinica.write_tables(root)), {}, "diagnosis"),
}


def asked(name: str, root: Path, target: str, **options: str) -> CohortRequest:
    return cohort_request(
        name, {}, root=root, target=target, options={"grid": "mni-4mm", **options}
    )


def listed(request: CohortRequest, cache: Path) -> pd.DataFrame:
    """Return the manifest as `bench data manifest` writes it."""
    return manifest_table(stored_inspection(list_scans(request, cache)).scans, request.target)


def assert_used(table: pd.DataFrame, cohort: Cohort, request: CohortRequest) -> None:
    """Assert that the manifest and the cohort use the same scans, row by row and voxel by voxel."""
    used = table[table["used"] == "yes"].reset_index(drop=True)
    frame = cohort.frame
    assert used["subject_id"].tolist() == [cohort.ids[subject] for subject in frame["subject"]]
    for name in ("sex", "site"):
        assert used[name].tolist() == frame[name].tolist()
    np.testing.assert_allclose(used["age"], frame["age"], atol=0.005)
    files = {row["path"]: row["file"] for row in scans_of(request, cohort)}
    volumes = np.load(cohort.volumes_file, mmap_mode="r")
    conform = list_scans(request, cohort.folder.parents[1]).conform
    for path, row in zip(used["path"], frame["row"], strict=True):
        read = do_scan(0, [Path(files[path])], Job(conform))
        assert read["checksum"] == checksum(volumes[row].tobytes())


def scans_of(request: CohortRequest, cohort: Cohort) -> list[dict]:
    return list_scans(request, cohort.folder.parents[1]).scans.to_dict("records")


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


@pytest.mark.parametrize("name", TREES)
def test_the_manifest_after_prepare_is_what_run_uses(name: str, tmp_path: Path) -> None:
    write, options, target = TREES[name]
    root, cache = tmp_path / "tree", tmp_path / "cache"
    root.mkdir()
    write(root)
    request = asked(name, root, target, **options)
    first = list_scans(request, cache).chosen
    torn = first.drop_duplicates("subject_id", keep="last").iloc[1]
    if ".zip!/" not in torn["file"]:
        tear(Path(torn["file"]))
    # A check gives the same result.
    checked = inspect(list_scans(request, cache), cache)
    after_check = listed(request, cache)
    cohort = open_cohort(request, cache)
    after_prepare = listed(request, cache)
    pd.testing.assert_frame_equal(after_check, after_prepare)
    pd.testing.assert_frame_equal(manifest_table(checked.scans, target), after_prepare)
    assert checked.flow == cohort.flow
    assert stored_inspection(list_scans(request, cache)).unread == 0
    assert_used(after_prepare, cohort, request)
    if ".zip!/" not in torn["file"]:
        row = after_prepare.set_index("path").loc[torn["path"]]
        assert row["used"] == "no"
        assert row["reason"] not in ("", "another image of the same visit is used")


def test_before_anything_is_read_the_manifest_says_so(tmp_path: Path) -> None:
    adni.write(tmp_path / "tree", registered=True)
    request = asked("adni", tmp_path / "tree", "diagnosis")
    known = stored_inspection(list_scans(request, tmp_path / "cache"))
    assert known.unread == (known.scans["reason"] == "").sum() == 17
    inspect(list_scans(request, tmp_path / "cache"), tmp_path / "cache")
    file = Path(list_scans(request, tmp_path / "cache").chosen["file"].iloc[2])
    file.write_bytes(file.read_bytes())
    assert stored_inspection(list_scans(request, tmp_path / "cache")).unread == 1


# --- Substitutes ----------------------------------------------------------------------------------


@pytest.fixture
def two_runs(write_scan, tmp_path: Path) -> Path:
    """A BIDS folder of 15 subjects with two runs each."""
    root = tmp_path / "bids"
    lines = ["participant_id\tage"]
    for i in range(15):
        for run in (1, 2):
            write_scan(run_of(root, i, run), seed=2 * i + run)
        lines.append(f"{i:02d}\t{60 + i}")
    (root / "participants.tsv").write_text("\n".join(lines))
    return root


def run_of(root: Path, i: int, run: int, space: str = "MNI152Lin") -> Path:
    name = f"sub-{i:02d}_run-{run}{f'_space-{space}' if space else ''}_T1w.nii.gz"
    return root / f"sub-{i:02d}" / "anat" / name


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "the gzip file is truncated": lambda content: content[:-500],
    "the gzip file is damaged": lambda content: content[:-6] + bytes(6),
    "named .gz but not a gzip file": lambda content: gzip.decompress(content),
    "the file is empty": lambda content: b"",
    "the header is invalid": lambda content: gzip.compress(
        gzip.decompress(content)[:40] + b"\xff" * 16 + gzip.decompress(content)[56:]
    ),
    "not a NIfTI file": lambda content: gzip.compress(bytes(5000)),
    "the header promises more voxels than the file holds": lambda content: gzip.compress(
        gzip.decompress(content)[:-900]
    ),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_the_next_image_of_the_visit_stands_in(reason: str, two_runs: Path, tmp_path: Path) -> None:
    request = asked("bids", two_runs, "age")
    file = run_of(two_runs, 3, 1)
    whole = file.read_bytes()
    sound = open_cohort(request, tmp_path / "sound").fingerprint
    file.write_bytes(DAMAGES[reason](whole))
    cohort = open_cohort(request, tmp_path / "cache")
    assert cohort.n_subjects == 15
    assert (f"left out: {reason}; the next image of the visit is used", 1) in cohort.flow
    assert f"{file.name} ({reason})" in cohort.warnings[0]
    table = listed(request, tmp_path / "cache")
    rows = table[table["subject_id"] == "03"].set_index("path")["used"]
    assert rows.tolist() == ["no", "yes"]
    assert_used(table, cohort, request)
    assert inspect(list_scans(request, tmp_path / "cache"), tmp_path / "cache").flow == cohort.flow
    # The record is the same as if the file did not exist.
    file.unlink()
    alone = open_cohort(request, tmp_path / "cache")
    assert alone.fingerprint == cohort.fingerprint != sound
    assert alone.volumes_file == cohort.volumes_file
    # A repaired file is used again.
    file.write_bytes(whole)
    assert open_cohort(request, tmp_path / "cache").fingerprint == sound


def test_a_second_call_reads_nothing_and_processes_do_not_matter(
    two_runs: Path, tmp_path: Path
) -> None:
    tear(run_of(two_runs, 0, 1))
    tear(run_of(two_runs, 5, 1))
    request, read = asked("bids", two_runs, "age"), []
    first = open_cohort(request, tmp_path / "cache", lambda *done: read.append(done), workers=2)
    assert len(read) == 15
    again = open_cohort(request, tmp_path / "cache", lambda *done: read.append(done))
    assert len(read) == 15
    alone = open_cohort(request, tmp_path / "other", workers=1)
    assert first.fingerprint == again.fingerprint == alone.fingerprint
    assert first.volumes_file.read_bytes() == alone.volumes_file.read_bytes()
    # A repaired file is the only one that is read again.
    run_of(two_runs, 5, 1).write_bytes(run_of(two_runs, 6, 2).read_bytes())
    open_cohort(request, tmp_path / "cache", lambda *done: read.append(done))
    assert len(read) == 16
    # A damaged file is remembered for all settings.
    open_cohort(asked("bids", two_runs, "age", zscore="brain"), tmp_path / "cache")
    open_cohort(request, tmp_path / "cache", lambda *done: read.append(done))
    assert len(read) == 16


def test_where_all_images_of_a_visit_are_torn_each_has_its_reason(
    two_runs: Path, tmp_path: Path
) -> None:
    run_of(two_runs, 3, 1).write_bytes(b"")
    run_of(two_runs, 3, 2).write_bytes(run_of(two_runs, 3, 2).read_bytes()[:-500])
    request = asked("bids", two_runs, "age")
    cohort = open_cohort(request, tmp_path / "cache")
    assert cohort.n_subjects == 14
    table = listed(request, tmp_path / "cache")
    assert table.loc[table["subject_id"] == "03", "reason"].tolist() == [
        "the file is empty",
        "the gzip file is truncated",
    ]
    assert_used(table, cohort, request)


def test_an_image_of_another_space_is_no_substitute(
    two_runs: Path, write_scan, tmp_path: Path
) -> None:
    tear(run_of(two_runs, 3, 1))
    tear(run_of(two_runs, 3, 2))
    raw = write_scan(run_of(two_runs, 3, 1, space=""), seed=99)
    request = asked("bids", two_runs, "age")
    assert open_cohort(request, tmp_path / "cache").n_subjects == 14
    table = listed(request, tmp_path / "cache").set_index("path")
    assert "this one is in another space" in table.loc[f"sub-03/anat/{raw.name}", "reason"]


def test_an_image_unusable_with_some_settings_is_used_with_others(
    two_runs: Path, write_scan, tmp_path: Path
) -> None:
    # The values are too large for 16 bits unless they are standardised.
    rng = np.random.default_rng(0)
    data = rng.uniform(1e5, 2e5, (12, 14, 12)).astype(np.float32)
    write_scan(run_of(two_runs, 3, 1), data=data)
    plain, scaled = (asked("bids", two_runs, "age", zscore=mode) for mode in ("none", "whole"))
    used = []
    for request in (scaled, plain, scaled, plain):
        open_cohort(request, tmp_path / "cache")
        table = listed(request, tmp_path / "cache")
        used.append(table.loc[table["subject_id"] == "03", "used"].tolist())
    assert used == [["yes", "no"], ["no", "yes"], ["yes", "no"], ["no", "yes"]]


def test_a_substitute_gets_the_class_of_its_visit(tmp_path: Path) -> None:
    adni.write(tmp_path / "tree", registered=True)
    request = asked("adni", tmp_path / "tree", "diagnosis", visits="baseline")
    chosen = list_scans(request, tmp_path / "cache")
    first, others = next(iter(chosen.substitutes.items()))
    tear(chosen.files[first])
    cohort = open_cohort(request, tmp_path / "cache")
    table = listed(request, tmp_path / "cache")
    torn = chosen.chosen.iloc[first]
    rows = table[table["subject_id"] == torn["subject_id"]]
    assert rows.loc[rows["used"] == "yes", "diagnosis"].tolist() == [torn["diagnosis"]]
    assert rows.loc[rows["used"] == "yes", "path"].tolist() == [
        str(others[0].relative_to((tmp_path / "tree").absolute()))
    ]
    assert_used(table, cohort, request)


def test_warnings_of_the_readers_name_the_first_file(two_runs: Path, tmp_path: Path) -> None:
    for subject in (4, 7):
        file = run_of(two_runs, subject, 1)
        content = bytearray(gzip.decompress(file.read_bytes()))
        content[80:84] = struct.pack("<f", -2.0)
        file.write_bytes(gzip.compress(content))
    found = inspect(
        list_scans(asked("bids", two_runs, "age"), tmp_path / "cache"), tmp_path / "cache"
    )
    (warning,) = [words for words in found.warnings if "pixdim" in words]
    assert warning.startswith("Reading 2 used scans gave warnings; the first is sub-04/anat/")
