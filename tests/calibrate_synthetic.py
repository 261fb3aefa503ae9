"""Calibration of the free parameter of the synthetic cohorts, run before training any network.

``python tests/calibrate_synthetic.py 1.0 1.5`` prints, for each value of VARIABILITY, the test AUC
of a linear model on voxels for AD, its MAE for age, and its AUC on the null twin, at 4 mm, 160
subjects, 96 for training and 32 for testing, for seeds that the shipped cohorts do not use.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import mean_absolute_error, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.data.synthetic import Spec
from bench.data.synthetic.image import volume
from bench.data.synthetic.people import Traits, image_traits, labels

COHORT_SEEDS = (101, 102, 103, 104, 105, 106)
SPLITS = 5
COMPONENTS = 40


def cohort(kind: str, seed: int, variability: float) -> tuple[NDArray, list[Traits]]:
    """Return block-averaged, z-scored volumes, (160, voxels), and the written labels."""
    spec = Spec(f"calibration-{kind}", kind, voxel_mm=4, n_subjects=160, seed=seed)
    rows = []
    for subject in range(spec.n_subjects):
        counts = volume(spec, subject, image_traits(spec, subject), variability)
        scan = np.pad(counts.astype(np.float32), ((0, 0), (0, 1), (0, 0)))
        scan = (scan - scan.mean()) / scan.std()
        blocks = scan.reshape(23, 2, 28, 2, 23, 2).mean(axis=(1, 3, 5))
        rows.append(blocks.ravel())
    return np.stack(rows), [labels(spec, subject) for subject in range(spec.n_subjects)]


def splits(seed: int) -> list[tuple[NDArray, NDArray]]:
    """Return `SPLITS` random (train, test) halves of 96 and 32 of 160 subjects."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(160) for _ in range(SPLITS)]
    return [(order[:96], order[128:]) for order in orders]


def diagnosis_auc(kind: str, seed: int, variability: float) -> float:
    """Return the mean test AUC of a logistic regression on principal components."""
    x, who = cohort(kind, seed, variability)
    y = np.array([one.diagnosis == "AD" for one in who])
    scores = []
    for train, test in splits(seed):
        model = make_pipeline(
            StandardScaler(), PCA(COMPONENTS, random_state=0), LogisticRegression(max_iter=5000)
        )
        model.fit(x[train], y[train])
        scores.append(roc_auc_score(y[test], model.decision_function(x[test])))
    return float(np.mean(scores))


def age_mae(seed: int, variability: float) -> tuple[float, float]:
    """Return the mean test MAE in years of a ridge regression and of predicting the mean."""
    x, who = cohort("age", seed, variability)
    y = np.array([one.age for one in who])
    scores = []
    for train, test in splits(seed):
        model = make_pipeline(StandardScaler(), PCA(COMPONENTS, random_state=0), Ridge())
        model.fit(x[train], y[train])
        prior = np.full(len(test), y[train].mean())
        scores.append(
            (
                mean_absolute_error(y[test], model.predict(x[test])),
                mean_absolute_error(y[test], prior),
            )
        )
    mae, prior_mae = np.mean(scores, axis=0)
    return float(mae), float(prior_mae)


def main() -> None:
    """Print one line per value of VARIABILITY."""
    warnings.simplefilter("error", ConvergenceWarning)
    for variability in map(float, sys.argv[1:]):
        ad = [diagnosis_auc("ad", seed, variability) for seed in COHORT_SEEDS]
        null = [diagnosis_auc("null", seed, variability) for seed in COHORT_SEEDS]
        mae, prior = np.mean([age_mae(seed, variability) for seed in COHORT_SEEDS], axis=0)
        print(
            f"variability {variability:g}: AUC ad {np.mean(ad):.3f} "
            f"({', '.join(f'{auc:.2f}' for auc in ad)}), null {np.mean(null):.3f} "
            f"({', '.join(f'{auc:.2f}' for auc in null)}); "
            f"age MAE {mae:.2f} years, predicting the mean {prior:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
