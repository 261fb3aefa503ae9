"""Killed drivers and workers: results are kept, and those after resuming are identical."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bench.store import schema
from bench.store.store import Store
from tests.execute.processes import log_of, parents

WORDS = [
    *("run", "--data", "synthetic-ad-4mm", "--model", "slice2d-own,fewslice-scratch"),
    *(
        "--encoder",
        "own",
        "--set",
        "stride=8",
        "--train-sizes",
        "16",
        "--seeds",
        "2",
        "--trials",
        "2",
    ),
    *("--epochs", "2", "--workers", "2", "--threads", "1", "--db"),
]
UNITS = 2 + 4
MOMENTS = int(os.environ.get("BENCH_FAULTS", "4"))
"""Number of random moments at which a process is killed."""


def start(folder: Path, environment: dict, words=WORDS, name="x.db") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *words, name],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=600)
    return out


def wait_for_units(process: subprocess.Popen, number: int) -> None:
    """Read the output of the driver until `number` units have ended."""
    for line in process.stdout:
        if line.startswith(f"[{number}/"):
            return
    raise AssertionError("the driver ended before that")


def workers_of(driver: int) -> list[int]:
    """Return the processes that run units, which have files in the work directory open."""
    found = parents()
    return [
        process
        for process, parent in found.items()
        if found.get(parent) == driver and log_of(process).endswith("log.txt")
    ]


def wait_until_ended(workers: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/fd/1").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its driver"
        time.sleep(0.1)


def states_of_attempts(file: Path) -> dict[str, list[str]]:
    """Return the states of the attempts of each unit."""
    if not file.exists():
        return {}
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        try:
            rows = database.execute("SELECT unit, state FROM bench_attempts").fetchall()
        except sqlite3.OperationalError:
            # The driver was killed before it had created the tables.
            return {}
    found: dict[str, list[str]] = {}
    for unit, state in rows:
        found.setdefault(unit, []).append(state)
    return found


def results(file: Path) -> dict:
    """Return everything that must be bitwise identical: settings, predictions, metrics, trials."""
    store = Store.for_reading(file)
    trials = store.frame(schema.trials)
    assert set(trials["state"]) == {"done"}
    predictions = store.predictions(trials["key"], "test")
    validation = store.predictions(trials["key"], "validation")
    tuning = store.frame(schema.tuning_trials).drop(columns="seconds")
    history = store.frame(schema.history).drop(columns="seconds")
    store.close()
    return {
        "params": dict(zip(trials["key"], trials["params"], strict=True)),
        "test": {key: found.values.tobytes() for key, found in predictions.items()},
        "validation": {key: found.values.tobytes() for key, found in validation.items()},
        "tuning": tuning.sort_values(["study", "number"]).to_json(orient="values"),
        "history": history.sort_values(["trial", "epoch"]).to_json(orient="values"),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, {**os.environ, "BENCH_CACHE": str(cache)})
    out = finish(process)
    assert process.returncode == 0, out
    found = results(folder / "x.db")
    assert len(found["test"]) == 4
    assert not (folder / "x.db.work").exists() or not list((folder / "x.db.work").iterdir())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_driver_takes_its_workers_along_and_starting_again_gives_the_same(
    tmp_path, environment, undisturbed, after
):
    process = start(tmp_path, environment)
    wait_for_units(process, after)
    time.sleep(0.5)
    workers = workers_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until_ended(workers)
    again = start(tmp_path, environment)
    out = finish(again)
    assert again.returncode == 0, out
    assert results(tmp_path / "x.db") == undisturbed
    nothing = start(tmp_path, environment)
    assert "Nothing to run" in finish(nothing)
    assert nothing.returncode == 0


@pytest.mark.slow
def test_a_driver_killed_at_random_moments_ends_in_the_same_bits(
    tmp_path, environment, undisturbed
):
    """No worker outlives it, and no unit runs again after its outcome was written."""
    rng = random.Random(3)
    kills = 0
    folder = tmp_path / "x.db.work"
    finished: set[str] = set()
    while kills < MOMENTS:
        process = start(tmp_path, environment)
        try:
            process.wait(timeout=rng.uniform(1, 15))
        except subprocess.TimeoutExpired:
            kills += 1
        workers = workers_of(process.pid)
        process.kill()
        process.communicate()
        wait_until_ended(workers)
        left = {found.parent.name for found in folder.glob("*/outcome")}
        attempts = states_of_attempts(tmp_path / "x.db")
        finished |= left | {unit for unit, states in attempts.items() if "done" in states}
        # What was finished is stored or waits for the next driver.
        assert finished == left | {unit for unit, states in attempts.items() if "done" in states}
        if process.returncode == 0:
            assert results(tmp_path / "x.db") == undisturbed
            for file in tmp_path.glob("x.db*"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
            finished.clear()
    assert finish(start(tmp_path, environment))
    assert results(tmp_path / "x.db") == undisturbed
    assert [*states_of_attempts(tmp_path / "x.db").values()] == [["done"]] * UNITS
    print(f"{kills} drivers killed")


@pytest.mark.slow
def test_a_unit_whose_worker_was_killed_runs_again(tmp_path, environment, undisturbed):
    process = start(tmp_path, environment)
    deadline = time.monotonic() + 60
    while not (workers := workers_of(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(workers[0], signal.SIGKILL)
    out = finish(process)
    assert process.returncode == 0, out
    assert "killed by signal 9, possibly by the system because memory ran out; it is run again" in (
        out
    )
    store = Store.for_reading(tmp_path / "x.db")
    attempts = store.frame(schema.attempts)
    assert sorted(attempts["state"]) == ["done"] * UNITS + ["killed"]
    store.close()
    assert results(tmp_path / "x.db") == undisturbed


@pytest.mark.slow
def test_ctrl_c_finishes_what_runs_and_says_how_to_go_on(tmp_path, environment, undisturbed):
    process = start(tmp_path, environment)
    wait_for_units(process, 1)
    os.killpg(process.pid, signal.SIGINT)
    out = finish(process)
    assert process.returncode == 1, out
    assert "Waiting for running trials" in out
    assert "To resume, run the same command again" in out
    store = Store.for_reading(tmp_path / "x.db")
    assert not list(store.frame(schema.attempts).query("state != 'done'")["unit"])
    store.close()
    again = start(tmp_path, environment)
    finish(again)
    assert results(tmp_path / "x.db") == undisturbed


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once_and_loses_only_what_ran(tmp_path, environment, undisturbed):
    process = start(tmp_path, environment)
    wait_for_units(process, 1)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    finish(process)
    assert process.returncode == 1
    assert time.monotonic() - started < 20
    again = start(tmp_path, environment)
    finish(again)
    assert results(tmp_path / "x.db") == undisturbed


@pytest.mark.slow
def test_the_number_of_workers_changes_no_bit(tmp_path, environment, undisturbed):
    words = [
        word if word != "2" or WORDS[i - 1] != "--workers" else "1" for i, word in enumerate(WORDS)
    ]
    process = start(tmp_path, environment, words)
    out = finish(process)
    assert process.returncode == 0, out
    assert results(tmp_path / "x.db") == undisturbed


def test_bitwise_means_bitwise():
    """The comparison above detects a difference of one unit in the last place."""
    one = np.array([0.1]).tobytes()
    assert one != np.nextafter(np.array([0.1]), 1).tobytes()


def test_a_full_disk_is_one_sentence_and_loses_nothing(bench, tmp_path):
    """A file system that becomes full after a few trials."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", small])
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        words = [
            *(
                "run",
                "--model",
                "prior,linear-voxels",
                "--data",
                "synthetic-ad-4mm",
                "--seeds",
                "10",
            ),
            *("--train-sizes", "16,24", "--trials", "0", "--db", small / "x.db"),
        ]
        done = bench(*words)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "run the same command again to store them" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        done = bench(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(results(small / "x.db")["test"]) == 40
    finally:
        subprocess.run(["umount", "-l", small], check=True)
