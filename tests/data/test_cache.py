"""The cache of prepared volumes: interrupted at any moment, verified, reused by content."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.data.cache import INDEX, VOLUMES, cohort_folder, complete, prepare
from bench.data.scanning import Job, read_all
from bench.data.volume import Conform
from registry.errors import UserError

CONFORM = Conform("mni-4mm", "whole", "mni")

PROGRAM = """
import sys
from pathlib import Path
from bench.data.cache import cohort_folder, prepare
from bench.data.volume import Conform

if __name__ == "__main__":
    files, cache, workers = sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2]), int(sys.argv[3])
    with cohort_folder(cache / "cohorts" / "c"):
        prepare(files, Conform("mni-4mm", "whole", "mni"), cache / "cohorts" / "c", cache,
                lambda done, total: print(done, flush=True), workers=workers)
"""


def prepared(files: list[Path], cache: Path, conform: Conform = CONFORM, **more):
    with cohort_folder(cache / "cohorts" / "c"):
        return prepare(files, conform, cache / "cohorts" / "c", cache, **more)


def scans(folder: Path, write_scan, n: int = 12) -> list[Path]:
    return [write_scan(folder / f"{i:02d}.nii.gz", seed=i) for i in range(n)]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def assert_same(one: Path, other: Path) -> None:
    assert sorted(contents(one)) == [INDEX, VOLUMES]
    assert contents(one) == contents(other)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_killed_ten_times_it_is_bitwise_what_it_is_undisturbed(
    workers: int, write_scan, tmp_path: Path
) -> None:
    files = scans(tmp_path / "scans", write_scan, n=60)
    files[7].write_bytes(files[7].read_bytes()[:100])
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path / "scans"), str(tmp_path / "cache")]
    draw, seen = random.Random(0), []
    for _ in range(10):
        process = subprocess.Popen([*command, str(workers)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        time.sleep(draw.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        seen.append(int(line or 60))
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
    subprocess.run([*command, str(workers)], check=True, capture_output=True)
    again = prepared(files, tmp_path / "cache")
    undisturbed = prepared(files, tmp_path / "other")
    assert_same(again.folder, undisturbed.folder)


@pytest.mark.slow
def test_the_number_of_processes_does_not_matter(write_scan, tmp_path: Path) -> None:
    files = scans(tmp_path / "scans", write_scan)
    one = prepared(files, tmp_path / "one", workers=1)
    three = prepared(files, tmp_path / "three", workers=3)
    assert_same(one.folder, three.folder)


def test_workers_end_with_a_parent_that_is_killed(write_scan, tmp_path: Path) -> None:
    scans(tmp_path / "scans", write_scan, n=60)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words = [sys.executable, str(program), str(tmp_path / "scans"), str(tmp_path / "cache"), "2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(process.pid) == []


def alive(session: int) -> list[int]:
    """Return the processes of a session."""
    return [pid for pid, (_, found) in processes().items() if found == session]


def processes() -> dict[int, tuple[int, int]]:
    """Return the parent and the session of every process that is not a zombie."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if words[0] != "Z":
                found[int(folder.name)] = int(words[1]), int(words[3])
    return found


def test_a_second_call_reads_nothing_and_a_new_scan_only_itself(write_scan, tmp_path: Path) -> None:
    files = scans(tmp_path / "scans", write_scan)
    first = prepared(files[:10], tmp_path / "cache")
    read: list[int] = []
    prepared(files[:10], tmp_path / "cache", progress=lambda done, total: read.append(done))
    assert read == []
    grown = prepared(files, tmp_path / "cache", progress=lambda done, total: read.append(done))
    assert read == [11, 12]
    assert_same(grown.folder, prepared(files, tmp_path / "other").folder)
    assert grown.folder != first.folder


def test_a_scan_that_moved_in_its_file_is_made_again(write_scan, tmp_path: Path) -> None:
    files = scans(tmp_path / "scans", write_scan)
    first = prepared(files, tmp_path / "cache")
    affine = np.diag([16.0, 16, 16, 1])
    affine[:3, 3] = (-82, -126, -72)
    write_scan(files[3], seed=3, affine=affine)
    second = prepared(files, tmp_path / "cache")
    assert first.facts["sha256"].tolist() == second.facts["sha256"].tolist()
    one, other = (np.load(each.folder / VOLUMES) for each in (first, second))
    assert not np.array_equal(one[3], other[3])
    np.testing.assert_array_equal(np.delete(one, 3, 0), np.delete(other, 3, 0))


def test_a_volume_that_rotted_is_found_and_made_again(write_scan, tmp_path: Path) -> None:
    files = scans(tmp_path / "scans", write_scan)
    good = contents(prepared(files, tmp_path / "cache").folder)
    folder = prepared(files, tmp_path / "cache").folder
    stored = np.load(folder / VOLUMES, mmap_mode="r+")
    stored[5, 20, 20, 20] += 1
    stored.flush()
    assert contents(prepared(files, tmp_path / "cache").folder) != good
    assert contents(prepared(files, tmp_path / "cache", verify=True).folder) == good


@pytest.mark.parametrize(
    "change",
    [{"zscore": "brain"}, {"crop": "brain"}, {"storage": "float32"}, {"grid": "mni-2mm"}],
)
def test_other_settings_are_another_cache(change: dict, write_scan, tmp_path: Path) -> None:
    files = scans(tmp_path / "scans", write_scan, n=3)
    one = prepared(files, tmp_path / "cache")
    conform = Conform(**{"grid": "mni-4mm", "zscore": "whole", "space": "mni", **change})
    other = prepared(files, tmp_path / "cache", conform)
    assert one.folder != other.folder
    found = np.load(other.folder / VOLUMES)
    assert found.shape == (3, *conform.target.shape)
    assert found.dtype == conform.dtype


def test_reading_alone_says_the_same_as_preparing(write_scan, tmp_path: Path) -> None:
    files = scans(tmp_path / "scans", write_scan, n=4)
    files[2].write_bytes(b"")
    cached = prepared(files, tmp_path / "cache").facts.set_index("row")
    for number, row in read_all(
        [(i, [file]) for i, file in enumerate(files)], Job(CONFORM, pictures=True)
    ):
        picture = row.pop("picture")
        assert {name: str(value) for name, value in row.items()} == {
            name: str(cached.loc[str(number), name]).replace("nan", "").removesuffix(".0")
            for name in row
        }
        assert (picture is None) == (row["reason"] != "")


def test_a_worker_that_is_killed_is_a_sentence(write_scan, tmp_path: Path, monkeypatch) -> None:
    files = scans(tmp_path / "scans", write_scan, n=4)
    reading = read_all([(i, [file]) for i, file in enumerate(files * 500)], Job(CONFORM), workers=2)
    next(reading)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        worker.kill()
    with pytest.raises(UserError, match="A process that read scans was killed"):
        for _ in reading:
            pass


def test_a_cache_is_complete_or_absent(write_scan, tmp_path: Path) -> None:
    files = scans(tmp_path / "scans", write_scan, n=3)
    folder = tmp_path / "cache" / "cohorts" / "c"
    assert complete(files, CONFORM, folder, tmp_path / "cache") is None
    made = prepared(files, tmp_path / "cache")
    found = complete(files, CONFORM, folder, tmp_path / "cache")
    assert found is not None
    assert found.facts.equals(made.facts)
    shutil.rmtree(made.folder)
    assert complete(files, CONFORM, folder, tmp_path / "cache") is None
