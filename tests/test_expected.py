"""Expected durations are based on similar trials."""

from dataclasses import replace

import pytest

from bench.expected import Durations, TimeLeft, in_words
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


@pytest.fixture
def durations(stored):
    return Durations.stored(stored.store)


def trial(arm, size=48, seed=7):
    return TrialSpec(arm, size, seed, None)


def test_seconds_grow_with_the_epochs(stored, durations):
    net = stored.arm("net")
    longer = replace(net, params={**net.params, "epochs": 200})
    assert durations.of(trial(net)) == pytest.approx(1.0)
    assert durations.of(trial(longer)) == pytest.approx(10.0)
    assert durations.of(trial(stored.estimator("linear"))) == pytest.approx(1.0)


def test_seconds_grow_with_the_training_size(stored, durations):
    """From the nearest size that is known."""
    net = stored.arm("net")
    assert durations.of(trial(net, 96)) == pytest.approx(2.0)
    assert durations.of(trial(net, 12)) == pytest.approx(0.5)


def test_seconds_grow_with_the_voxels_of_another_cohort(stored):
    net = stored.arm("net")
    found = Durations({net.fingerprint: 1000})
    found.add(net, 48, 1.0)
    other = replace(net, fingerprint="f" * 16)
    assert found.of(trial(other)) is None
    found.know("f" * 16, 8000)
    assert found.of(trial(other)) == pytest.approx(8.0)
    assert found.of(trial(other, 24)) == pytest.approx(4.0)


def test_a_study_takes_as_long_as_its_trials(stored, durations):
    tuned = stored.arm("net", space={"lr": {}}, trials=5, tune="shared")
    assert durations.of(StudySpec(tuned, 24, None)) == pytest.approx(5.0)


def test_nothing_is_expected_of_other_work(stored, durations):
    net = stored.arm("net")
    for arm in (
        replace(net, precision="bf16"),
        replace(net, params={**net.params, "batch_size": 64}),
    ):
        assert durations.of(trial(arm)) is None
    assert Durations.stored(None).of(trial(net)) is None


def test_the_time_left_is_that_of_the_units_that_have_not_ended(stored, durations):
    net, unknown = stored.arm("net"), stored.arm("other")
    units = [trial(net, 24), trial(net, 48), trial(net, 96), trial(unknown, 48)]
    left = TimeLeft(durations, units)
    # 1, 1 and 2 seconds, and their average for the unknown model.
    assert left.seconds(1) == pytest.approx(4 + 4 / 3)
    assert left.seconds(2) == pytest.approx((4 + 4 / 3) / 2)
    left.ended(units[3].key, 7.0, done=True)
    assert left.seconds(1) == pytest.approx(4.0)
    left.ended(units[2].key, 0.1, done=False)
    assert left.seconds(1) == pytest.approx(2.0)


def test_the_time_left_is_learnt_from_this_command(stored):
    net = stored.arm("net")
    units = [trial(net, 48, seed) for seed in range(4)]
    left = TimeLeft(Durations({}), units)
    assert left.seconds(1) is None
    left.ended(units[0].key, 6.0, done=True)
    assert left.seconds(1) == pytest.approx(18.0)
    tuned = stored.arm("net", space={"lr": {}}, trials=5, tune="shared")
    study = StudySpec(tuned, 48, None)
    left = TimeLeft(Durations({}), [study, trial(tuned)])
    left.ended(study.key, 10.0, done=True)
    assert left.seconds(1) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((5, "less than a minute"), (61, "about 1 min"), (5340, "about 89 min")),
        *((7200, "about 2 h"), (260000, "about 3 days")),
    ],
)
def test_durations_are_rounded_to_what_matters(seconds, words):
    assert in_words(seconds) == words
