"""The built-in metrics."""

from __future__ import annotations

from functools import cache

import numpy as np

from bench.stats.jackknife import (
    average_precision_without,
    r2_without,
    r_without,
    rmse_without,
)
from bench.stats.metric import Floats, Mask, Metric, is_constant
from bench.stats.thresholds import placements, precision_steps
from bench.stats.weighted import (
    weighted_auc,
    weighted_precision,
    weighted_r,
    weighted_r2,
    weighted_rmse,
)

ECE_BINS = 15
"""The number of bins of equal width for the probability of the positive class."""

PROBABILITY_FLOOR = 1e-7
"""Keeps log losses finite, because float32 sigmoids can reach 0 and 1."""

_CLASSES = ("binary", "multiclass")
_ERROR = (0.0, np.inf)


@cache
def auc_of_class(label: int) -> Metric:
    """Return the AUC of one of several classes against all others."""

    def sides(truth: Floats, prediction: Floats) -> dict[str, Mask]:
        return {"positive": truth == label, "negative": truth != label}

    return Metric(
        f"auc_{label}",
        f"AUC, class {label} against the rest",
        "",
        True,
        ("multiclass",),
        terms=lambda truth, prediction: placements(truth == label, prediction[:, label]),
        groups=sides,
        weighted=lambda truth, stack, weights: weighted_auc(
            truth == label, stack[:, :, label], weights
        ),
        two_sample=True,
        ranked=False,
        tested=False,
    )


def _both_classes(truth: Floats, prediction: Floats) -> dict[str, Mask]:
    return {"positive": truth == 1, "negative": truth != 1}


def _positives(truth: Floats, prediction: Floats) -> dict[str, Mask]:
    return {"positive": truth == 1}


def _negatives(truth: Floats, prediction: Floats) -> dict[str, Mask]:
    return {"negative": truth != 1}


def _each_class(truth: Floats, prediction: Floats) -> dict[str, Mask]:
    n_classes = prediction.shape[1] if prediction.ndim == 2 else 2
    return {f"of class {k}": truth == k for k in range(n_classes)}


def _constant_target(truth: Floats, prediction: Floats) -> str:
    return "the target is constant" if is_constant(truth) else ""


def _constant_side(truth: Floats, prediction: Floats) -> str:
    reason = _constant_target(truth, prediction)
    return reason or ("the prediction is constant" if is_constant(prediction) else "")


def _one_class_called(truth: Floats, classes: Floats) -> str:
    return "every subject is put into one class" if is_constant(classes) else ""


def _absolute_errors(truth: Floats, prediction: Floats) -> Floats:
    return np.abs(prediction - truth)


def _squared_errors(truth: Floats, prediction: Floats) -> Floats:
    return (prediction - truth) ** 2


def _placements(truth: Floats, prediction: Floats) -> Floats:
    return placements(truth == 1, prediction)


def _log_losses(truth: Floats, prediction: Floats) -> Floats:
    if prediction.ndim == 1:
        likelihood = np.where(truth == 1, prediction, 1 - prediction)
    else:
        likelihood = prediction[np.arange(len(truth)), truth.astype(int)]
    return -np.log(np.clip(likelihood, PROBABILITY_FLOOR, 1))


def _hits(truth: Floats, classes: Floats) -> Floats:
    return (classes == truth).astype(np.float64)


def _rmse(truth: Floats, prediction: Floats) -> float:
    return float(np.sqrt(np.mean((prediction - truth) ** 2)))


def _r2(truth: Floats, prediction: Floats) -> float:
    return float(1 - np.sum((prediction - truth) ** 2) / np.sum((truth - truth.mean()) ** 2))


def _correlation(truth: Floats, prediction: Floats) -> float:
    x, y = prediction - prediction.mean(), truth - truth.mean()
    return float(np.clip((x @ y) / (np.sqrt(x @ x) * np.sqrt(y @ y)), -1, 1))


def _average_precision(truth: Floats, prediction: Floats) -> float:
    _, hits, called = precision_steps(truth == 1, prediction)
    return float(hits @ (hits.cumsum() / called.cumsum()) / hits.sum())


def _f1(truth: Floats, guess: Floats) -> float:
    return float(2 * (truth @ guess) / (truth.sum() + guess.sum()))


def _calibration_error(truth: Floats, prediction: Floats) -> float:
    bins = np.digitize(prediction, np.arange(1, ECE_BINS) / ECE_BINS)
    return float(np.abs(np.bincount(bins, weights=prediction - truth)).sum() / len(truth))


BUILT_IN: tuple[Metric, ...] = (
    Metric("mae", "MAE", "years", False, ("regression",), terms=_absolute_errors, bounds=_ERROR),
    Metric(
        "rmse",
        "RMSE",
        "years",
        False,
        ("regression",),
        value=_rmse,
        without_each=rmse_without,
        weighted=weighted_rmse,
        bounds=_ERROR,
    ),
    Metric(
        "r2",
        "R²",
        "",
        True,
        ("regression",),
        value=_r2,
        undefined=_constant_target,
        without_each=r2_without,
        weighted=weighted_r2,
        bounds=(-np.inf, 1.0),
    ),
    Metric(
        "r",
        "Pearson r",
        "",
        True,
        ("regression",),
        value=_correlation,
        undefined=_constant_side,
        without_each=r_without,
        weighted=weighted_r,
        bounds=(-1.0, 1.0),
    ),
    Metric(
        "auc",
        "AUC",
        "",
        True,
        ("binary",),
        terms=_placements,
        groups=_both_classes,
        weighted=lambda truth, stack, weights: weighted_auc(truth == 1, stack, weights),
        two_sample=True,
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        "",
        True,
        _CLASSES,
        terms=_hits,
        of_classes=True,
        groups=_each_class,
    ),
    Metric("accuracy", "Accuracy", "", True, _CLASSES, terms=_hits, of_classes=True),
    Metric(
        "sensitivity",
        "Sensitivity",
        "",
        True,
        ("binary",),
        terms=_hits,
        of_classes=True,
        groups=_positives,
        ranked=False,
    ),
    Metric(
        "specificity",
        "Specificity",
        "",
        True,
        ("binary",),
        terms=_hits,
        of_classes=True,
        groups=_negatives,
        ranked=False,
    ),
    Metric(
        "average_precision",
        "Average precision",
        "",
        True,
        ("binary",),
        value=_average_precision,
        groups=_both_classes,
        without_each=average_precision_without,
        weighted=weighted_precision,
    ),
    Metric(
        "mcc",
        "MCC",
        "",
        True,
        ("binary",),
        value=_correlation,  # For two binary variables, it is Matthews' coefficient.
        of_classes=True,
        groups=_both_classes,
        undefined=_one_class_called,
        tested=False,
        bounds=(-1.0, 1.0),
    ),
    Metric(
        "f1",
        "F1",
        "",
        True,
        ("binary",),
        value=_f1,
        of_classes=True,
        groups=_both_classes,
        tested=False,
    ),
    Metric("brier", "Brier score", "", False, ("binary",), terms=_squared_errors),
    Metric("log_loss", "Log loss", "", False, _CLASSES, terms=_log_losses, bounds=_ERROR),
    Metric(
        "ece",
        "ECE",
        "",
        False,
        ("binary",),
        value=_calibration_error,
        ranked=False,
        tested=False,
    ),
)
"""The primary metric of each task comes before its other metrics."""
