"""How the driver passes units to an executor."""

import pytest

from bench.data.cohort import open_cohort
from bench.data.listing import cohort_request
from bench.execute.driver import Driver, record
from bench.execute.local import LocalExecutor
from bench.execute.settings import ExecutionSettings
from bench.plan import RunRequest, make_plan
from bench.store import schema
from bench.store.store import Store
from tests.cli.running import ran

SEEDS = range(8)


class Counting(LocalExecutor):
    """Counts the units that it holds."""

    def __init__(self, workers):
        super().__init__(workers, gpus=0, preload=[], on_progress=lambda *_: None)
        self.held = self.most = 0

    def submit(self, unit):
        future = super().submit(unit)
        self.held += 1
        self.most = max(self.most, self.held)
        future.add_done_callback(self._left)
        return future

    def _left(self, future):
        self.held -= 1


class Observer:
    """Remembers how many units have ended, and what was said."""

    def __init__(self):
        self.n = 0
        self.said = []

    def started(self, key, label):
        pass

    def ended(self, key, label, state, seconds, error):
        self.n += 1

    def warn(self, words):
        self.said.append(words)


@pytest.fixture
def run(cache, tmp_path):
    """Return a function that runs a plan of trials, and their database."""
    store = Store.for_writing(tmp_path / "x.db")

    def start(stopping=lambda n: False, workers=1, memory=None):
        cohort = open_cohort(cohort_request("synthetic-ad-4mm", {}), cache)
        request = RunRequest(["prior"], SEEDS, sizes=[24], trials=0, cache=cache)
        plan = make_plan(request, cohort, store, announce=print)
        command = record(store, [plan], SEEDS, ["bench"])
        settings = ExecutionSettings(
            *(store.database, cache, command, ["bench"], "cpu"),
            threads=1,
            workers=workers,
            memory=memory,
        )
        executor, observer = Counting(workers), Observer()
        try:
            driver = Driver(store, executor, settings, observer, lambda: stopping(observer.n))
            return driver.run([plan]), executor, observer.said
        finally:
            executor.shutdown()

    yield start, store
    store.close()


@pytest.mark.slow
def test_units_are_submitted_as_others_end(run):
    start, store = run
    summary, executor, said = start()
    assert (summary.done, summary.failed, said) == (len(SEEDS), [], [])
    assert 1 <= executor.most <= 2
    assert store.frame(schema.trials)["seed"].tolist() == list(SEEDS)


@pytest.mark.slow
def test_units_that_wait_are_not_submitted_after_a_stop(run):
    start, store = run
    summary, *_ = start(stopping=lambda n: n >= 3)
    assert summary.stopped
    assert 3 <= summary.done <= 5
    assert len(store.frame(schema.trials)) == summary.done
    summary, *_ = start()
    assert sorted(store.frame(schema.trials)["seed"]) == list(SEEDS)
    assert not summary.stopped


@pytest.mark.slow
def test_no_more_units_run_than_fit_into_memory_once_one_has_ended(run):
    start, store = run
    summary, executor, said = start(workers=4, memory=250.0)
    assert summary.done == len(SEEDS)
    # Until the need is known, as many are submitted as were requested.
    assert executor.most == 4
    assert len(said) == 1
    assert said[0].startswith("4 workers need about 0.")
    assert said[0].endswith("0.24 GB are available, so 1 unit runs at a time.")
    needs = [timings["peak_anon_mb"] for timings in store.frame(schema.trials)["timings"]]
    assert max(needs) == store.peaks()[0][1]
    assert 125 < max(needs) < 250


def test_workers_that_would_not_fit_are_not_started(bench):
    words = ("run", "--data", "synthetic-ad-4mm", "--model", "prior", "--train-sizes", "24")
    assert "at a time" not in ran(bench(*words, "--seeds", "1", "--memory", "300M"))
    output = ran(bench(*words, "--seeds", "3", "--workers", "8", "--memory", "300M"))
    assert "8 workers need about 1" in output
    assert " GB of memory, but 0.29 GB are available, so 2 units run at a time." in output
