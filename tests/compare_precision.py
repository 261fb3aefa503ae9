"""Compare bf16 with fp32. The results in the README are from this script, which is run by hand.

``python tests/compare_precision.py`` trains three models with five seeds in both precisions on the
4 mm cohorts for diagnosis and age, and prints the difference in the primary metric with the
interval of the headline test. Arguments select cohorts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sqlalchemy import select

from bench.stats.inference import compare
from bench.stats.measured import RunPredictions, measure_runs
from bench.store import schema
from bench.store.store import Store

MODELS = ("slice2d-imagenet", "slice2d-own", "cnn3d")
COHORTS = {"synthetic-ad-4mm": "auc", "synthetic-age-4mm": "mae"}
RUN = [
    *(sys.executable, "-m", "bench", "run", "--model", ",".join(MODELS)),
    *("--encoder", "efficientnet-lite0", "--train-sizes", "48"),
    *("--seeds", "5", "--trials", "0", "--epochs", "6", "--set", "stride=4", "--workers", "2"),
]


def runs_of(store: Store, model: str, precision: str) -> tuple[np.ndarray, RunPredictions]:
    """Return the true values of the test subjects, and the predictions of all runs of a model."""
    arms = store.frame(schema.arms)
    (key,) = [
        arm.key
        for arm in arms.itertuples()
        if arm.model == model and arm.spec["precision"] == precision
    ]
    trials = store.frame(select(schema.trials).where(schema.trials.c.arm == key))
    trials = trials.sort_values("seed")
    found = store.predictions(trials["key"], "test")
    subjects = store.frame(schema.subjects).set_index("subject")["truth"]
    truth = subjects.loc[found[trials["key"].iloc[0]].subjects].to_numpy()
    stack = np.stack([found[key].values[:, 0] for key in trials["key"]])
    return truth, RunPredictions(stack, tuple(trials["seed"]))


def study(cohort: str, metric: str, database: Path) -> None:
    """Train in both precisions and print the differences."""
    for precision in ("fp32", "bf16"):
        words = ["--data", cohort, "--precision", precision, "--db", str(database)]
        subprocess.run([*RUN, *words], check=True)
    store = Store.for_reading(database)
    for model in MODELS:
        truth, exact = runs_of(store, model, "fp32")
        _, short = runs_of(store, model, "bf16")
        found = compare(measure_runs(metric, truth, short), measure_runs(metric, truth, exact))
        print(
            f"{cohort}, {model}: {metric} bf16 - fp32 {found.difference:+.3f} "
            f"[{found.low:+.3f}, {found.high:+.3f}], {found.n_seeds} seeds x "
            f"{found.n_subjects} subjects",
            flush=True,
        )
    store.close()


if __name__ == "__main__":
    for cohort in sys.argv[1:] or COHORTS:
        with tempfile.TemporaryDirectory() as made:
            study(cohort, COHORTS[cohort], Path(made) / "precision.db")
