"""Directories, environments and terminals that users may have."""

import contextlib
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.data.synthetic import Spec, write_cohort
from bench.report.render.marks import BEST
from tests.cli.running import ran

RUN = [
    *("run", "--data", "synthetic-ad-4mm", "--train-sizes", "24", "--seeds", "1"),
    *("--trials", "0", "--db", "x.db"),
]
SHADOW = "raise AttributeError('the file of a user was imported')\n"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A BIDS folder of 12 small scans with ages."""
    return write_cohort(
        Spec("people", "age", voxel_mm=4, n_subjects=12), tmp_path_factory.mktemp("p")
    )


def test_files_of_the_working_directory_are_not_taken_for_a_library(bench, tmp_path):
    for name in ("registry", "random", "torch", "numpy", "baselines", "pickle"):
        (tmp_path / f"{name}.py").write_text(SHADOW)
    out = ran(bench(*RUN, "--model", "prior,cnn3d", "--epochs", "1"))
    assert "2 of 2 trials done" in out


@pytest.mark.parametrize("workers", [1, 2])
def test_reading_takes_no_file_of_the_working_directory(bench, tmp_path, people, workers):
    for name in ("registry", "random", "numpy", "threadpoolctl"):
        (tmp_path / f"{name}.py").write_text(SHADOW)
    words = ("data", "check", "bids", "--root", people, "--data-set", "grid=mni-4mm")
    assert "12" in ran(bench(*words, "--target", "age", "--workers", workers))


def test_a_plugin_imports_its_neighbours(bench, tmp_path):
    (tmp_path / "neighbour.py").write_text("MEAN = 0.25\n")
    (tmp_path / "registry.py").write_text(SHADOW)
    (tmp_path / "mine.py").write_text(
        "from registry import model\n\n"
        '@model("mine", kind="estimator")\n'
        "def build(params, task, shape):\n"
        "    import neighbour\n"
        "    import numpy as np\n"
        "    class Mine:\n"
        "        def fit(self, volumes, targets):\n"
        "            return self\n"
        "        def predict_proba(self, volumes):\n"
        "            p = np.full(len(volumes), neighbour.MEAN)\n"
        "            return np.stack([1 - p, p], axis=1)\n"
        "    return Mine()\n"
    )
    out = ran(bench(*RUN, "--model", "mine", "--plugins", "mine.py"))
    assert "1 of 1 trials done" in out


def test_a_long_path_of_temporary_files_holds_no_socket(bench, tmp_path):
    folder = tmp_path / ("t" * 100)
    folder.mkdir()
    out = ran(bench(*RUN, "--model", "prior", TMPDIR=str(folder)))
    assert "1 of 1 trials done" in out


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The shipped results in an otherwise empty directory."""
    return shutil.copy(
        Path(__file__).parents[2] / "results.db", tmp_path_factory.mktemp("stored") / "x.db"
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_lacks_is_replaced(bench, stored, encoding):
    out = ran(bench("report", "--db", stored, PYTHONIOENCODING=encoding))
    assert out.startswith("-----")
    assert "slice2d-imagenet" in out


def test_the_c_locale_shows_everything(bench, stored):
    variables = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert ran(bench("report", "--db", stored, **variables)).isascii()


def test_a_name_that_is_no_text_is_said_and_not_read(bench, tmp_path, people):
    root = shutil.copytree(people, tmp_path / "people")
    file = next(root.glob("sub-*/anat/*.nii.gz"))
    os.rename(file, os.fsencode(file).replace(b"_T1w", b"_acq-M\xfcller_T1w"))
    os.rename(root, os.fsencode(root) + b"-M\xfcnchen")
    words = ("--root", f"{root}-M\udcfcnchen", "--target", "age", "--data-set", "grid=mni-4mm")
    out = ran(bench("data", "manifest", "bids", *words, "--out", "m.csv"))
    assert "Found 12 scans; used: 11 scans" in out
    assert "left out: its path is not UTF-8 text; rename it: 1" in out
    assert "M\\xfcller" in (tmp_path / "m.csv").read_text()


def shell(environment, folder, line):
    """Run a line of bash in which `bench` is available."""
    command = f'bench() {{ {shlex.quote(sys.executable)} -m bench "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_closed_standard_output_is_said_and_ends_nothing(environment, tmp_path, stored):
    done = shell(environment, tmp_path, f"bench report --db {stored} >&-")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "Warning: standard output is closed; nothing can be printed to it.\n"
    line = shlex.join(["bench", *RUN, "--model", "prior"])
    ran(shell(environment, tmp_path, f"{line} >&- 2>&- <&-"))
    assert "prior  1 done" in ran(shell(environment, tmp_path, "bench status --db x.db"))


def test_a_reader_that_stops_reading_is_no_error(environment, tmp_path, stored):
    for format_ in ("terminal", "html"):
        line = f"bench report --db {stored} --format {format_} | head -n 1"
        done = shell(environment, tmp_path, line)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_run_goes_on_when_nobody_reads(environment, tmp_path):
    line = shlex.join(["bench", *RUN, "--model", "linear-voxels", "--seeds", "4"])
    # Ends after the line of the first unit.
    done = shell(environment, tmp_path, f"set -o pipefail; {line} | sed -u '/^.1/q'")
    assert done.stdout.splitlines()[-1].startswith("[1/4]")
    assert done.stderr == "Standard output was closed; the run continues without it.\n"
    assert done.returncode == 0
    status = ran(shell(environment, tmp_path, "bench status --db x.db"))
    assert "linear-voxels  4 done" in status


def test_a_full_disk_behind_standard_output_is_a_sentence(environment, tmp_path, stored):
    done = shell(environment, tmp_path, f"bench report --db {stored} >/dev/full")
    assert done.returncode == 2
    assert done.stderr == "Error: No space left on device\n"


@pytest.mark.parametrize("words", ["list models", "report", "data check bids --root /"])
def test_a_deleted_working_directory_is_a_sentence(environment, tmp_path, words):
    (tmp_path / "gone").mkdir()
    done = shell(environment, tmp_path, f"cd gone; rmdir ../gone; bench {words}")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: The working directory no longer exists; ")


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_the_best_is_marked_on_every_terminal(environment, tmp_path, stored, variables):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "report", "--db", stored],
        cwd=tmp_path,
        env={**environment, **variables, "COLUMNS": "200"},
        stdout=theirs,
    )
    os.close(theirs)
    shown = b""
    # Linux raises EIO when the other end is closed.
    with contextlib.suppress(OSError):
        while part := os.read(ours, 1 << 16):
            shown += part
    os.close(ours)
    assert process.wait() == 0
    assert shown.decode().count(BEST) >= 2


def test_a_user_without_home_and_name_is_told_what_to_set(bench, environment, tmp_path):
    """As in a container that was started with `--user 12345`."""
    become = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    if shutil.which("unshare") is None or subprocess.run([*become, "true"]).returncode != 0:
        pytest.skip("nobody may become another user here")
    bare = {k: v for k, v in environment.items() if k not in ("HOME", "BENCH_CACHE", "USER")}

    def as_stranger(*words, **more):
        return subprocess.run(
            [*become, sys.executable, "-m", "bench", *words],
            cwd=tmp_path,
            env={**bare, **more},
            capture_output=True,
            text=True,
        )

    assert "cnn3d" in ran(as_stranger("list", "models"))
    done = as_stranger(*RUN, "--model", "prior")
    assert done.returncode == 2
    assert "Set BENCH_CACHE" in done.stderr
    assert "Traceback" not in done.stderr
    words = (*RUN, "--model", "prior,slice2d-scratch", "--encoder", "resnet18", "--epochs", "1")
    done = as_stranger(*words, BENCH_CACHE=environment["BENCH_CACHE"])
    assert "2 of 2 trials done" in ran(done)
