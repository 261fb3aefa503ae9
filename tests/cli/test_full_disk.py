"""A full disk: a clear message, no lost results, and the same command resumes."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FULL = """
import os
from registry import model

@model("hungry", kind="estimator")
def build(params, task, shape):
    class Hungry:
        def fit(self, volumes, targets):
            if os.environ.get("FULL"):
                with open("/dev/full", "w") as stream:
                    stream.write("x")
            self.share = targets.mean()
            return self
        def predict_proba(self, volumes):
            import numpy as np
            return np.tile([1 - self.share, self.share], (len(volumes), 1))
    return Hungry()
"""
RUN = [
    *("run", "--data", "synthetic-ad-4mm", "--trials", "0", "--train-sizes", "8"),
    *("--threads", "1"),
]


def states(file):
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return sorted(connection.execute("SELECT arm, state FROM bench_trials").fetchall())


def assert_full(done, *words):
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    for word in words:
        assert word in line


def test_a_unit_that_finds_a_full_disk_has_not_failed(bench, tmp_path):
    (tmp_path / "hungry.py").write_text(FULL)
    words = [*RUN, "--plugins", "hungry.py", "--model", "prior,hungry", "--seeds", "2"]
    done = bench(*words, FULL="1")
    assert_full(done, "No space left", "same command again to resume")
    assert {state for _, state in states(tmp_path / "results.db")} == {"done"}
    done = bench(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(states(tmp_path / "results.db")) == 4
    assert sorted(file.name for file in tmp_path.glob("results.db*")) == [
        "results.db",
        "results.db.lock",
    ]


@pytest.fixture
def small(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(options).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file, spare):
    """Write a file that leaves only `spare` bytes of space."""
    with open(file, "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    os.truncate(file, file.stat().st_size - spare)


def test_a_database_without_room_keeps_what_is_finished(bench, small):
    words = [*RUN, "--model", "prior", "--db", small / "x.db"]
    assert bench(*words, "--seeds", "1").returncode == 0
    fill(small / "filler", spare=80_000)
    assert_full(bench(*words, "--seeds", "6"), "x.db", "full", "the same command")
    assert {state for _, state in states(small / "x.db")} == {"done"}
    (small / "filler").unlink()
    done = bench(*words, "--seeds", "6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(states(small / "x.db")) == 6
    assert sorted(file.name for file in small.iterdir()) == ["x.db", "x.db.lock"]


@pytest.mark.parametrize(
    "words",
    [
        ("report", "--format", "html", "--out", "small/out.html"),
        ("plot", "learning-curves", "--out", "small/out.png"),
        ("data", "check", "synthetic-ad-4mm", "--html", "small/out.html"),
        ("data", "manifest", "synthetic-ad-4mm", "--out", "small/out.csv"),
        ("data", "preview", "synthetic-ad-4mm", "--out", "small/out.png"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_an_output_without_room_leaves_the_earlier_file(words, bench, small, tmp_path):
    file = tmp_path / words[-1]
    file.write_text("earlier")
    fill(small / "filler", spare=0)
    assert_full(bench(*words, BENCH_DB=str(ROOT / "results.db")), "No space left on device")
    assert file.read_text() == "earlier"
    assert sorted(entry.name for entry in small.iterdir()) == ["filler", file.name]


def test_an_output_may_be_a_link_or_a_device(bench, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "out.md").symlink_to("there/real.md")
    words = ("report", "--db", ROOT / "results.db", "--format", "markdown", "--out")
    assert bench(*words, "out.md").returncode == 0
    assert (tmp_path / "out.md").is_symlink()
    text = (tmp_path / "there" / "real.md").read_text()
    assert text.startswith("#")
    assert bench(*words, "/dev/stdout").stdout.startswith(text[:200])
