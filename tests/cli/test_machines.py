"""Machines that differ from ours: folders, environments and terminals that users have."""

import pytest

from bench.data.synthetic import Spec, write_cohort

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


def ran(done, code=0):
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


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
