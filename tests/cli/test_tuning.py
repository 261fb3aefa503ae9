"""Tuning: messages about failed trials, and replacement of stored studies."""

from bench.store import schema
from bench.store.store import Store
from tests.cli.running import ran

MODEL = '''
import numpy as np
from pathlib import Path
from registry import model
from registry.cards import Int, Option

@model("fragile", kind="estimator", options={"size": Option(1, "size", low=1, high=100)},
       space={"size": Int(1, 100)})
def build(params, task, shape):
    """The mean, where its size is not too large."""
    return Fragile(params["size"])

class Fragile:
    def __init__(self, size):
        self.size = size
    def fit(self, volumes, targets):
        if Path(__file__).with_name("broken").exists():
            raise RuntimeError("broken today")
        self.mean = targets.mean() + self.size / 100
        return self
    def predict(self, volumes):
        return np.full(len(volumes), np.inf if self.size > 20 else self.mean)
'''
RUN = [
    *("run", "--model", "fragile", "--plugins", "fragile.py", "--data", "synthetic-age-4mm"),
    *("--train-sizes", "16", "--trials", "6", "--threads", "1"),
]


def told(done, code=0):
    return " ".join(ran(done, code).split())


def states(folder):
    store = Store.for_reading(folder / "results.db")
    found = {
        table.name.removeprefix("bench_"): list(store.frame(table)["state"])
        for table in (schema.studies, schema.tuning_trials, schema.trials)
    }
    store.close()
    return found


def test_an_infinite_score_fails_its_trial_and_a_failed_study_leaves_nothing_old(bench, tmp_path):
    (tmp_path / "fragile.py").write_text(MODEL)
    why = "6 tuning trials failed: diverged: a validation prediction is not finite (trial"
    assert why in told(bench(*RUN, "--seeds", "2"))
    assert why in told(bench("status"))
    found = states(tmp_path)
    assert found["studies"] == ["done"]
    assert set(found["tuning_trials"]) == {"complete", "fail"}
    assert found["trials"] == ["done", "done"]
    (tmp_path / "broken").touch()
    out = told(bench(*RUN, "--seeds", "1", "--reuse", "no"), code=1)
    assert "none of 6 tuning trials completed: 6 of 6 tuning trials failed: RuntimeErr" in out
    assert "1 stored trial of other seeds was removed" in out
    found = states(tmp_path)
    assert found["studies"] == ["failed"]
    assert found["tuning_trials"] == ["fail"] * 6
    assert found["trials"] == ["failed"]
    assert "broken today" in told(bench("status"))
