from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from baselines.estimators import block_average
from registry.cards import Task

SHAPE = (9, 10, 8)
AD = Task("diagnosis", "classification", ("CN", "AD"))
THREE = Task("diagnosis", "classification", ("CN", "MCI", "AD"))


def cohort(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Volumes whose centre is brighter at higher ages, and the ages."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 80, n)
    volumes = rng.normal(size=(n, *SHAPE)).astype(np.float32)
    volumes[:, 3:6, 3:6, 3:6] += ((age - 62) / 10)[:, None, None, None]
    return volumes, age


def test_the_prior_predicts_mean_and_frequencies(build) -> None:
    X, age = cohort(6)
    assert np.allclose(build("prior", SHAPE).fit(X, age).predict(X[:4]), np.full(4, age.mean()))
    classes = np.array([0, 1, 1, 1, 0, 1])
    proba = build("prior", SHAPE, task=THREE).fit(X, classes).predict_proba(X[:2])
    assert np.allclose(proba, [[1 / 3, 2 / 3, 0]] * 2)


def test_linear_voxels_finds_age_and_class(build) -> None:
    X, age = cohort(80)
    new, truth = cohort(40, seed=1)
    predicted = build("linear-voxels", SHAPE).fit(X, age).predict(new)
    assert np.abs(predicted - truth).mean() < 0.5 * np.abs(truth - age.mean()).mean()
    proba = build("linear-voxels", SHAPE, task=AD).fit(X, (age > 62).astype(int)).predict_proba(new)
    assert proba.shape == (40, 2)
    assert np.allclose(proba.sum(1), 1)
    assert ((proba[:, 1] > 0.5) == (truth > 62)).mean() > 0.8


def test_linear_voxels_equals_ridge_on_all_standardised_voxels_when_nothing_is_cut(build) -> None:
    X, age = cohort(20)
    new, _ = cohort(5, seed=2)
    model = build("linear-voxels", SHAPE, block=1, n_components=1000, penalty=0.5).fit(X, age)
    flat, other = (a.reshape(len(a), -1).astype(np.float64) for a in (X, new))
    mean, std = flat.mean(0), flat.std(0)
    scale = std * np.sqrt(flat.shape[1])
    ridge = Ridge(alpha=0.5).fit((flat - mean) / scale, age)
    assert np.allclose(model.predict(new), ridge.predict((other - mean) / scale), atol=1e-2)


def test_linear_voxels_fits_on_the_training_volumes_only(build) -> None:
    X, age = cohort(20)
    model = build("linear-voxels", SHAPE).fit(X, age)
    alone = model.predict(X[:1])
    together = model.predict(np.concatenate([X[:1], 1000 * X[1:]]))
    assert np.allclose(alone, together[:1], rtol=1e-5)


def test_the_same_training_set_gives_the_same_fit_whatever_the_random_state(build) -> None:
    X, age = cohort(60)
    predictions = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002  the legacy state is what scikit-learn would draw from
        predictions.append(build("linear-voxels", SHAPE, n_components=5).fit(X, age).predict(X))
    assert np.array_equal(*predictions)


def test_a_class_without_training_subjects_has_a_column_of_zeros(build) -> None:
    X, _ = cohort(12)
    model = build("linear-voxels", SHAPE, task=THREE).fit(X, np.array([0, 2] * 6))
    proba = model.predict_proba(X)
    assert proba.shape == (12, 3)
    assert np.all(proba[:, 1] == 0)
    assert np.allclose(proba.sum(1), 1)


def test_constant_voxels_and_few_volumes_give_finite_predictions(build) -> None:
    X, age = cohort(2)
    X[:, :4] = 0
    assert np.isfinite(build("linear-voxels", SHAPE).fit(X, age).predict(X)).all()
    with pytest.raises(ValueError, match="All training volumes of linear-voxels are equal"):
        build("linear-voxels", SHAPE).fit(X * 0, age)


@pytest.mark.parametrize(("task", "y"), [(AD, np.zeros(5, int)), (None, np.array([60.0]))])
def test_a_training_set_without_contrast_is_one_sentence(build, task, y) -> None:
    X, _ = cohort(len(y))
    model = build("linear-voxels", SHAPE, **({"task": task} if task else {}))
    with pytest.raises(ValueError, match="use a larger training size"):
        model.fit(X, y)


def test_a_block_larger_than_the_volume_is_refused(build) -> None:
    with pytest.raises(ValueError, match="between 1 and 8"):
        build("linear-voxels", SHAPE, block=9)


def test_a_memory_map_is_read_as_an_array_is(build, tmp_path) -> None:
    X, age = cohort(10)
    np.save(tmp_path / "volumes.npy", X)
    mapped = np.load(tmp_path / "volumes.npy", mmap_mode="r")
    first, second = (build("linear-voxels", SHAPE).fit(v, age).predict(v) for v in (X, mapped))
    assert np.array_equal(first, second)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    block=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_blocks_average_every_voxel_once(shape, block, seed) -> None:
    volume = np.random.default_rng(seed).normal(size=shape)
    averaged = block_average(volume, block)
    for index in np.ndindex(averaged.shape):
        cube = volume[tuple(slice(i * block, (i + 1) * block) for i in index)]
        assert averaged[index] == pytest.approx(cube.mean(), abs=1e-5)
    assert averaged.shape == tuple(-(-size // block) for size in shape)


def test_estimators_import_no_torch() -> None:
    code = "import sys, baselines.estimators; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
