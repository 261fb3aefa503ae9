"""Compute metrics of one run on one set of subjects.

A metric that cannot be computed is NaN, together with the reason.
Predictions are ages (N,), probabilities of the positive class (N,) or of every class (N, K).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.builtin import BUILT_IN, auc_of_class
from bench.stats.metric import Floats, Mask, Metric, Score
from bench.stats.weighted import ratio

SMALLEST_P = float(np.finfo(np.float64).tiny)
"""The smallest p-value; those too small for a float are not reported as zero."""

_ONE_AGAINST_REST = re.compile(r"auc_(\d+)")
_NAN = float("nan")

METRICS: dict[str, Metric] = {each.name: each for each in BUILT_IN}
"""The metrics by name. The primary metric of each task comes first, metrics of plugins come last.
`metric_of` also returns the one-against-rest ``auc_<class index>``."""


def metric_of(name: str) -> Metric:
    """Return a metric by name, including the one-against-rest ``auc_<class index>``.

    Raises
    ------
    ValueError
        If there is no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    if found := _ONE_AGAINST_REST.fullmatch(name):
        return auc_of_class(int(found[1]))
    raise ValueError(f"there is no metric {name!r}; choose one of {', '.join(METRICS)}")


def add_metric(added: Metric) -> None:
    """Register the metric of a plugin, replacing an earlier one with the same name.

    Raises
    ------
    ValueError
        If there is a built-in metric with this name.
    """
    if added.name in {each.name for each in BUILT_IN} or _ONE_AGAINST_REST.fullmatch(added.name):
        raise ValueError(f"{added.name!r} is the name of a built-in metric; choose another name")
    METRICS[added.name] = added


def metrics_for(kind: str, n_classes: int = 0) -> tuple[str, ...]:
    """Return the names of the metrics of a task, the primary metric first.

    Parameters
    ----------
    kind : str
        ``"regression"`` or ``"classification"``.
    n_classes : int
        Number of classes; ignored for regression.

    Raises
    ------
    ValueError
        If the kind is neither of these, or there are fewer than two classes.
    """
    if kind == "regression":
        return tuple(m.name for m in METRICS.values() if "regression" in m.tasks)
    if kind != "classification":
        raise ValueError(f"kind must be 'regression' or 'classification', got {kind!r}")
    if n_classes < 2:
        raise ValueError(f"classification needs at least two classes, got {n_classes}")
    task = "binary" if n_classes == 2 else "multiclass"
    names = tuple(m.name for m in METRICS.values() if task in m.tasks)
    columns = () if task == "binary" else tuple(f"auc_{k}" for k in range(n_classes))
    return names + columns


def primary_metric(kind: str, n_classes: int = 0) -> str:
    """Return ``mae`` for regression, ``auc`` for two classes, ``balanced_accuracy`` for more.

    Raises
    ------
    ValueError
        As for `metrics_for`.
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
        Predicted ages, P(positive), or the probabilities of K classes.
    threshold : float
        With two classes, a subject is positive if P(positive) >= threshold. With more classes,
        the most probable class is predicted.

    Returns
    -------
    Score
        Value and reason. The following are undefined and hence NaN: R2 of a constant target, r of
        a constant target or prediction; AUC, average precision, MCC, F1 and balanced accuracy if a
        class is absent, sensitivity and specificity if their class is absent; MCC if all subjects
        are assigned to one class; and all metrics if a prediction is not finite or not a
        probability.

    Raises
    ------
    ValueError
        If the metric does not exist or does not match the shapes, or the truth is not finite or
        not a class index.

    Notes
    -----
    Log loss is unweighted, with probabilities floored at 1e-7. AUC is the Mann-Whitney form with
    ties counted one half; it is not flipped when below one half. Average precision is the sum over
    thresholds of the gain in recall times the precision, without interpolation; subjects with the
    same score share a threshold, and at chance it is about the prevalence. ECE is the expected
    calibration error: the mean distance between predicted and observed proportion of positives
    over 15 bins of P(positive) of equal width (the last of which includes 1), weighted by the
    number of subjects.
    """
    truth, prediction = checked(name, truth, prediction)
    return score_of(name, truth, prediction, threshold)


def score_of(name: str, truth: Floats, prediction: Floats, threshold: float) -> Score:
    """Return the value for checked arrays, or the reason why it is undefined."""
    if reason := undefined(name, truth, prediction, threshold):
        return Score(_NAN, reason)
    value = value_of(name, truth, prediction, threshold)
    return Score(value, "" if np.isfinite(value) else "its function returned no finite number")


def checked(name: str, truth: ArrayLike, prediction: ArrayLike) -> tuple[Floats, Floats]:
    """Return truth and prediction as float64 arrays that match each other and the metric.

    Raises
    ------
    ValueError
        As for `compute`.
    """
    tasks = metric_of(name).tasks
    truth = np.asarray(truth, dtype=np.float64)
    prediction = np.asarray(prediction, dtype=np.float64)
    if truth.ndim != 1 or prediction.ndim not in (1, 2) or len(truth) != len(prediction):
        raise ValueError(
            f"{name} needs truth of shape (N,) and prediction of shape (N,) or (N, K),"
            f" got {truth.shape} and {prediction.shape}"
        )
    if not np.isfinite(truth).all():
        raise ValueError("the truth has missing values; exclude these subjects first")
    fitting = {"multiclass"} if prediction.ndim == 2 else {"regression", "binary"}
    if not fitting & set(tasks):
        raise ValueError(
            f"{name} is for {' or '.join(tasks)}, got predictions of shape {prediction.shape}"
        )
    if tasks != ("regression",):
        n_classes = prediction.shape[1] if prediction.ndim == 2 else 2
        if n_classes < 2:
            raise ValueError(
                "with two classes, predictions must be P(positive) of shape (N,), got (N, 1)"
            )
        one_against_rest = _ONE_AGAINST_REST.fullmatch(name)
        if one_against_rest and int(one_against_rest[1]) >= n_classes:
            raise ValueError(f"{name} does not exist, because the classes are 0 to {n_classes - 1}")
        if not np.isin(truth, np.arange(n_classes)).all():
            raise ValueError(f"the truth must be class indices from 0 to {n_classes - 1}")
    return truth, prediction


def undefined(name: str, truth: Floats, prediction: Floats, threshold: float) -> str:
    """Return why the metric is undefined for these checked arrays, or an empty text."""
    kind = metric_of(name)
    if not len(truth):
        return "no subjects"
    if bad := int((~np.isfinite(prediction)).sum()):
        return f"{bad} of {prediction.size} predicted numbers are not finite"
    if kind.tasks != ("regression",) and not (
        prediction.min() >= -1e-6 and prediction.max() <= 1 + 1e-6
    ):
        return "the predictions are not probabilities"
    members = kind.groups(truth, prediction)
    empty = [text for text, group in members.items() if not group.any()]
    if empty:
        return f"no subject is {empty[0]}"
    return kind.undefined(truth, kind.given(prediction, threshold))


def value_of(name: str, truth: Floats, prediction: Floats, threshold: float) -> float:
    """Return the metric of checked arrays for which it is defined."""
    kind = metric_of(name)
    if kind.value is not None:
        return float(kind.value(truth, kind.given(prediction, threshold)))
    terms = terms_of(name, truth, prediction, threshold)
    return mean_of_means(terms, kind.groups(truth, prediction).values())


def mean_of_means(terms: Floats, members: Iterable[Mask]) -> float:
    """Return the mean over groups of the terms' (N,) mean within each group."""
    return float(np.mean([terms[group].mean() for group in members]))


def terms_of(name: str, truth: Floats, prediction: Floats, threshold: float) -> Floats:
    """Return each subject's contribution (N,), whose group means give the metric.

    Raises
    ------
    ValueError
        If the metric is not a mean over subjects, such as RMSE.
    """
    kind = metric_of(name)
    if kind.terms is None:
        raise ValueError(f"{name} is not a mean over subjects")
    return np.asarray(kind.terms(truth, kind.given(prediction, threshold)), dtype=np.float64)


def values_without_each(name: str, truth: Floats, prediction: Floats, threshold: float) -> Floats:
    """Return the values (N,) of checked arrays with each subject left out in turn.

    A value is NaN if the metric is undefined without the subject.
    """
    kind = metric_of(name)
    if kind.without_each is not None:
        return kind.without_each(truth, kind.given(prediction, threshold))
    values = np.full(len(truth), _NAN)
    for subject in range(len(truth)):
        others = np.delete(truth, subject), np.delete(prediction, subject, axis=0)
        if not undefined(name, *others, threshold):
            values[subject] = value_of(name, *others, threshold)
    return values


def weighted_values(
    name: str, truth: Floats, stack: Floats, weights: Floats, threshold: float = 0.5
) -> Floats:
    """Return the metric of every run in which each subject counts by its weight.

    Parameters
    ----------
    name : str
        A name of `METRICS`.
    truth : array (N,)
    stack : array (S, N) or (S, N, K)
        Predictions for which the metric is defined.
    weights : array (B, N)
        Non-negative weights.
    threshold : float
        As for `compute`.

    Returns
    -------
    array (B, S)
        NaN if the metric is undefined with the weights.

    Raises
    ------
    ValueError
        If weights are not integers, for a metric without a weighted form.
    """
    kind = metric_of(name)
    if kind.weighted is not None:
        return kind.weighted(truth, stack, weights)
    if kind.terms is None:
        return _repeated(kind, truth, stack, weights, threshold)
    terms = np.stack([terms_of(name, truth, row, threshold) for row in stack])
    members = kind.groups(truth, stack[0]).values()
    means = [ratio(weights @ (terms * group).T, weights @ group) for group in members]
    return np.asarray(sum(means) / len(means))


def _repeated(
    kind: Metric, truth: Floats, stack: Floats, weights: Floats, threshold: float
) -> Floats:
    counts = weights.astype(int)
    if (counts != weights).any():
        raise ValueError(
            f"the weights of {kind.label} must be integers, because it has no weighted form"
        )
    values = np.full((len(weights), len(stack)), _NAN)
    for resample, count in enumerate(counts):
        drawn = np.repeat(np.arange(len(truth)), count)
        for run, row in enumerate(stack):
            if not undefined(kind.name, truth[drawn], row[drawn], threshold):
                values[resample, run] = value_of(kind.name, truth[drawn], row[drawn], threshold)
    return values
