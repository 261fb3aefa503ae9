"""A grid in which the truth is known: the report finds what is there, and nothing in its twin."""

import numpy as np
import pytest

from bench.report.build import build_report
from bench.store.store import Store
from tests.report.conftest import DISEASE, cell, cells, table

SUBJECTS, SEEDS = 400, 5
SPREADS = {"good": 4.0, "alike": 4.0, "bad": 5.0}


def planted(bench, spreads):
    """Errors of known spread, part of a subject, part of a subject in an arm, part of a run."""
    bench.cohort(n_test=SUBJECTS)
    rng = np.random.default_rng(20)
    shared = rng.normal(size=SUBJECTS)
    arms = [bench.arm(name) for name in spreads]
    command = bench.ask(*arms, seeds=range(SEEDS), declared={"margin": 0.3})
    for arm, spread in zip(arms, spreads.values(), strict=True):
        own = rng.normal(size=SUBJECTS)
        for seed in range(SEEDS):
            error = 0.6 * shared + 0.6 * own + np.sqrt(0.28) * rng.normal(size=SUBJECTS)
            bench.run(command, arm, 48, seed, values=bench.truth[arm.fingerprint] + spread * error)
    store = Store.for_reading(bench.store.file)
    try:
        return build_report(store)
    finally:
        store.close()


def pairs_of(report):
    found = table(report, "pairs-primary")
    return {
        name.text: {column: cells(found, column)[i] for column in ("difference", "ci", "p_holm")}
        | {"verdict": cells(found, "verdict")[i].text}
        for i, name in enumerate(cells(found, "pair"))
    }


def test_a_planted_difference_is_found_with_its_size(bench):
    report = planted(bench, SPREADS)
    pairs = pairs_of(report)
    # The mean of |x| of a normal x of spread s is s sqrt(2 / pi).
    true = (5.0 - 4.0) * np.sqrt(2 / np.pi)
    for good in ("good", "alike"):
        found = pairs[f"{good} vs bad"]
        assert found["p_holm"].values["value"] < 0.001
        assert found["p_holm"].text == "< 0.001"
        assert found["ci"].values["low"] < true < found["ci"].values["high"]
        assert found["difference"].values["value"] == pytest.approx(true, abs=0.25)
        assert found["verdict"] in ("better", "better by more than the margin")
    board = table(report, "leaderboard-mae")
    best = [label for label in SPREADS if cell(board, label, "n48").bold]
    tied = [label for label in SPREADS if cell(board, label, "n48").tied]
    assert {*best, *tied} == {"good", "alike"}


def test_its_null_twin_has_nothing_to_find(bench):
    report = planted(bench, dict.fromkeys(SPREADS, 4.0))
    pairs = pairs_of(report)
    assert all(found["p_holm"].values["value"] >= 0.05 for found in pairs.values())
    assert all(
        found["ci"].values["low"] < 0 < found["ci"].values["high"] for found in pairs.values()
    )
    board = table(report, "leaderboard-mae")
    assert sum(cell(board, label, "n48").tied for label in SPREADS) == 2


def test_labels_that_differ_between_models_are_never_compared(bench):
    first = bench.cohort("one", DISEASE)
    second = bench.cohort("two", DISEASE)
    for fingerprint, name in ((first, "a"), (second, "b")):
        arm = bench.arm(name, fingerprint, task=DISEASE)
        bench.grid([arm], sizes=(48,))
    store = Store.for_reading(bench.store.file)
    report = build_report(store)
    store.close()
    # The latest command's protocol is shown; the other one is named, in no table with it.
    assert [row[0].text for row in report.tables[0].rows] == ["b"]
    assert any("one" in note for note in report.notes)
