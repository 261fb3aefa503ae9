import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.spec import (
    Arm,
    Component,
    StudySpec,
    TrialSpec,
    arm_from_plain,
    canonical_json,
    dimension_from_plain,
    dimension_to_plain,
    key_of,
    plain,
    seed_for,
)
from registry.cards import Choice, Float, Int, Task


def arm(**changes):
    fields = {
        "model": Component("slice2d-scratch", 1),
        "encoder": Component("own", 1, "", ""),
        "fingerprint": "0123456789abcdef",
        "task": Task("diagnosis", "classification", ("CN", "AD")),
        "params": {"lr": 1e-4, "pool": "mean", "epochs": 2},
        "space": {"lr": dimension_to_plain(Float(1e-5, 1e-2, log=True))},
        "trials": 2,
        "tune": "shared",
        "precision": "fp32",
    }
    return Arm(**(fields | changes))


def test_a_key_is_the_hash_of_the_canonical_json_in_any_process():
    spec = Component("own", 1)
    text = '{"name":"own","plugin":"","version":1,"weights":""}'
    assert canonical_json(plain(spec)) == text
    assert key_of(spec) == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("tune", ["shared", "per-seed"])
def test_the_keys_of_arms_studies_and_trials_are_hashes_of_their_json(tune):
    tuned = arm(tune=tune)
    for spec in (tuned, StudySpec.of(tuned, 50, 3), TrialSpec.of(tuned, 50, 3)):
        text = canonical_json(plain(spec))
        assert spec.key == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_key_does_not_depend_on_the_order_of_settings():
    one = arm(params={"lr": 1e-4, "pool": "mean"})
    two = arm(params={"pool": "mean", "lr": 1e-4})
    assert one.key == two.key


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"fingerprint": "0123456789abcdee"},
        {"params": {"lr": 2e-4, "pool": "mean", "epochs": 2}},
        {"trials": 3},
        {"tune": "per-seed"},
        {"model": Component("slice2d-scratch", 2)},
        {"model": Component("slice2d-scratch", 1, plugin="ab")},
        {"encoder": Component("own", 1, weights="cd")},
    ],
)
def test_everything_that_decides_numbers_is_in_the_key(change):
    assert arm(**change).key != arm().key


def test_a_trial_is_keyed_on_its_study_size_and_seed():
    study = StudySpec(arm(), 24, None)
    keys = {
        TrialSpec(arm(), 24, 0, study.key).key,
        TrialSpec(arm(), 24, 1, study.key).key,
        TrialSpec(arm(), 48, 0, study.key).key,
        TrialSpec(arm(), 24, 0, None).key,
    }
    assert len(keys) == 4


def test_an_arm_survives_storage_with_its_key():
    stored = json.loads(json.dumps(plain(arm())))
    assert arm_from_plain(stored).key == arm().key


@pytest.mark.parametrize("dim", [Float(0.1, 1.0, True), Int(1, 5), Choice(("a", "b"))])
def test_a_dimension_survives_storage(dim):
    assert dimension_from_plain(json.loads(json.dumps(dimension_to_plain(dim)))) == dim


def test_a_number_that_is_not_finite_has_no_key():
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"lr": float("nan")})


def test_a_study_draws_from_no_reported_seed():
    assert StudySpec(arm(), 24, None).random_stream == "tune"
    assert StudySpec(arm(), 24, 3).random_stream == "tune-3"


def test_the_study_of_a_trial_follows_from_its_arm_size_and_seed():
    shared, own = arm(trials=9, tune="shared"), arm(trials=9, tune="per-seed")
    assert StudySpec.of(shared, 24, 3) == StudySpec(shared, 24, None)
    assert StudySpec.of(own, 24, 3) == StudySpec(own, 24, 3)
    assert StudySpec.of(arm(trials=None, tune=None), 24, 3) is None
    assert TrialSpec.of(own, 24, 3).study == StudySpec(own, 24, 3).key
    assert TrialSpec.of(arm(trials=None, tune=None), 24, 3).study is None


def test_tuning_sees_the_subset_of_the_seed_that_it_is_for():
    assert (StudySpec(arm(), 24, None).subset, StudySpec(arm(), 24, 3).subset) == ("tune", "3")
    assert (
        TrialSpec(arm(), 24, 3, None).subset == TrialSpec(arm(), 24, 3, None).random_stream == "3"
    )


@given(st.text(min_size=1), st.integers(), st.integers())
def test_seeds_are_derived_not_shared(part, one, two):
    seed = seed_for(part, one)
    assert 0 <= seed < 2**63
    assert seed == seed_for(part, str(one))
    assert seed != seed_for(part + "x", one)
    if one != two:
        assert seed != seed_for(part, two)


def test_a_tasks_predictions_are_named_the_same_in_every_file():
    assert Task("age", "regression").output_names == ("predicted_age",)
    two, three = ("CN", "AD"), ("CN", "MCI", "AD")
    assert Task("diagnosis", "classification", two).output_names == ("p_AD",)
    assert Task("diagnosis", "classification", three).output_names == ("p_CN", "p_MCI", "p_AD")
