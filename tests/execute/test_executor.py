"""Requirements for all executors, each of which runs the tests with the fixture `start`."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from bench.execute.driver import describe_exit
from bench.execute.local import LocalExecutor
from bench.execute.ray import RayExecutor
from bench.execute.slurm import SlurmExecutor
from bench.execute.unit import OUTCOME, publish
from bench.unit import Environment, Layout, Outcome, Unit
from tests.execute.processes import workers_in


@pytest.fixture(
    params=["local", *(pytest.param(name, marks=pytest.mark.slow) for name in ("slurm", "ray"))]
)
def start(request, tmp_path):
    """Return a function that starts an executor, which is stopped after the test."""
    started = []
    remote = {"options": {}, "work": tmp_path / "work", "cache": tmp_path / "cache", "say": print}
    if request.param == "slurm":
        request.getfixturevalue("slurm")
        build, more = SlurmExecutor, remote
    elif request.param == "ray":
        address = request.getfixturevalue("ray_nodes").address
        build, more = RayExecutor, {**remote, "options": {"address": address}}
    else:
        build, more = LocalExecutor, {}

    def new(workers, on_progress=lambda *_: None):
        started.append(build(workers, gpus=0, preload=[], on_progress=on_progress, **more))
        return started[-1]

    yield new
    for each in started:
        each.shutdown()


@pytest.fixture
def executor(start):
    """Each executor with two workers."""
    return start(2)


def wait_for(ready, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_a_unit_ends_with_an_outcome_of_its_own_process(executor, make, tmp_path):
    ended = executor.submit(make("prior", "a" * 16)).result(timeout=60)
    assert ended.exit_code == 0
    assert ended.finished > ended.started
    outcome = Outcome.read(tmp_path / "work" / ("a" * 16) / OUTCOME)
    assert outcome.state == "done"
    assert outcome.attempt == ended.attempt
    np.testing.assert_array_equal(outcome.predictions["test"], [[65.0], [65.0]])


def test_units_run_side_by_side_and_no_more_than_there_are_slots(executor, make, tmp_path):
    # The third needs other resources.
    units = [replace(make("slow", name * 16), network=name == "c") for name in "abc"]
    futures = [executor.submit(unit) for unit in units]
    folders = [tmp_path / "work" / (name * 16) for name in "abc"]
    wait_for(lambda: sum(bool(workers_in(folder)) for folder in folders) == 2)
    time.sleep(0.5)
    assert not workers_in(folders[2])
    executor.cancel()
    assert futures[2].cancelled()
    assert not futures[0].done()
    assert not futures[1].done()
    executor.kill()
    for future in futures[:2]:
        assert future.result(timeout=30).exit_code == -signal.SIGKILL


def test_a_unit_that_raises_leaves_a_failed_outcome_with_its_log(executor, make, tmp_path):
    ended = executor.submit(make("failing", "d" * 16)).result(timeout=60)
    assert ended.exit_code == 0
    folder = tmp_path / "work" / ("d" * 16) / OUTCOME
    outcome = Outcome.read(folder)
    assert (outcome.state, outcome.error) == ("failed", "RuntimeError: no such luck")
    assert "Traceback" in (folder / "log.txt").read_text()


def test_a_worker_killed_from_outside_is_told_by_its_exit_code(executor, make, tmp_path):
    future = executor.submit(make("slow", "e" * 16))
    folder = tmp_path / "work" / ("e" * 16)
    os.kill(wait_for(lambda: workers_in(folder))[0], signal.SIGKILL)
    ended = future.result(timeout=30)
    assert ended.exit_code == -signal.SIGKILL
    assert (folder / f"attempt-{ended.attempt}").is_dir()
    assert not (folder / OUTCOME).exists()


def test_an_executor_that_is_shut_down_leaves_no_process(executor, make, tmp_path):
    future = executor.submit(make("slow", "f" * 16))
    folder = tmp_path / "work" / ("f" * 16)
    wait_for(lambda: workers_in(folder))
    thread = threading.Thread(target=executor.shutdown)
    thread.start()
    assert future.result(timeout=30).exit_code == -signal.SIGKILL
    thread.join()
    assert not workers_in(folder)
    assert not {"slurm", "ray"} & {file.name for file in (tmp_path / "work").iterdir()}


@pytest.mark.parametrize("start", [pytest.param("slurm", marks=pytest.mark.slow)], indirect=True)
def test_units_of_a_detached_executor_continue_and_the_next_one_finds_them(start, make, tmp_path):
    first = start(2)
    futures = [first.submit(make(name, name[0] * 16)) for name in ("prior", "slow")]
    first.detach()
    assert all(future.cancelled() for future in futures)
    first.shutdown()
    slow = tmp_path / "work" / ("s" * 16)
    wait_for(lambda: workers_in(slow))
    assert first.submit(make("prior", "b" * 16)).cancelled()
    second = start(2)
    again = [second.submit(make(name, name[0] * 16)) for name in ("prior", "slow")]
    assert again[0].result(timeout=60).exit_code == 0
    assert len(workers_in(slow)) == 1
    second.kill()
    assert again[1].result(timeout=30).exit_code == -signal.SIGKILL
    assert len(list(slow.glob("attempt-*"))) == 1


def test_the_progress_of_a_unit_is_reported(start, make):
    said = []
    start(1, lambda *words: said.append(words)).submit(make("slow", "g" * 16))
    assert wait_for(lambda: said) == [("g" * 16, "starting", 0.0)]


def test_of_two_attempts_the_first_published_wins_and_the_other_is_deleted(tmp_path):
    for name in ("attempt-1", "attempt-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "outcome.json").write_text(name)
    publish(tmp_path / "attempt-1")
    publish(tmp_path / "attempt-2")
    assert [folder.name for folder in tmp_path.iterdir()] == [OUTCOME]
    assert (tmp_path / OUTCOME / "outcome.json").read_text() == "attempt-1"


def test_a_unit_travels_as_json_without_loss(make):
    unit = make("prior", "a" * 16)
    assert Unit.from_json(unit.to_json()) == unit


NETWORK = {
    **{"threads": 2, "torch": "2.14.0", "timm": "1.0.20", "device": "cpu", "gpu": None},
    **{"machine": "x86_64", "tf32": None, "deterministic": True},
    "layout": {"memory_format": "contiguous_format", "mode": ""},
}
ESTIMATOR = {"threads": 1, "scikit-learn": "1.8.0", "device": "cpu", "machine": "x86_64"}


@pytest.mark.parametrize("stored", [NETWORK, ESTIMATOR, {"threads": 1}])
def test_an_environment_is_stored_under_the_names_it_always_had(stored):
    assert Environment.from_plain(stored).plain() == stored


def test_an_outcome_that_an_older_driver_left_is_read(tmp_path):
    old = {
        **{"kind": "trial", "key": "k", "started": 1.0, "finished": 3.0, "attempt": "a"},
        **{"environment": NETWORK, "notes": ["a note"], "state": "done", "error": ""},
        **{"best_epoch": 1, "epochs": 2, "timings": {"train": 1.5, "peak_rss_mb": 300}},
        "history": [{"epoch": 1, "train_loss": 1.0, "validation": 2.0, "seconds": 0.1}],
    }
    (tmp_path / "outcome.json").write_text(json.dumps(old))
    np.savez(tmp_path / "predictions.npz", validation=[[1.0]], test=[[2.0]])
    found = Outcome.read(tmp_path)
    assert {name: getattr(found, name) for name in old if name != "environment"} == {
        name: value for name, value in old.items() if name != "environment"
    }
    assert found.environment.layout == Layout("contiguous_format")
    assert found.predictions["test"].tolist() == [[2.0]]
    again = tmp_path / "again"
    again.mkdir()
    found.write(again)
    assert json.loads((again / "outcome.json").read_text()) == {**old, "best": None, "trials": []}


def test_an_outcome_with_what_this_version_does_not_know_is_refused(tmp_path):
    """The driver then removes it and runs the unit again."""
    new = {"kind": "study", "key": "k", "started": 1.0, "finished": 3.0, "environment": ESTIMATOR}
    (tmp_path / "outcome.json").write_text(json.dumps({**new, "state": "done", "later": 1}))
    with pytest.raises(TypeError, match="later"):
        Outcome.read(tmp_path)


def test_a_unit_of_an_estimator_imports_no_torch(make, tmp_path):
    (tmp_path / "unit.json").write_text(make("linear-voxels", "a" * 16).to_json())
    code = (
        "import sys; from pathlib import Path; from bench.unit import Unit\n"
        "from bench.execute.unit import run\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "unit = Unit.from_json((folder / 'unit.json').read_text())\n"
        "unit.params.update(block=2, n_components=3, penalty=1.0)\n"
        "outcome = run(unit, folder, print)\n"
        "assert outcome.state == 'done', outcome\n"
        "assert 'sklearn' in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_parallel_workers_use_different_gpus(make, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    executor = LocalExecutor(2, gpus=2, preload=[], on_progress=lambda *_: None)
    for future in [executor.submit(make("visible", name * 16)) for name in "ab"]:
        assert future.result(timeout=60).exit_code == 0
    executor.shutdown()
    folders = [tmp_path / "work" / (name * 16) / OUTCOME for name in "ab"]
    errors = {Outcome.read(folder).error for folder in folders}
    assert errors == {"RuntimeError: 3", "RuntimeError: 5"}


@pytest.mark.parametrize("start", ["local"], indirect=True)
def test_a_worker_that_dies_before_it_has_a_log_leaves_its_words(executor, make, tmp_path):
    (tmp_path / "work").write_text("a file where the units' folders should be")
    ended = executor.submit(make("prior", "a" * 16)).result(timeout=60)
    assert ended.exit_code == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("NotADirectoryError: ")
    assert describe_exit(1, ended.stderr).endswith(f"without an outcome: {last}")


def test_the_words_of_a_unit_with_a_log_are_its_own(executor, make, tmp_path):
    ended = executor.submit(make("failing", "b" * 16)).result(timeout=60)
    assert ended.stderr == ""
