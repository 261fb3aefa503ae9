"""``bench power`` predicts power for other numbers of seeds and subjects."""

import numpy as np
import pytest

from bench.report.planning import build_planning
from bench.store.store import Store
from registry.errors import UserError
from tests.report.conftest import cells, table


def plan(bench, *models, difference=None, wanted=0.8):
    store = Store.for_reading(bench.store.database)
    try:
        return build_planning(store, models, {}, difference=difference, wanted=wanted)
    finally:
        store.close()


def three(bench):
    bench.cohort()
    bench.grid([bench.arm(name) for name in ("good", "fair", "bad")], seeds=range(4))


def numbers(found):
    return np.array([[c.values["value"] for c in row[1:]] for row in found.rows], dtype=float)


def test_more_seeds_and_more_subjects_find_smaller_differences(bench):
    three(bench)
    found = numbers(table(plan(bench, "good", "bad"), "detectable"))
    assert found.shape == (4, 3)
    assert (np.diff(found, axis=1) < 0).all()
    assert (np.diff(found, axis=0) <= 0).all()


def test_the_power_at_the_smallest_detectable_difference_is_the_requested_one(bench):
    three(bench)
    smallest = numbers(table(plan(bench, "good", "bad", wanted=0.7), "detectable"))
    found = plan(bench, "good", "bad", difference=float(smallest[1, 2]))
    assert numbers(table(found, "power"))[1, 2] == pytest.approx(0.7, abs=1e-3)


def test_the_required_numbers_are_the_smallest_with_the_power(bench):
    three(bench)
    smallest = numbers(table(plan(bench, "good", "bad"), "detectable"))
    # A difference that ten seeds detect requires more than five and, up to rounding, ten seeds.
    difference = 1.0001 * float(smallest[2, 0])
    found = table(plan(bench, "good", "bad", difference=difference), "required")
    assert 5 < cells(found, "seeds")[0].values["value"] <= 10


def test_without_models_every_pair_of_the_family_is_planned(bench):
    three(bench)
    found = table(plan(bench), "detectable")
    assert [c.text for c in cells(found, "pair")] == ["good vs fair", "good vs bad", "fair vs bad"]


def test_with_one_seed_the_reason_is_reported(bench):
    bench.cohort()
    bench.grid([bench.arm("a"), bench.arm("b")], seeds=[0])
    found = plan(bench, "a", "b", difference=1.0)
    assert {c.text for row in table(found, "power").rows for c in row[1:]} == {"n/a"}
    assert "one seed" in table(found, "power").notes[0]
    assert cells(table(found, "required"), "seeds")[0].text == "n/a"


@pytest.mark.parametrize(
    ("models", "options", "words"),
    [
        (("good",), {}, "bench power A B"),
        (("good", "bad"), {"difference": 0.0}, "positive number"),
        (("good", "bad"), {"difference": float("nan")}, "positive number"),
        (("good", "bad"), {"wanted": 1.0}, "--power must be between 0.05 and 1"),
        (("good", "bat"), {}, "did you mean 'bad'"),
        (("good", "good"), {}, "are the same row"),
    ],
)
def test_wrong_requests_are_refused(bench, models, options, words):
    three(bench)
    with pytest.raises(UserError, match=words):
        plan(bench, *models, **options)
