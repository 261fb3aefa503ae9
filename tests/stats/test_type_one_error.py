"""A seeded simulation: how often two equal architectures are said to differ at .05.

Five seeds and 100 subjects, effects of seed, of subject, of subject by architecture, and noise.
The larger design of many cells is a matter of a long run; this one is sized to be repeated.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.stats.classical import paired_t
from bench.stats.inference import compare
from bench.stats.measured import Runs, measure

SEEDS = (0, 1, 2, 3, 4)
SUBJECTS = 100
REPEATS = 2000


def ages(rng: np.random.Generator):
    """Errors of one typical size for both arms: the expected absolute errors are equal."""
    truth = rng.normal(60, 10, SUBJECTS)
    shared = rng.normal(size=SUBJECTS)
    arms = []
    for _ in range(2):
        size = np.exp(rng.normal(scale=0.1, size=(len(SEEDS), 1)))
        own = rng.normal(size=SUBJECTS)
        noise = rng.normal(scale=0.5, size=(len(SEEDS), SUBJECTS))
        arms.append(truth + 5 * size * (shared + own + noise))
    return truth, arms


def diagnoses(rng: np.random.Generator):
    """Scores with one typical separation of the classes for both arms: equal expected AUC."""
    truth = np.arange(SUBJECTS) % 2
    shared = rng.normal(size=SUBJECTS)
    arms = []
    for _ in range(2):
        separation = 1.5 + rng.normal(scale=0.2, size=(len(SEEDS), 1))
        own = rng.normal(scale=0.7, size=SUBJECTS)
        noise = rng.normal(scale=0.7, size=(len(SEEDS), SUBJECTS))
        arms.append(1 / (1 + np.exp(-(separation * truth + shared + own + noise))))
    return truth, arms


@pytest.mark.parametrize(("name", "draw"), [("mae", ages), ("auc", diagnoses)])
def test_equal_architectures_are_told_apart_about_one_time_in_twenty(name, draw):
    rng = np.random.default_rng(20240607)
    headline, over_seeds = [], []
    for _ in range(REPEATS):
        truth, arms = draw(rng)
        a, b = (measure(name, truth, Runs(arm, SEEDS)) for arm in arms)
        headline.append(compare(a, b).p < 0.05)
        over_seeds.append(paired_t(a.values, b.values).p < 0.05)
    # Standard error of a rate of .05 over 2,000 repeats: .005.
    assert 0.03 <= np.mean(headline) <= 0.08
    assert np.mean(over_seeds) > 0.11
