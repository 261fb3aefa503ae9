"""Expected durations are based on trials of the same cohort."""

from dataclasses import replace

import pytest

from bench.plan import PlannedTrial, _expected_seconds
from bench.spec import StudySpec, TrialSpec
from tests.report.conftest import Bench


@pytest.fixture
def stored(tmp_path):
    """A store with trials of a network (20 epochs) and an estimator that took a second each."""
    found = Bench(tmp_path / "results.db")
    found.cohort()
    found.grid([found.arm("net"), found.estimator("linear")], sizes=(24, 48))
    yield found
    found.store.close()


def planned(arm, size=48, seeds=(7,)):
    return [PlannedTrial(TrialSpec(arm, size, seed, None), None, "run") for seed in seeds]


def test_seconds_grow_with_the_epochs(stored):
    net = stored.arm("net")
    longer = replace(net, params={**net.params, "epochs": 200})
    assert _expected_seconds(planned(net), [], stored.store) == pytest.approx(1.0)
    assert _expected_seconds(planned(longer, seeds=(7, 8)), [], stored.store) == pytest.approx(20.0)
    assert _expected_seconds(planned(stored.estimator("linear")), [], stored.store) == 1.0


def test_a_study_takes_as_long_as_its_trials(stored):
    tuned = stored.arm("net", space={"lr": {}}, trials=5, tune="shared")
    assert _expected_seconds([], [StudySpec(tuned, 24, None)], stored.store) == pytest.approx(5.0)


def test_nothing_is_expected_of_other_work(stored):
    net = stored.arm("net")
    others = (
        replace(net, fingerprint="f" * 16),
        replace(net, precision="bf16"),
        replace(net, params={**net.params, "batch_size": 64}),
    )
    for arm in others:
        assert _expected_seconds(planned(arm), [], stored.store) is None
    assert _expected_seconds(planned(net, size=96), [], stored.store) is None
    assert _expected_seconds(planned(net), [], None) is None
