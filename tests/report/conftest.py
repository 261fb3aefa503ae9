"""SQLite databases with simulated predictions, written in the same way as by the driver."""

import itertools
from datetime import UTC, datetime

import numpy as np
import pytest

from bench.records import DatasetRecord, SubjectRecord
from bench.spec import Arm, Component, TrialSpec
from bench.stats.metrics import compute, metrics_for
from bench.store.store import Attempt, Predictions, Store, TrialResult
from registry.cards import Task

AGE = Task("age", "regression")
DISEASE = Task("diagnosis", "classification", ("CN", "AD"))
STAGES = Task("diagnosis", "classification", ("CN", "MCI", "AD"))


class Bench:
    """A test harness that adds cohorts, arms and runs to one database."""

    def __init__(self, file):
        self.store = Store.for_writing(file)
        self.truth = {}
        self.ids = itertools.count()

    def cohort(self, name="cohort", task=AGE, n_test=40, n_pool=96, **changes):
        fingerprint = f"{len(self.truth):016x}"
        rng = np.random.default_rng(7)
        if task.kind == "regression":
            truth = rng.uniform(50, 80, n_test)
        else:
            truth = np.arange(n_test) % len(task.classes)
        self.truth[fingerprint] = np.asarray(truth, dtype=float)
        row = {
            "fingerprint": fingerprint,
            "name": name,
            "manifest_digest": "m",
            "split_digest": "s",
            "target": task.target,
            "kind": task.kind,
            "classes": list(task.classes),
            "shape": [4, 4, 4],
            "settings": {"grid": "mni-4mm", "space": "mni"},
            "flow": [["no age", 3]],
            "n_pool": n_pool,
            "n_validation": 32,
            "n_test": n_test,
        }
        # Test subjects are not the first ones of the manifest, so indices must be looked up.
        subjects = [SubjectRecord(100 + i, "test", float(value)) for i, value in enumerate(truth)]
        self.store.add_dataset(DatasetRecord(**{**row, **changes}, subjects=subjects))
        return fingerprint

    def arm(self, model, fingerprint="0" * 16, task=AGE, **changes):
        fields = {
            "model": Component(model, 1),
            "encoder": None,
            "fingerprint": fingerprint,
            "task": task,
            "params": {
                "val_size": "proportional",
                "lr": 1e-4,
                "epochs": 20,
                "length": "epochs",
                "select": "loss",
            },
            "space": {},
            "trials": None,
            "tune": None,
            "precision": "fp32",
        }
        return Arm(**{**fields, **changes})

    def estimator(self, model, **changes):
        params = {"val_size": "proportional"}
        return self.arm(model, precision=None, **{"params": params, **changes})

    def ask(self, *arms, sizes=(48,), seeds=range(3), fixed=(), dropped=(), **rest):
        fingerprints = {arm.fingerprint for arm in arms}
        return self.store.add_command(
            list(rest.pop("argv", ("bench", "run"))),
            [(arm, arm.model.name in fixed) for arm in arms],
            sizes={fingerprint: list(sizes) for fingerprint in fingerprints},
            seeds=list(seeds),
            dropped=[list(drop) for drop in dropped],
            **rest,
        )

    def run(self, command, arm, size, seed, *, error=5.0, values=None, failed=""):
        """Store one run; `error` is the spread of its predictions around the truth."""
        spec = TrialSpec(arm, size, seed, None)
        if failed:
            self.store.add_trial(TrialResult(spec, "failed", dict(arm.params), failed), command)
            return spec
        truth = self.truth[arm.fingerprint]
        if values is None:
            values = self.predict(arm.task, truth, error, seed)
        values = np.asarray(values, dtype=float)
        metrics = {
            ("test", name): tuple(compute(name, truth, values))
            for name in metrics_for(arm.task.kind, len(arm.task.classes))
        }
        subjects = np.arange(100, 100 + len(truth), dtype=np.int32)
        self.store.add_trial(
            TrialResult(
                spec=spec,
                state="done",
                params=dict(arm.params),
                best_epoch=2,
                epochs=20,
                seconds=1.0,
                environment={"host": "here", "threads": 1},
                metrics=metrics,
                predictions={"test": Predictions(subjects, values.reshape(len(truth), -1))},
            ),
            command,
        )
        return spec

    def predict(self, task, truth, error, seed):
        """Return predictions with errors of subjects and of runs, like real ones."""
        subject = np.random.default_rng(1).normal(size=len(truth))
        own = np.random.default_rng([2, seed, int(1000 * error)]).normal(size=len(truth))
        noise = error * (0.8 * subject + 0.6 * own) + 0.1 * error * seed
        if task.kind == "regression":
            return truth + noise
        if len(task.classes) == 2:
            return 1 / (1 + np.exp(-(4 * truth - 2 + noise)))
        logits = np.stack([2.0 * (truth == k) + noise * (k + 1) for k in range(3)], axis=1)
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def kill(self, unit, log=""):
        now = datetime.now(UTC)
        number = f"{next(self.ids):032x}"
        self.store.add_attempt(Attempt(number, unit, "trial", "killed", now, now, "signal 9", log))

    def grid(self, arms, sizes=(24, 48, 96), seeds=range(3), errors=(), fixed=(), **rest):
        """Request and run a full grid; arm i has errors[i]."""
        command = self.ask(*arms, sizes=sizes, seeds=seeds, fixed=fixed, **rest)
        spreads = errors or [4.0 + i for i in range(len(arms))]
        for arm, error in zip(arms, spreads, strict=True):
            for size in sizes:
                for seed in seeds:
                    self.run(command, arm, size, seed, error=error * (1 + 12 / size))
        return command


@pytest.fixture
def bench(tmp_path):
    found = Bench(tmp_path / "results.db")
    yield found
    found.store.close()


def table(report, name):
    """Return the table with this name."""
    (found,) = [each for each in report.tables if each.name == name]
    return found


def cells(found, column):
    """Return the cells of a column."""
    index = [each.key for each in found.columns].index(column)
    return [row[index] for row in found.rows]


def cell(found, label, column):
    """Return the cell of the row with this label."""
    (row,) = [row for row in found.rows if row[0].text == label]
    return row[[each.key for each in found.columns].index(column)]


def every_word(report):
    """Return all text of a report that is not in a table."""
    lines = [*report.notes]
    for section in report.sections:
        lines += [*section.caption, *section.notes, *section.methods]
        lines += [note for each in section.tables for note in each.notes]
    return "\n".join(lines)


@pytest.fixture
def reading(bench):
    """Open the database as `bench plot` does, after all runs were added."""
    opened = []

    def read():
        opened.append(Store.for_reading(bench.store.database))
        return opened[-1]

    yield read
    for store in opened:
        store.close()
