"""Time and memory of reports of 10,000 trials with 1,000 test subjects, and of all pairs.

Goals: at most 10 s and 2 GB for `bench report`, and at most 10 s for all pairs of 20 models at 5
sizes by 5 metrics. Each report is timed as a separate process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.records import DatasetRecord, SubjectRecord
from bench.report.evidence import load_evidence
from bench.report.pairs import make_pairs
from bench.report.select import select_protocols
from bench.spec import Arm, Component, TrialSpec
from bench.stats.metrics import compute, metric_of, metrics_for
from bench.store.store import Predictions, Store, TrialResult
from registry.cards import Task

SUBJECTS = 1000
LARGE = (20, 10, 50)
"""The numbers of models, sizes and seeds of 10,000 trials."""
PAIRS = (20, 5, 5)
SECONDS, GIGABYTES = 10.0, 2.0
METRICS = {
    "regression": ("mae", "rmse", "r2", "r"),
    "classification": ("auc", "balanced_accuracy", "accuracy", "brier", "log_loss"),
}


def fill(store: Store, task: Task, grid: tuple[int, int, int]) -> None:
    """Store a full grid of one task."""
    n_arms, n_sizes, n_seeds = grid
    rng = np.random.default_rng(0)
    binary = task.kind == "classification"
    truth = np.arange(SUBJECTS) % 2.0 if binary else rng.uniform(45, 85, SUBJECTS)
    fingerprint = f"{task.target:0>16}"
    store.add_dataset(
        DatasetRecord(
            fingerprint=fingerprint,
            name=task.target,
            manifest_digest="m",
            split_digest="s",
            target=task.target,
            kind=task.kind,
            classes=list(task.classes),
            shape=[91, 109, 91],
            settings={},
            flow=[],
            n_pool=1500,
            n_validation=500,
            n_test=SUBJECTS,
            subjects=[SubjectRecord(i, "test", float(value)) for i, value in enumerate(truth)],
        )
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
        for number in range(n_arms)
    ]
    sizes = [int(n) for n in np.linspace(50, 1500, n_sizes)]
    command = store.add_command(
        ["bench", "run"],
        [(arm, False) for arm in arms],
        sizes={fingerprint: sizes},
        seeds=list(range(n_seeds)),
        dropped=[],
    )
    subjects = np.arange(SUBJECTS, dtype=np.int32)
    for arm in arms:
        for size in sizes:
            for seed in range(n_seeds):
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


def report(file: Path, *words: str) -> tuple[float, float]:
    """Return the seconds and the peak memory in GB of one `bench report`."""
    command = [sys.executable, "-m", "bench", "report", "--db", str(file), *words]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"bench report ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / 2**20


def all_pairs(file: Path, kind: str) -> float:
    """Return the seconds for comparing all pairs of rows at all sizes by the task's metrics."""
    store = Store.for_reading(file)
    (protocol,) = select_protocols(store, {}).protocols
    evidence = load_evidence(store, protocol)
    started = time.perf_counter()
    n = 0
    for name in METRICS[kind]:
        for size in protocol.sizes:
            n += len(make_pairs(protocol, evidence, protocol.rows, metric_of(name), size, None))
    seconds = time.perf_counter() - started
    store.close()
    print(f"{kind}: {n} pairs by {len(METRICS[kind])} metrics", flush=True)
    return seconds


def verdict(what: str, value: float, limit: float, unit: str) -> bool:
    """Print a value with its limit, and return whether the limit is met."""
    kept = value <= limit
    word = "met" if kept else "NOT MET"
    print(f"{what:58} {value:7.2f} {unit}  at most {limit:g}: {word}", flush=True)
    return kept


def main() -> int:
    """Fill databases and time their reports; return 1 if a limit is exceeded."""
    kept = []
    tasks = (Task("age", "regression"), Task("diagnosis", "classification", ("CN", "AD")))
    for task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            large, pairs = Path(folder) / "large.db", Path(folder) / "pairs.db"
            for file, grid in ((large, LARGE), (pairs, PAIRS)):
                writing = Store.for_writing(file)
                fill(writing, task, grid)
                writing.close(leave_wal=True)
            for words in ((), ("--format", "html", "--out", str(Path(folder) / "page.html"))):
                seconds, gigabytes = report(large, *words)
                name = f"{task.target}: report of 10,000 trials {' '.join(words[:2])}"
                if not words:
                    kept.append(verdict(name, seconds, SECONDS, "s"))
                    kept.append(verdict(f"{name}, memory", gigabytes, GIGABYTES, "GB"))
                else:
                    print(f"{name}: {seconds:.1f} s, {gigabytes:.2f} GB", flush=True)
            seconds = all_pairs(pairs, task.kind)
            kept.append(verdict(f"{task.target}: all pairs", seconds, SECONDS, "s"))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
