import numpy as np
import pytest

from bench.records import DatasetRecord, SubjectRecord
from bench.spec import Arm, Component, StudySpec, TrialSpec
from bench.store.store import Predictions, Store, StudyResult, TrialResult
from bench.unit import TuningTrial
from registry.cards import Task

FINGERPRINT = "f" * 16


def make_arm(name="m", trials=None):
    return Arm(
        model=Component(name, 1),
        encoder=None,
        fingerprint=FINGERPRINT,
        task=Task("age", "regression"),
        params={"lr": 0.1},
        space={},
        trials=trials,
        tune=None,
        precision="fp32",
    )


@pytest.fixture
def store(tmp_path):
    found = Store.for_writing(tmp_path / "store.db")
    found.add_dataset(
        DatasetRecord(
            fingerprint=FINGERPRINT,
            name="cohort",
            manifest_digest="m",
            split_digest="s",
            target="age",
            kind="regression",
            classes=[],
            shape=[4, 4, 4],
            settings={},
            flow=[],
            n_pool=4,
            n_validation=2,
            n_test=2,
            subjects=[SubjectRecord(i, "test", 60.0 + i) for i in range(2)],
        )
    )
    yield found
    found.close()


def make_trial(arm, seed=0, state="done", lr=0.1, study=None, error=""):
    values = np.array([[60.5], [61.25]]) + seed
    return TrialResult(
        spec=TrialSpec(arm, 4, seed, study),
        state=state,
        params={"lr": lr},
        error=error,
        best_epoch=1,
        epochs=2,
        seconds=1.5,
        environment={"host": "here", "threads": 2},
        metrics={("test", "mae"): (0.375, ""), ("test", "r2"): (float("nan"), "constant")},
        predictions={"test": Predictions(np.array([0, 1], dtype=np.int32), values)},
        history=[{"epoch": 1, "train_loss": 1.0, "validation": 2.0, "seconds": 0.1}],
    )


def make_study(arm, state="done", best=None):
    distribution = (
        '{"name": "FloatDistribution", "attributes": '
        '{"step": null, "low": 0.01, "high": 1.0, "log": false}}'
    )
    trials = [
        TuningTrial(
            0, "complete", {"lr": 0.1}, {"lr": distribution}, 1.0, {"1": 1.5, "2": 1.0}, 0.5
        ),
        TuningTrial(1, "fail", {"lr": 0.9}, {"lr": distribution}, None, {}, 0.5),
    ]
    return StudyResult(
        spec=StudySpec(arm, 4, None),
        state=state,
        best=best or {"lr": 0.1},
        error="",
        trials=trials,
        seconds=1.0,
        environment={"host": "here", "threads": 2},
    )
