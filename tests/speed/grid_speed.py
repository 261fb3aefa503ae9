"""Time and memory of large grids, and what workers in parallel gain.

Goals: plan 10,000 trials and find 10,000 finished ones in at most 3 s, at most 20 ms between two
units of a worker, at most 500 MB for a driver with 10,000 units, and 1.7 times the units per
second with two workers on two cores.

Commands are timed as separate processes. Those that use one thread are compared by their processor
time, which depends less on other processes; the load is printed, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.config import load_config
from bench.data.cohort import Cohort, open_cohort
from bench.data.listing import cohort_request
from bench.execute.driver import record
from bench.plan import Plan, RunRequest, make_plan
from bench.store import schema
from bench.store.store import Predictions, Store, TrialResult

COHORT = "synthetic-ad-4mm"
SIZES, SEEDS = (20, 30, 48, 64, 80), 1000
MODELS = ("linear-voxels", "prior")
UNITS = 300
"""Number of units of the run in which the time per unit is measured."""
SECONDS, MILLISECONDS, MEGABYTES, SPEEDUP = 3.0, 20.0, 500.0, 1.7
INLINE = '''
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.execute.base import WorkerExit
from bench.execute.unit import publish, run
from registry import executor


@executor("inline")
class Inline:
    """Computes one unit of each size in the process of the driver, and repeats its outcome."""

    def __init__(self, workers, *, gpus, preload, on_progress):
        self.outcomes = {}

    def submit(self, unit):
        now, future = datetime.now(UTC), Future()
        folder = Path(unit.folder) / "attempt-x"
        folder.mkdir(parents=True)
        size = unit.data.n_train
        if size not in self.outcomes:
            self.outcomes[size] = run(unit, folder, lambda *_: None)
        replace(self.outcomes[size], key=unit.key, attempt=unit.key).write(folder)
        publish(folder)
        future.set_result(WorkerExit(unit.key, now, datetime.now(UTC), 0))
        return future

    def cancel(self):
        pass

    kill = shutdown = cancel
'''


class Spent(NamedTuple):
    """What a command used: wall time and processor time in seconds, peak memory in MB."""

    wall: float
    cpu: float
    megabytes: float


def bench(*words: str) -> Spent:
    """Run a command, and return what it used."""
    command = [str(Path(sys.executable).with_name("bench")), *words]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"bench {' '.join(words)} ended with {process.returncode}")
    wall = time.perf_counter() - started
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def grid(
    file: Path, models: str = ",".join(MODELS), sizes: Iterable[int] = SIZES, seeds: int = SEEDS
) -> list[str]:
    """Return the command for a grid."""
    words = ["run", "--data", COHORT, "--model", models, "--db", str(file)]
    return [*words, "--train-sizes", ",".join(map(str, sizes)), "--seeds", str(seeds)]


def plan_of(cohort: Cohort, store: Store) -> Plan:
    """Return the plan of the large grid without tuning."""
    request = RunRequest(MODELS, range(SEEDS), sizes=SIZES, trials=0)
    return make_plan(request, cohort, store, announce=print)


def fill(cohort: Cohort, store: Store) -> None:
    """Store the large grid as finished."""
    plan = plan_of(cohort, store)
    command = record(store, [plan], range(SEEDS), ["bench", "run"])
    subjects = cohort.side("test").astype(np.int32)
    rng = np.random.default_rng(0)
    for trial in plan.trials:
        values = rng.uniform(0.1, 0.9, size=(len(subjects), 1))
        store.add_trial(
            TrialResult(
                trial.spec,
                "done",
                dict(trial.spec.arm.params),
                seconds=1.0,
                environment={"host": "here"},
                metrics={("test", "auc"): (float(rng.uniform(0.5, 0.9)), "")},
                predictions={"test": Predictions(subjects, values)},
            ),
            command,
        )


def best(measure: Callable[[], float], times: int = 3) -> float:
    """Return the smallest of several measurements."""
    return min(measure() for _ in range(times))


def verdict(what: str, value: float, limit: float, unit: str, *, least: bool = False) -> bool:
    """Print a value with its limit, and return whether the limit is met."""
    kept = value >= limit if least else value <= limit
    words = f"at {'least' if least else 'most'} {limit:g}: {'met' if kept else 'NOT MET'}"
    load = os.getloadavg()[0]
    print(f"{what:58} {value:7.2f} {unit:3} {words} (load {load:.1f})", flush=True)
    return kept


def planning(folder: Path) -> list[bool]:
    """Time plans of 10,000 trials."""
    kept = []
    for words in (["--trials", "0"], ["--trials", "20"], ["--tune", "per-seed"]):
        command = [*grid(folder / "none.db"), *words, "--dry-run"]
        seconds = best(lambda command=command: bench(*command).cpu)
        name = f"plan of 10,000 trials, {' '.join(words)}"
        kept.append(verdict(name, seconds, SECONDS, "s"))
    return kept


def resuming(cohort: Cohort, folder: Path) -> list[bool]:
    """Time the commands that read 10,000 finished trials."""
    file = folder / "finished.db"
    store = Store.for_writing(file)
    fill(cohort, store)
    store.close(leave_wal=True)
    command = [*grid(file), "--trials", "0"]
    kept = [
        verdict("resuming 10,000 trials", best(lambda: bench(*command).cpu), SECONDS, "s"),
    ]
    for words in (["status"], ["report"]):
        spent = bench(*words, "--db", str(file))
        print(
            f"{words[0]} of 10,000 trials: {spent.cpu:.1f} s, {spent.megabytes:.0f} MB", flush=True
        )
    return kept


def overhead(folder: Path) -> bool:
    """Measure the time between the units of one worker."""

    def once() -> float:
        file = folder / f"{time.monotonic_ns()}.db"
        words = ["--workers", "1", "--threads", "1", "--trials", "0"]
        bench(*grid(file, "prior", [48], UNITS), *words)
        store = Store.for_reading(file)
        units = store.frame(schema.attempts)
        store.close()
        whole = units["finished"].max() - units["started"].min()
        work = (units["finished"] - units["started"]).sum()
        return 1000 * (whole - work).total_seconds() / (UNITS - 1)

    return verdict("time between two units of a worker", best(once), MILLISECONDS, "ms")


def memory(folder: Path) -> bool:
    """Measure the memory of a driver with 10,000 units, which take no time."""
    plugin = folder / "inline.py"
    plugin.write_text(textwrap.dedent(INLINE))
    command = grid(folder / "memory.db", "prior", range(10, 20), SEEDS)
    words = ["--trials", "0", "--threads", "1", "--plugins", str(plugin), "--executor", "inline"]
    spent = bench(*command, *words)
    print(f"time of the driver: {spent.cpu / 10:.1f} ms per unit", flush=True)
    return verdict("memory of the driver with 10,000 units", spent.megabytes, MEGABYTES, "MB")


def speedup(folder: Path) -> bool:
    """Compare two workers with one, each with one thread."""
    networks = ["--model", "slice2d-own", "--encoder", "own", "--set", "stride=4"]
    rest = ["--train-sizes", "48", "--seeds", "4", "--epochs", "6", "--trials", "0"]

    def once() -> float:
        times = []
        for workers in ("1", "2"):
            file = folder / f"{time.monotonic_ns()}.db"
            words = ["--data", COHORT, "--threads", "1", "--workers", workers, "--db", str(file)]
            times.append(bench("run", *networks, *rest, *words).wall)
        return times[0] / times[1]

    value = max(once() for _ in range(3))
    return verdict("units per second of two workers to one", value, SPEEDUP, "x", least=True)


def main() -> int:
    """Measure everything; return 1 if a goal is missed."""
    bench("data", "prepare", COHORT)
    cohort = open_cohort(cohort_request(COHORT, {}), load_config().cache)
    folder = Path(tempfile.mkdtemp())
    try:
        kept = planning(folder)
        kept += resuming(cohort, folder)
        kept.append(overhead(folder))
        kept.append(memory(folder))
        kept.append(speedup(folder))
    finally:
        shutil.rmtree(folder)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
