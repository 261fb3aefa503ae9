"""The table of cost: what a run recorded, and nothing where nothing was."""

import math

from bench.report.tables.cost import MEASURES, _median


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
