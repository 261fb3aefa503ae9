"""Which units run again after their worker has ended without an outcome, and how many may fail."""

import pytest

from bench.execute.driver import HALVINGS, RETRIES
from bench.store import schema
from bench.store.store import Store
from tests.cli.running import ran

PLUGIN = """
import os, signal
from pathlib import Path
from registry import model

def attempt():
    # Count the attempts in a file, because each is a process of its own.
    file = Path(os.environ["ATTEMPTS"])
    file.write_text(file.read_text() + "x" if file.exists() else "x")
    return len(file.read_text())

class Model:
    def fit(self, volumes, targets):
        n = attempt()
        if n <= int(os.environ["DEATHS"]):
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
        return self
    def predict_proba(self, volumes):
        import numpy as np
        return np.full((len(volumes), 2), 0.5)

@model("mortal", kind="estimator")
def build(params, task, shape):
    return Model()

@model("leaving", kind="estimator")
def build_leaving(params, task, shape):
    os._exit(3)

@model("failing", kind="estimator")
def build_failing(params, task, shape):
    raise RuntimeError("no such luck")
"""
GRID = (
    *("run", "--data", "synthetic-ad-4mm", "--trials", "0", "--train-sizes", "16"),
    *("--plugins", "mortal.py", "--db", "x.db", "--model"),
)


@pytest.fixture
def run(bench, tmp_path):
    (tmp_path / "mortal.py").write_text(PLUGIN)

    def run(*words, deaths=0, signal="SIGKILL"):
        return bench(
            *GRID, *words, ATTEMPTS=str(tmp_path / "attempts"), DEATHS=str(deaths), SIGNAL=signal
        )

    return run


def states(folder):
    store = Store.for_reading(folder / "x.db")
    found = list(store.frame(schema.attempts)["state"])
    store.close()
    return found


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_a_lost_worker_is_replaced(run, tmp_path, signal):
    out = ran(run("mortal", "--seeds", "1", deaths=RETRIES, signal=signal))
    assert out.count("it is run again") == RETRIES
    assert states(tmp_path) == ["killed"] * RETRIES + ["done"]


def test_but_not_for_ever(run, tmp_path):
    done = run("mortal", "--seeds", "1", deaths=RETRIES + 1)
    assert done.returncode == 1
    assert states(tmp_path) == ["killed"] * (RETRIES + 1)
    assert "1 trial failed or interrupted" in done.stdout


@pytest.mark.parametrize(("model", "signal"), [("leaving", "SIGKILL"), ("mortal", "SIGSEGV")])
def test_a_unit_that_ends_its_own_worker_is_not_run_again(run, tmp_path, model, signal):
    done = run(model, "--seeds", "1", deaths=1, signal=signal)
    assert done.returncode == 1
    assert states(tmp_path) == ["killed"]


def test_no_more_units_start_after_too_many_failures(run, tmp_path):
    done = run("failing", "--seeds", "9", "--max-failures", "2", "--workers", "1")
    assert done.returncode == 1
    assert "3 trials failed, more than --max-failures allows" in done.stdout
    # One more may have been running already.
    assert 3 <= len(states(tmp_path)) <= 4
    done = run("failing", "--seeds", "9", "--max-failures", "100%", "--reuse", "retry-failed")
    assert "9 trials failed" in done.stdout
    assert "--max-failures allows" not in done.stdout


EXECUTOR = """
import uuid
from concurrent.futures import Future
from datetime import UTC, datetime
from bench.execute.base import WorkerExit
from bench.execute.local import LocalExecutor
from registry import executor

@executor("tight")
class Tight(LocalExecutor):
    def submit(self, unit):
        if unit.halvings >= 2:
            return super().submit(unit)
        now, future = datetime.now(UTC), Future()
        future.set_result(WorkerExit(uuid.uuid4().hex, now, now, -9, cause="memory"))
        return future
"""


def test_after_memory_ran_out_a_network_takes_fewer_volumes_at_a_time(bench, tmp_path):
    (tmp_path / "tight.py").write_text(EXECUTOR)
    words = ("--executor", "tight", "--plugins", "tight.py", "--epochs", "1", "--threads", "1")
    grid = [word for word in GRID if word not in ("--plugins", "mortal.py")]
    settings = ("--set", "batch_size=8", "--set", "stride=8", "--seeds", "1")
    ran(bench(*grid, "slice2d-own", *words, *settings))
    store = Store.for_reading(tmp_path / "x.db")
    (timings,) = store.frame(schema.trials)["timings"]
    store.close()
    assert timings["micro_batch"] == 2
    assert states(tmp_path) == ["killed", "killed", "done"]
    # Whatever memory an estimator needs, it needs again.
    done = bench(*grid, "linear-voxels", *words[:4], "--seeds", "1")
    assert done.returncode == 1
    assert states(tmp_path)[3:] == ["killed"]
    assert HALVINGS >= 2
