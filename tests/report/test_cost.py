"""The cost table shows what runs recorded, and n/a if nothing was recorded."""

import math

import pytest

from bench.report.tables.cost import MEASURES, _median, _notes


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
    first, *warnings = _notes({"a": {"environment": CPU}, "b": {"environment": other}})
    assert first.endswith(f"Measured on {words}")
    assert warnings == [WARNING]
    first, *warnings = _notes({"a": {"environment": CPU}, "b": {"environment": dict(CPU)}})
    assert first.endswith("Measured on AMD EPYC, 1 thread per run.")
    assert not warnings
