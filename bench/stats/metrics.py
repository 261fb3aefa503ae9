"""Metrics of one run on one set of subjects, with their undefined cases.

A metric that cannot be computed is NaN together with the reason; it is never a substitute number.
Predictions are ages (N,), probabilities of the positive class (N,) or of every class (N, K).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONSTANT = 1e-12
"""A spread below this fraction of the values is float noise, not variation."""

SMALLEST_P = float(np.finfo(np.float64).tiny)
"""A p too small for a float is still not zero."""

ECE_BINS = 15
"""Bins of equal width over the probability of the positive class."""

PROBABILITY_FLOOR = 1e-7  # float32 sigmoids reach 0 and 1; one confident error is not infinite
_ONE_AGAINST_REST = re.compile(r"auc_(\d+)")


@dataclass(frozen=True)
class Metric:
    """What a metric is called, which direction is better and what it may be used for.

    Parameters
    ----------
    name, label : str
        The name in the database and on the command line, and the one in a table's head.
    unit : str
        Empty for a number without a unit.
    higher_is_better : bool
        The declared direction.
    tasks : tuple of str
        Of ``"regression"``, ``"binary"``, ``"multiclass"``: where it is defined.
    ranked : bool
        Whether models may be ranked by it. Sensitivity alone is not: all positive has 1; nor is
        ECE: the prior has 0.
    tested : bool
        Whether differences may be tested.
    bounds : tuple of float
        The smallest and the largest value there can be.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    tasks: tuple[str, ...]
    ranked: bool = True
    tested: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    def title(self) -> str:
        """The label with its unit, if there is one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


class Score(NamedTuple):
    """A metric's value; where it is undefined, NaN and the reason in words."""

    value: float
    reason: str = ""


_CLASSES = ("binary", "multiclass")
_ERROR = (0.0, np.inf)

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("mae", "MAE", "years", False, ("regression",), bounds=_ERROR),
        Metric("rmse", "RMSE", "years", False, ("regression",), bounds=_ERROR),
        Metric("r2", "R²", "", True, ("regression",), bounds=(-np.inf, 1.0)),
        Metric("r", "Pearson r", "", True, ("regression",), bounds=(-1.0, 1.0)),
        Metric("auc", "AUC", "", True, ("binary",)),
        Metric("balanced_accuracy", "Balanced accuracy", "", True, _CLASSES),
        Metric("accuracy", "Accuracy", "", True, _CLASSES),
        Metric("sensitivity", "Sensitivity", "", True, ("binary",), ranked=False),
        Metric("specificity", "Specificity", "", True, ("binary",), ranked=False),
        Metric("average_precision", "Average precision", "", True, ("binary",)),
        Metric("mcc", "MCC", "", True, ("binary",), tested=False, bounds=(-1.0, 1.0)),
        Metric("f1", "F1", "", True, ("binary",), tested=False),
        Metric("brier", "Brier score", "", False, ("binary",)),
        Metric("log_loss", "Log loss", "", False, _CLASSES, bounds=_ERROR),
        Metric("ece", "ECE", "", False, ("binary",), ranked=False, tested=False),
    )
}
"""The metrics by name, the primary one of each task before its others; `metric` also knows the
one-against-rest ``auc_<class index>``."""

_SIDES = {
    "sensitivity": ("positive",),
    "specificity": ("negative",),
    **dict.fromkeys(("auc", "average_precision", "mcc", "f1"), ("positive", "negative")),
}
"""Of two classes, those without which a metric has no value."""


def metric(name: str) -> Metric:
    """Return the metric called `name`, a one-against-rest ``auc_<class index>`` included.

    Raises
    ------
    ValueError
        When there is no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    if found := _ONE_AGAINST_REST.fullmatch(name):
        label = f"AUC, class {found[1]} against the rest"
        return Metric(name, label, "", True, ("multiclass",), ranked=False, tested=False)
    raise ValueError(f"there is no metric {name!r}; choose one of {', '.join(METRICS)}")


def metrics_for(kind: str, n_classes: int = 0) -> tuple[str, ...]:
    """Return the names of the metrics of a task, the primary one first.

    Parameters
    ----------
    kind : str
        ``"regression"`` or ``"classification"``.
    n_classes : int
        Number of classes; ignored for regression.

    Raises
    ------
    ValueError
        When the kind is neither, or there are fewer than two classes.
    """
    if kind == "regression":
        return tuple(m.name for m in METRICS.values() if "regression" in m.tasks)
    if kind != "classification":
        raise ValueError(f"a task is regression or classification, not {kind!r}")
    if n_classes < 2:
        raise ValueError(f"classification needs at least two classes, not {n_classes}")
    task = "binary" if n_classes == 2 else "multiclass"
    names = tuple(m.name for m in METRICS.values() if task in m.tasks)
    columns = () if task == "binary" else tuple(f"auc_{k}" for k in range(n_classes))
    return names + columns


def primary_metric(kind: str, n_classes: int = 0) -> str:
    """Return ``mae`` for regression, ``auc`` for two classes, ``balanced_accuracy`` for more.

    Raises
    ------
    ValueError
        As `metrics_for`.
    """
    return metrics_for(kind, n_classes)[0]


def compute(name: str, truth: ArrayLike, prediction: ArrayLike, threshold: float = 0.5) -> Score:
    """Compute one metric of one run.

    Parameters
    ----------
    name : str
        A name of `METRICS`, or ``auc_<class index>``.
    truth : array (N,)
        Ages in years, or class indices.
    prediction : array (N,) or (N, K)
        Predicted ages; P(positive); or the probabilities of K classes.
    threshold : float
        Two classes: positive if P(positive) >= threshold. More classes: the most probable one.

    Returns
    -------
    Score
        Value and reason. Undefined, hence NaN: R2 of a constant target, r of a constant target or
        prediction; AUC, average precision, MCC, F1 and balanced accuracy where a class is absent,
        sensitivity and specificity where theirs is; MCC where every subject is put into one
        class; and everything where a prediction is not finite or no probability.

    Raises
    ------
    ValueError
        When the metric does not exist or does not fit the shapes, or the truth is not finite or
        no class index.

    Notes
    -----
    Log loss is unweighted, with probabilities floored at 1e-7. AUC is the Mann-Whitney form with
    ties counted one half; it is not flipped when below one half. Average precision is the sum over
    thresholds of the gain in recall times the precision, without interpolation and with subjects
    of one score at one threshold; at chance it is about the prevalence. ECE is the expected
    calibration error: over 15 bins of equal width of P(positive), 1 in the last of them, the mean
    distance between the predicted and the observed share of positives, weighted by subjects.
    """
    truth, prediction = checked(name, truth, prediction)
    if reason := undefined(name, truth, prediction, threshold):
        return Score(float("nan"), reason)
    return Score(value_of(name, truth, prediction, threshold))


def checked(name: str, truth: ArrayLike, prediction: ArrayLike) -> tuple[Floats, Floats]:
    """Return truth and prediction as float64 arrays that fit each other and the metric.

    Raises
    ------
    ValueError
        As `compute`.
    """
    tasks = metric(name).tasks
    truth = np.asarray(truth, dtype=np.float64)
    prediction = np.asarray(prediction, dtype=np.float64)
    if truth.ndim != 1 or prediction.ndim not in (1, 2) or len(truth) != len(prediction):
        raise ValueError(
            f"{name} needs truth (N,) and prediction (N,) or (N, K),"
            f" not {truth.shape} and {prediction.shape}"
        )
    if not np.isfinite(truth).all():
        raise ValueError("the truth has missing values; leave those subjects out first")
    if (prediction.ndim == 2) != ("multiclass" in tasks) and tasks != _CLASSES:
        raise ValueError(f"{name} is for {' or '.join(tasks)}, not predictions {prediction.shape}")
    if tasks != ("regression",):
        n_classes = prediction.shape[1] if prediction.ndim == 2 else 2
        if n_classes < 2:
            raise ValueError("two classes are predicted as P(positive), of shape (N,), not (N, 1)")
        if name.startswith("auc_") and int(name[4:]) >= n_classes:
            raise ValueError(f"{name} does not exist: the classes are 0 to {n_classes - 1}")
        if not np.isin(truth, np.arange(n_classes)).all():
            raise ValueError(f"the truth must be class indices from 0 to {n_classes - 1}")
    return truth, prediction


def undefined(name: str, truth: Floats, prediction: Floats, threshold: float) -> str:
    """Return why the metric has no value on these checked arrays, or an empty text."""
    if not len(truth):
        return "no subjects"
    if bad := int((~np.isfinite(prediction)).sum()):
        return f"{bad} of {prediction.size} predicted numbers are not finite"
    if metric(name).tasks == ("regression",):
        if name in ("r2", "r") and is_constant(truth):
            return "the target is constant"
        if name == "r" and is_constant(prediction):
            return "the prediction is constant"
        return ""
    if prediction.min() < -1e-6 or prediction.max() > 1 + 1e-6:
        return "the predictions are not probabilities"
    empty = [text for text, members in groups(name, truth, prediction).items() if not members.any()]
    if empty:
        return f"no subject is {empty[0]}"
    if name == "mcc" and is_constant(_guess(prediction, threshold)):
        return "every subject is put into one class"
    return ""


def value_of(name: str, truth: Floats, prediction: Floats, threshold: float) -> float:
    """Return the metric of checked arrays on which it is defined."""
    if name in _OF_PREDICTIONS:
        return _OF_PREDICTIONS[name](truth, prediction)
    if name in _OF_GUESSES:
        return _OF_GUESSES[name](truth, _guess(prediction, threshold))
    terms = terms_of(name, truth, prediction, threshold)
    return mean_of_means(terms, groups(name, truth, prediction).values())


def mean_of_means(terms: Floats, members: Iterable[Mask]) -> float:
    """Return the mean over groups of the terms' (N,) mean within each group."""
    return float(np.mean([terms[group].mean() for group in members]))


def groups(name: str, truth: Floats, prediction: Floats) -> dict[str, Mask]:
    """Return the groups of subjects over whose means the metric is averaged, named in words."""
    one_against_rest = _ONE_AGAINST_REST.fullmatch(name)
    if one_against_rest or name in _SIDES:
        positive = truth == (int(one_against_rest[1]) if one_against_rest else 1)
        both = {"positive": positive, "negative": ~positive}
        return {text: both[text] for text in _SIDES.get(name, tuple(both))}
    if name == "balanced_accuracy":
        n_classes = prediction.shape[1] if prediction.ndim == 2 else 2
        return {f"of class {k}": truth == k for k in range(n_classes)}
    return {"there": np.ones(len(truth), dtype=bool)}


def terms_of(name: str, truth: Floats, prediction: Floats, threshold: float) -> Floats:
    """Return each subject's contribution (N,), whose group means give the metric.

    Raises
    ------
    ValueError
        For a metric that is no mean over subjects, such as RMSE.
    """
    if name == "mae":
        return np.abs(prediction - truth)
    if name == "brier":
        return (prediction - truth) ** 2
    if name == "auc":
        return placements(truth == 1, prediction)
    if name.startswith("auc_"):
        label = int(name[4:])
        return placements(truth == label, prediction[:, label])
    if name == "log_loss":
        if prediction.ndim == 1:
            likelihood = np.where(truth == 1, prediction, 1 - prediction)
        else:
            likelihood = prediction[np.arange(len(truth)), truth.astype(int)]
        return -np.log(np.clip(likelihood, PROBABILITY_FLOOR, 1))
    if name in ("accuracy", "balanced_accuracy", "sensitivity", "specificity"):
        return (_guess(prediction, threshold) == truth).astype(np.float64)
    raise ValueError(f"{name} is not a mean over subjects")


def placements(positive: Mask, score: Floats) -> Floats:
    """Return DeLong's structural components (N,): each subject's own share of the AUC.

    A positive subject has the share of negatives that score below it, a negative one the share of
    positives above it, ties counted one half; the mean over either class is the AUC. In
    O(N log N) by midranks (Sun and Xu, IEEE Signal Processing Letters 2014).

    Parameters
    ----------
    positive : bool array (N,)
        Both classes present.
    score : array (N,)
        Higher means more positive.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    overall = rankdata(score)
    shares = np.empty(len(score))
    shares[positive] = (overall[positive] - rankdata(score[positive])) / n_negative
    shares[~positive] = 1 - (overall[~positive] - rankdata(score[~positive])) / n_positive
    return shares


def precision_steps(positive: Mask, score: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return what average precision is made of, threshold by threshold from the highest score.

    Parameters
    ----------
    positive : bool array (N,)
    score : array (N,)
        Higher means more positive; subjects of one score share a threshold.

    Returns
    -------
    step : int array (N,)
        The threshold at which each subject is first called positive.
    hits, called : array (T,)
        True positives, and subjects, that each of the T thresholds adds.
    """
    _, step = np.unique(-score, return_inverse=True)
    hits, called = np.bincount(step, weights=positive), np.bincount(step)
    return step, hits.astype(np.float64), called.astype(np.float64)


def is_constant(values: Floats) -> bool:
    """Whether the values vary by no more than float noise; one value alone does not vary."""
    return bool(np.ptp(values) <= CONSTANT * np.abs(values).max())


def _guess(prediction: Floats, threshold: float) -> Floats:
    """Return the class (N,) every subject is put into."""
    guess = prediction >= threshold if prediction.ndim == 1 else prediction.argmax(axis=1)
    return guess.astype(np.float64)


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


_OF_PREDICTIONS: dict[str, Callable[[Floats, Floats], float]] = {
    "rmse": _rmse,
    "r2": _r2,
    "r": _correlation,
    "average_precision": _average_precision,
    "ece": _calibration_error,
}
_OF_GUESSES: dict[str, Callable[[Floats, Floats], float]] = {
    "mcc": _correlation,  # of two binary variables it is Matthews' coefficient
    "f1": _f1,
}
