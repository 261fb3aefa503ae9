"""Seconds of a report on 2,000 trials with 500 test subjects each (wanted: at most 5).

Run as ``python tests/speed/report_speed.py``; a file, its trials and the limit are printed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.report.render import render
from bench.report.tables import build_report
from bench.spec import Arm, Component, TrialSpec
from bench.stats.metrics import compute, metrics_for
from bench.store.store import Predictions, Store, TrialResult
from registry.cards import Task

ARMS, SIZES, SEEDS, SUBJECTS = 20, 10, 10, 500
LIMIT = 5.0


def fill(store: Store, task: Task) -> None:
    """Store a full grid of one task."""
    rng = np.random.default_rng(0)
    binary = task.kind == "classification"
    truth = np.arange(SUBJECTS) % 2.0 if binary else rng.uniform(45, 85, SUBJECTS)
    fingerprint = f"{task.target:0>16}"
    store.add_dataset(
        {
            "fingerprint": fingerprint,
            "name": task.target,
            "manifest_digest": "m",
            "split_digest": "s",
            "target": task.target,
            "kind": task.kind,
            "classes": list(task.classes),
            "shape": [91, 109, 91],
            "settings": {},
            "flow": [],
            "n_pool": 1500,
            "n_validation": 500,
            "n_test": SUBJECTS,
        },
        [
            {"fingerprint": fingerprint, "subject": i, "side": "test", "truth": float(value)}
            for i, value in enumerate(truth)
        ],
    )
    arms = [
        Arm(
            model=Component(f"model-{number}", 1),
            encoder=None,
            fingerprint=fingerprint,
            task=task,
            params={"epochs": 20, "lr": 1e-4},
            space={},
            trials=None,
            tune=None,
            precision="fp32",
        )
        for number in range(ARMS)
    ]
    sizes = [int(n) for n in np.linspace(50, 1500, SIZES)]
    command = store.add_command(
        ["bench", "run"],
        [(arm, False) for arm in arms],
        sizes={fingerprint: sizes},
        seeds=list(range(SEEDS)),
        dropped=[],
    )
    subjects = np.arange(SUBJECTS, dtype=np.int32)
    for arm in arms:
        for size in sizes:
            for seed in range(SEEDS):
                noise = rng.normal(size=SUBJECTS) * (5 + 50 / size)
                values = 1 / (1 + np.exp(-(truth - 0.5 + noise / 5))) if binary else truth + noise
                metrics = {
                    ("test", name): tuple(compute(name, truth, values))
                    for name in metrics_for(task.kind, len(task.classes))
                }
                store.add_trial(
                    TrialResult(
                        TrialSpec(arm, size, seed, None),
                        "done",
                        dict(arm.params),
                        environment={"host": "here"},
                        metrics=metrics,  # type: ignore[arg-type]
                        predictions={"test": Predictions(subjects, values[:, None])},
                    ),
                    command,
                )


def main() -> int:
    """Fill a database a task, time the report in its heaviest forms, return 1 above the limit."""
    worst = 0.0
    tasks = (Task("age", "regression"), Task("diagnosis", "classification", ("CN", "AD")))
    for task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "results.db"
            writing = Store.for_writing(file)
            fill(writing, task)
            writing.close(settle=True)
            for metric, format_ in ((None, "terminal"), ("all", "json")):
                started = time.perf_counter()
                store = Store.for_reading(file)
                text = render(build_report(store, metric=metric), format_)
                store.close()
                seconds = time.perf_counter() - started
                worst = max(worst, seconds if metric is None else 0.0)
                print(
                    f"{task.target}, metric {metric or 'primary'}, {format_}: {seconds:.2f} s, "
                    f"{ARMS * SIZES * SEEDS} trials x {SUBJECTS} subjects, {len(text)} characters"
                )
    print(f"limit {LIMIT:.0f} s: {'kept' if worst <= LIMIT else 'exceeded'}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
