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


class Silent:
    """Remembers how many units have ended."""

    def __init__(self):
        self.n = 0

    def started(self, key, label):
        pass

    def ended(self, key, label, state, seconds, error):
        self.n += 1

    def warn(self, words):
        raise AssertionError(words)


@pytest.fixture
def run(cache, tmp_path):
    """Return a function that runs a plan of trials with one worker."""
    store = Store.for_writing(tmp_path / "x.db")

    def start(stopping=lambda n: False):
        cohort = open_cohort(cohort_request("synthetic-ad-4mm", {}), cache)
        request = RunRequest(["prior"], SEEDS, sizes=[24], trials=0, cache=cache)
        plan = make_plan(request, cohort, store, announce=print)
        command = record(store, [plan], SEEDS, ["bench"])
        settings = ExecutionSettings(
            store.database, cache, command, ["bench"], "cpu", threads=1, workers=1
        )
        executor, observer = Counting(1), Silent()
        try:
            driver = Driver(store, executor, settings, observer, lambda: stopping(observer.n))
            return driver.run([plan]), executor
        finally:
            executor.shutdown()

    yield start, store
    store.close()


@pytest.mark.slow
def test_units_are_submitted_as_others_end(run):
    start, store = run
    summary, executor = start()
    assert (summary.done, summary.failed) == (len(SEEDS), [])
    assert 1 <= executor.most <= 2
    assert store.frame(schema.trials)["seed"].tolist() == list(SEEDS)


@pytest.mark.slow
def test_units_that_wait_are_not_submitted_after_a_stop(run):
    start, store = run
    summary, _ = start(stopping=lambda n: n >= 3)
    assert summary.stopped
    assert 3 <= summary.done <= 5
    assert len(store.frame(schema.trials)) == summary.done
    summary, _ = start()
    assert sorted(store.frame(schema.trials)["seed"]) == list(SEEDS)
    assert not summary.stopped
