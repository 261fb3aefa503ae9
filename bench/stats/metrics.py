"""Metrics of one run on one set of subjects, with their undefined cases.

A metric that cannot be computed is NaN together with the reason; it is never a substitute number.
Predictions are ages (N,), probabilities of the positive class (N,) or of every class (N, K).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.jackknife import (
    average_precision_without,
    r2_without,
    r_without,
    rmse_without,
)
from bench.stats.metric import Floats, Mask, Metric, Score, is_constant
from bench.stats.thresholds import placements, precision_steps
from bench.stats.weighted import (
    ratio,
    weighted_auc,
    weighted_precision,
    weighted_r,
    weighted_r2,
    weighted_rmse,
)

SMALLEST_P = float(np.finfo(np.float64).tiny)
"""A p too small for a float is still not zero."""

ECE_BINS = 15
"""Bins of equal width over the probability of the positive class."""

PROBABILITY_FLOOR = 1e-7  # float32 sigmoids reach 0 and 1; one confident error is not infinite
_ONE_AGAINST_REST = re.compile(r"auc_(\d+)")
_NAN = float("nan")


_CLASSES = ("binary", "multiclass")
_ERROR = (0.0, np.inf)


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
        return _auc_of_class(int(found[1]))
    raise ValueError(f"there is no metric {name!r}; choose one of {', '.join(METRICS)}")


def add_metric(added: Metric) -> None:
    """Make a plugin's metric known, in place of an earlier one of its name that is no built-in.

    Raises
    ------
    ValueError
        When a built-in metric has the name.
    """
    if added.name in BUILT_IN or _ONE_AGAINST_REST.fullmatch(added.name):
        raise ValueError(f"there is a built-in metric {added.name!r}; choose another name")
    METRICS[added.name] = added


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
    return score_of(name, truth, prediction, threshold)


def score_of(name: str, truth: Floats, prediction: Floats, threshold: float) -> Score:
    """Return the value of checked arrays, or why there is none."""
    if reason := undefined(name, truth, prediction, threshold):
        return Score(_NAN, reason)
    value = value_of(name, truth, prediction, threshold)
    return Score(value, "" if np.isfinite(value) else "its function returned no finite number")


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
    kind = metric(name)
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
    """Return the metric of checked arrays on which it is defined."""
    kind = metric(name)
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
        For a metric that is no mean over subjects, such as RMSE.
    """
    kind = metric(name)
    if kind.terms is None:
        raise ValueError(f"{name} is not a mean over subjects")
    return np.asarray(kind.terms(truth, kind.given(prediction, threshold)), dtype=np.float64)


def values_without_each(name: str, truth: Floats, prediction: Floats, threshold: float) -> Floats:
    """Return the values (N,) of checked arrays with each subject left out in turn.

    NaN where the metric is undefined without a subject.
    """
    kind = metric(name)
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
    """Return the metric of every run where each subject counts as often as it was drawn.

    Parameters
    ----------
    name : str
        A name of `METRICS`.
    truth : array (N,)
    stack : array (S, N) or (S, N, K)
        On which the metric is defined.
    weights : array (B, N)
        Not negative.
    threshold : float
        As for `compute`.

    Returns
    -------
    array (B, S)
        NaN where the metric is undefined under the weights.

    Raises
    ------
    ValueError
        When weights of a metric without a weighted form are no whole numbers.
    """
    kind = metric(name)
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
        raise ValueError(f"{kind.label} has no form with weights that are no whole numbers")
    values = np.full((len(weights), len(stack)), _NAN)
    for resample, count in enumerate(counts):
        drawn = np.repeat(np.arange(len(truth)), count)
        for run, row in enumerate(stack):
            if not undefined(kind.name, truth[drawn], row[drawn], threshold):
                values[resample, run] = value_of(kind.name, truth[drawn], row[drawn], threshold)
    return values


@cache
def _auc_of_class(label: int) -> Metric:
    """Return the AUC of one of several classes against the rest."""

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


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "mae", "MAE", "years", False, ("regression",), terms=_absolute_errors, bounds=_ERROR
        ),
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
            value=_correlation,  # of two binary variables it is Matthews' coefficient
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
}
"""The metrics by name, the primary one of each task before its others, plugins' metrics last;
`metric` also knows the one-against-rest ``auc_<class index>``."""

BUILT_IN = frozenset(METRICS)
"""The names of the metrics that are no plugin's."""
