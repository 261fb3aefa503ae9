"""Helpers of the tests of figures: databases, and the data of a figure."""

import numpy as np

from bench.report.plots import KINDS, FigureRequest
from bench.report.plots.source import load_source
from bench.store.store import TrialResult
from tests.report.conftest import AGE


def gathered(store, name, **request):
    kind = KINDS[name]
    source = load_source(store, name, kind.tasks, FigureRequest(**request), several=kind.several)
    return kind.steps.gather(source)


def three(bench, task=AGE, **grid):
    fingerprint = bench.cohort(task=task)
    arms = [bench.arm(name, fingerprint, task=task) for name in ("good", "fair", "bad")]
    bench.grid(arms, **grid)
    return arms


def costs(bench, command, arm, seconds, parameters, size=48, error=5.0):
    """Run one seed and record its cost."""
    spec = bench.run(command, arm, size, 0, error=error)
    truth = bench.truth[arm.fingerprint]
    stored = bench.store.predictions([spec.key], "test")
    bench.store.add_trial(
        TrialResult(
            spec=spec,
            state="done",
            params=dict(arm.params),
            epochs=20,
            timings={"train": seconds, "parameters": parameters},
            environment={"host": "here", "threads": 1},
            metrics={("test", "mae"): (float(np.abs(_first(stored) - truth).mean()), "")},
            predictions={"test": stored[spec.key]},
        ),
        command,
        replace=True,
    )


def _first(stored):
    (found,) = stored.values()
    return found.values[:, 0]
