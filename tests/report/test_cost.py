"""The cost table shows what runs recorded, and n/a if nothing was recorded."""

import contextlib
import json
import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from bench.report.build import build_report
from bench.report.tables.cost import MEASURES, _median, _notes
from bench.store.store import Store
from tests.report.conftest import table


def test_every_measure_follows_from_the_record():
    record = {
        "parameters": 2_500_000,
        "multiply_adds": 3_000_000_000,
        "train": 12.0,
        "epochs": 4,
        "volumes_per_s": 8.0,
        "peak_rss_mb": 2048,
        "peak_vram_mb": 512,
    }
    found = {key: of(record) for key, _, of, _ in MEASURES}
    assert found == {
        "parameters": 2.5,
        "multiply_adds": 3.0,
        "train": 12.0,
        "epoch": 3.0,
        "volumes_per_s": 8.0,
        "peak_rss_mb": 2.0,
        "peak_vram_mb": 0.5,
    }


def test_older_runs_and_estimators_leave_gaps_not_zeros():
    records = {"a": {"train": 1.0, "epochs": None}, "b": {"train": 3.0, "epochs": 2}, "c": {}}
    by_key = {key: of for key, _, of, _ in MEASURES}
    assert _median(records, ["a", "b", "c"], by_key["train"]) == 2.0
    assert _median(records, ["a", "b", "c"], by_key["epoch"]) == 1.5
    assert _median(records, ["a", "c", "gone"], by_key["peak_vram_mb"]) is None
    assert not math.isnan(_median(records, ["b"], by_key["epoch"]))


CPU = {"cpu": "AMD EPYC", "gpu": None, "machine": "x86_64", "threads": 1}
WARNING = "Times from different machines are not comparable."


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({**CPU, "cpu": "Intel Xeon"}, "AMD EPYC, 1 thread per run; Intel Xeon, 1 thread per run."),
        ({**CPU, "gpu": "H100"}, "AMD EPYC, 1 thread per run; H100, 1 thread per run."),
        ({**CPU, "threads": 4}, "AMD EPYC, 1 thread per run; AMD EPYC, 4 threads per run."),
        ({"machine": "arm64"}, "AMD EPYC, 1 thread per run; arm64, threads not recorded."),
    ],
)
def test_times_from_different_machines_are_reported_as_not_comparable(other, words):
    first, *warnings = _notes(
        {"a": {"environment": CPU}, "b": {"environment": other}}, multiply_adds=True
    )
    assert first.endswith(f"Measured on {words}")
    assert warnings == [WARNING]
    both = {"a": {"environment": CPU}, "b": {"environment": dict(CPU)}}
    first, *warnings = _notes(both, multiply_adds=False)
    assert first == "Medians across seeds. Measured on AMD EPYC, 1 thread per run."
    assert not warnings


def test_the_table_of_the_shipped_example_has_the_medians_of_its_runs():
    file = Path(__file__).parents[2] / "results.db"
    store = Store.for_reading(file)
    found = table(build_report(store), "cost")
    store.close()
    assert [column.title for column in found.columns[2:]][:4] == [
        *("parameters (M)", "multiply-adds (G)", "training (s)", "epoch (s)")
    ]
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as base:
        runs = base.execute(
            "SELECT a.model, t.timings, t.epochs FROM bench_trials t JOIN bench_arms a "
            "ON t.arm = a.key WHERE t.n_train = 48 AND t.state = 'done'"
        ).fetchall()
    assert len(found.rows) == len({model for model, *_ in runs}) == 8
    for row in found.rows:
        cells = {key: value for each in row[1:] for key, value in each.values.items()}
        mine = [(json.loads(text), n) for model, text, n in runs if model == row[0].text]
        assert cells["train"] == pytest.approx(np.median([t["train"] for t, _ in mine]))
        per_epoch = [t["train"] / n for t, n in mine if n]
        assert cells["epoch"] == pytest.approx(
            np.median(per_epoch) if per_epoch else math.nan, nan_ok=True
        )
