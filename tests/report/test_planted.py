"""Grids with known differences: the report detects them, and finds none if there are none."""

import numpy as np
import pytest

from bench.report.build import build_report
from bench.store.store import Store
from tests.report.conftest import DISEASE, cell, cells, table

SUBJECTS, SEEDS = 400, 5
SPREADS = {"good": 4.0, "alike": 4.0, "bad": 5.0}


def planted(bench, spreads):
    """Errors with known components for subjects, subjects by arm, and runs."""
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
    store = Store.for_reading(bench.store.database)
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
    # The mean of |x| is s sqrt(2 / pi) for a normal x with standard deviation s.
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


def test_without_a_difference_none_is_found(bench):
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
    store = Store.for_reading(bench.store.database)
    report = build_report(store)
    store.close()
    # The protocol of the latest command is shown; the other one is only mentioned.
    assert [row[0].text for row in report.tables[0].rows] == ["b"]
    assert any("one" in note for note in report.notes)


def test_a_planted_power_law_and_data_efficiency_are_found(bench):
    sizes, exponents = (25, 50, 100, 200, 400), {"fast": 0.5, "slow": 0.25}
    bench.cohort(n_test=SUBJECTS, n_pool=1000)
    rng = np.random.default_rng(21)
    arms = [bench.arm(name) for name in exponents]
    command = bench.ask(*arms, sizes=sizes, seeds=range(SEEDS))
    scale = np.sqrt(np.pi / 2)  # makes the mean of |x| what the power law says
    for arm, exponent in zip(arms, exponents.values(), strict=True):
        for size in sizes:
            for seed in range(SEEDS):
                error = scale * 30 * size**-exponent * rng.normal(size=SUBJECTS)
                bench.run(command, arm, size, seed, values=bench.truth[arm.fingerprint] + error)
    store = Store.for_reading(bench.store.database)
    report = build_report(store, appendix=True)
    store.close()
    fits = table(report, "fits")
    for name, exponent in exponents.items():
        assert cell(fits, name, "kind").text == "power law"
        bounds = cell(fits, name, "exponent_ci").values
        assert bounds["low"] < exponent < bounds["high"]
        beyond = cell(fits, name, "beyond").values["value"]
        assert beyond == pytest.approx(30 * 800**-exponent, rel=0.1)
    # To match the largest size, the slower model would need far more subjects than were run.
    efficiency = table(report, "efficiency")
    assert cells(efficiency, "n")[0].text == "> 400"
    assert cells(efficiency, "area")[0].values["value"] > 0


def test_a_model_that_needs_twice_the_subjects_is_reported(bench):
    sizes = (25, 50, 100, 200, 400)
    bench.cohort(n_test=SUBJECTS, n_pool=1000)
    rng = np.random.default_rng(22)
    frugal, hungry = bench.arm("frugal"), bench.arm("hungry")
    command = bench.ask(frugal, hungry, sizes=sizes, seeds=range(SEEDS), declared={"size": 100})
    for arm, factor in ((frugal, 2), (hungry, 1)):
        for size in sizes:
            for seed in range(SEEDS):
                error = 30 * (factor * size) ** -0.5 * rng.normal(size=SUBJECTS)
                bench.run(command, arm, size, seed, values=bench.truth[arm.fingerprint] + error)
    store = Store.for_reading(bench.store.database)
    efficiency = table(build_report(store), "efficiency")
    store.close()
    assert efficiency.columns[1].title == "n at which B matches A at n=100"
    assert cells(efficiency, "pair")[0].text == "frugal vs hungry"
    found, bounds = cells(efficiency, "n")[0], cells(efficiency, "n_ci")[0].values
    assert found.values["value"] == pytest.approx(200, rel=0.15)
    assert bounds["low"] < 200 < bounds["high"]
