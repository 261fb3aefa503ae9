"""Special cases for all adapters: hidden files, circular links, capitals, unreadable folders."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench.data.adapters.walk import Walk, natural
from bench.data.cohort import open_cohort
from bench.data.listing import cohort_request
from bench.data.manifest import task_of
from registry.errors import UserError
from tests.data.trees import adni, aibl, bids, clinica, ixi, oasis1, oasis2, oasis3, ukbb
from tests.data.trees.scans import assert_listed, listed_scans, write_scan

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)
NOBODY = 65534


def write_caps(root: Path) -> pd.DataFrame:
    """Write a CAPS directory with one table of all visits in its root."""
    expected = clinica.write_caps(root)
    (root / "merged.tsv").write_text(clinica.merged())
    return expected.assign(source=expected["source"].str.replace("sessions.tsv", "merged.tsv"))


TREES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "adni": adni.write,
    "aibl": aibl.write,
    "bids": bids.write,
    "caps": write_caps,
    "clinica": clinica.write_bids,
    "ixi": ixi.write,
    "oasis1": oasis1.write,
    "oasis2": oasis2.write,
    "oasis3": oasis3.write,
    "ukbb": ukbb.write,
}
every_tree = pytest.mark.parametrize("name", list(TREES))


def files_of(root: Path) -> list[Path]:
    return [file for file in root.rglob("*") if file.is_file()]


@every_tree
def test_hidden_files_and_folders_are_no_data(name: str, tmp_path: Path) -> None:
    expected = TREES[name](tmp_path)
    for file in files_of(tmp_path):
        file.with_name(f"._{file.name}").write_bytes(APPLE_DOUBLE)
        for folder in (".Trashes", ".hidden/.git", "__MACOSX"):
            copy = tmp_path / folder / file.relative_to(tmp_path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (tmp_path / "~$table.xlsx").write_bytes(b"\x05owner")
    assert_listed(listed_scans(name, tmp_path), expected)


@every_tree
def test_links_in_circles_repeat_nothing(name: str, tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    root.mkdir()
    expected = TREES[name](root)
    # All folders but one are links, and DataLad has links to the root.
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
    disk.mkdir()
    for folder in folders[1:]:
        shutil.move(folder, disk / folder.name)
        folder.symlink_to(disk / folder.name)
    for derivative in ("a", "b"):
        source = root / "derivatives" / derivative / "sourcedata"
        source.mkdir(parents=True)
        (source / "raw").symlink_to("../../..")
    inside = next((root / folder.name for folder in folders), root)
    (inside / "up").symlink_to(root)
    (inside / "self").symlink_to("self")
    (inside / "out").symlink_to(tmp_path)
    assert_listed(listed_scans(name, root), expected)


@every_tree
def test_endings_in_capitals_are_endings(name: str, tmp_path: Path) -> None:
    expected = TREES[name](tmp_path)
    for file in files_of(tmp_path):
        stem, *ends = file.name.rsplit(".", 2 if file.name.endswith(".gz") else 1)
        if ends[0] in ("nii", "img", "hdr", "zip"):
            file.rename(file.with_name(".".join([stem, *map(str.upper, ends)])))
    packed, _, member = expected["path"].str.partition(".zip!/").to_numpy().T
    ends = pd.Series(packed).str.extract(r"(\.(?:nii(?:\.gz)?|img)$)")[0].fillna("")
    plain = [path.removesuffix(end) + end.upper() for path, end in zip(packed, ends, strict=True)]
    expected["path"] = [
        f"{path}.ZIP!/{inside}" if inside else path
        for path, inside in zip(plain, member, strict=True)
    ]
    order = ["subject_id", "session_id", "path"]
    assert_listed(listed_scans(name, tmp_path), expected.sort_values(order, ignore_index=True))


def test_the_order_is_that_of_numbers(tmp_path: Path) -> None:
    for name in ("b", "run-10", "run-2", "a10/x", "a9/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [entry.path for entry in Walk(tmp_path)] == ["b", "run-2", "run-10", "a9/x", "a10/x"]
    assert sorted(["m12", "m6", "m06b"], key=natural) == ["m6", "m06b", "m12"]


def test_a_folder_is_found_at_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "file").touch()
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "b").symlink_to(tmp_path / "z")
    assert [entry.path for entry in Walk(tmp_path)] == ["z/file"]


def test_a_link_and_a_folder_that_are_no_files_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.nii").mkdir()
    (tmp_path / "a.nii" / "a.nii").touch()
    (tmp_path / "b.nii").symlink_to("gone.nii")
    (tmp_path / "c.nii").symlink_to(".git/annex/objects/q/K/MD5E-s1--x.nii/MD5E-s1--x.nii")
    found = {entry.path: entry.reason for entry in Walk(tmp_path)}
    assert found == {
        "a.nii": "a folder, not a file",
        "a.nii/a.nii": "",
        "b.nii": "a link to a file that is not there",
        "c.nii": "its content was not fetched (git-annex or Git LFS)",
    }


def test_a_link_to_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    (tmp_path / "sub-01").symlink_to("/nowhere/sub-01")
    walk = Walk(tmp_path, within="sub-.*")
    assert [entry.path for entry in walk] == ["sub-01"]
    assert "1 folder in" in walk.warnings[0]
    assert "the first is sub-01: a link to a folder that is not there." in walk.warnings[0]


def test_what_is_no_file_is_counted_and_the_next_image_is_used(tmp_path: Path) -> None:
    expected = bids.write(tmp_path)
    files = [tmp_path / path for path in expected["path"]]
    for file in files[:4]:
        file.unlink()
    files[0].mkdir()
    files[1].symlink_to("gone.nii.gz")
    files[2].symlink_to("../../.git/annex/objects/x/y/K/K")
    write_scan(files[2].with_name("sub-03_run-2_T1w.nii.gz"), seed=3)
    files[3].mkdir()
    write_scan(files[3] / "sub-04_T1w.nii.gz", seed=4)
    scans = listed_scans("bids", tmp_path).set_index("path")["reason"]
    assert scans[scans != ""].to_dict() == {
        "sub-01/anat/sub-01_T1w.nii.gz": "a folder, not a file",
        "sub-02/anat/sub-02_T1w.nii.gz": "a link to a file that is not there",
        "sub-03/anat/sub-03_T1w.nii.gz": "its content was not fetched (git-annex or Git LFS)",
        "sub-04/anat/sub-04_T1w.nii.gz": "a folder, not a file",
    }
    assert scans["sub-03/anat/sub-03_run-2_T1w.nii.gz"] == ""


def test_a_data_set_whose_content_was_not_fetched_says_so(tmp_path: Path) -> None:
    expected = bids.write(tmp_path)
    for path in expected["path"]:
        (tmp_path / path).unlink()
        (tmp_path / path).symlink_to("../../.git/annex/objects/x/y/K/K")
    words = r"None of the 12 scans found can be used: its content was not fetched .*\(12\)\."
    with pytest.raises(UserError, match=words):
        task_of(listed_scans("bids", tmp_path), "age")


@pytest.mark.parametrize("name", ["adni", "ixi", "oasis3"])
def test_a_path_that_is_not_utf8_is_left_out_by_that_reason(name: str, tmp_path: Path) -> None:
    expected = TREES[name](tmp_path)
    path = expected.loc[expected["reason"] == "", "path"].iloc[0]
    place = tmp_path / os.fsdecode(b"donn\xe9es") / path
    place.parent.mkdir(parents=True)
    (tmp_path / path).rename(place)
    scans = listed_scans(name, tmp_path).set_index("path")["reason"]
    assert scans[f"donn\\xe9es/{path}"] == "its path is not UTF-8 text; rename it"
    assert len(scans) == len(expected)


def test_a_root_that_is_not_utf8_is_read_and_cached(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"donn\xe9es")
    bids.write(root)
    options = {"grid": "mni-4mm", "space": "mni"}
    read: list[int] = []
    for _ in range(2):
        asked = cohort_request("bids", {}, root=root, options=options, target="age")
        cohort = open_cohort(asked, tmp_path / "cache", lambda done, total: read.append(done))
        assert cohort.n_subjects == 12
    assert read == list(range(1, 13))


def unprivileged(do: Callable[[], list[str]]) -> list[str]:
    """Call a function in a process without root privileges and return its result."""
    if os.getuid() != 0:
        return do()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            found = do()
        except BaseException as error:
            found = [f"{type(error).__name__}: {error}"]
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        found = json.load(stream)
    os.waitpid(child, 0)
    return found


@pytest.fixture
def open_folder():
    """Return a folder that all users may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for place in folder.rglob("*"):
        if place.is_dir():
            place.chmod(0o755)
    shutil.rmtree(folder)


@every_tree
def test_folders_that_may_not_be_entered_are_counted(name: str, open_folder: Path) -> None:
    root = open_folder / "tree"
    root.mkdir()
    expected = TREES[name](root)
    used = expected.loc[expected["reason"] == "", "path"]
    nested = [path for path in used if path.count("/") > 1]
    closed = {root.joinpath(*Path(path).parts[:-2]) for path in nested}
    closed = set(sorted(closed)[-2:]) or {root / "closed"}
    for folder in closed:
        folder.mkdir(exist_ok=True)
        folder.chmod(0)

    def look() -> list[str]:
        scans = listed_scans(name, root)
        return [*scans["path"], scans.attrs["warnings"][0]]

    listed_scans(name, root)  # all that is imported late is imported as root
    *paths, warning = unprivileged(look)
    assert f"{len(closed)} folder{'s' if len(closed) > 1 else ''} in {root} cannot be" in warning
    assert "Permission denied" in warning
    gone = [root / path for path in expected["path"] if closed & set((root / path).parents)]
    assert len(paths) == len(expected) - len(gone)


def test_a_root_that_may_not_be_entered_is_a_sentence(open_folder: Path) -> None:
    bids.write(open_folder / "tree")
    (open_folder / "tree").chmod(0)

    def look() -> list[str]:
        try:
            listed_scans("bids", open_folder / "tree")
        except UserError as error:
            return [str(error)]
        return []

    (words,) = unprivileged(look)
    assert f"{open_folder / 'tree'} cannot be read: Permission denied" in words
