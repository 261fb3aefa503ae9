"""Properties of all metrics, including those of plugins: their parts agree with their value."""

import numpy as np
import pytest

from bench.stats.measured import RunPredictions, measure_runs
from bench.stats.metric import Metric
from bench.stats.metrics import (
    METRICS,
    add_metric,
    compute,
    metric_of,
    metrics_for,
    values_without_each,
    weighted_values,
)

N = 24
CASES = [(name, task) for name, kind in METRICS.items() for task in kind.tasks]
CASES += [("auc_1", "multiclass"), ("ccc", "regression"), ("error_4", "regression")]


@pytest.fixture(autouse=True)
def plugin_metrics():
    """Add a metric of either form, as plugins do."""

    def concordance(truth, prediction):
        """Lin's concordance correlation coefficient (Biometrics 45, 1989)."""
        moments = np.cov(truth, prediction, bias=True)
        return 2 * moments[0, 1] / (np.trace(moments) + (truth.mean() - prediction.mean()) ** 2)

    def fourth_powers(truth, prediction):
        return (prediction - truth) ** 4

    task = ("regression",)
    add_metric(Metric("ccc", "CCC", "", True, task, value=concordance, bounds=(-1.0, 1.0)))
    add_metric(Metric("error_4", "", "", False, task, terms=fourth_powers, bounds=(0.0, np.inf)))
    yield
    for name in ("ccc", "error_4"):
        del METRICS[name]


def sample(task, seed=0, noise=1.0):
    """Return truth (N,) and predictions (N,) or (N, 3), with all classes."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        truth = rng.uniform(50, 80, N)
        return truth, truth + noise * rng.normal(0, 5, N)
    truth = rng.permutation(np.arange(N) % (2 if task == "binary" else 3)).astype(float)
    if task == "binary":
        return truth, 1 / (1 + np.exp(-(6 * truth - 3) + noise * rng.normal(0, 4, N)))
    logits = 6 * np.eye(3)[truth.astype(int)] + noise * rng.normal(0, 4, (N, 3))
    return truth, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_subjects_left_out_one_by_one_give_the_values_without_each(name, task):
    truth, prediction = sample(task, 1)
    one_by_one = [
        compute(name, np.delete(truth, i), np.delete(prediction, i, axis=0)).value for i in range(N)
    ]
    found = values_without_each(name, truth, prediction, 0.5)
    assert found == pytest.approx(np.array(one_by_one), rel=1e-10)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_the_weighted_form_is_the_metric_of_repeated_subjects(name, task):
    truth, prediction = sample(task, 2)
    rng = np.random.default_rng(3)
    counts = np.stack([np.ones(N), *rng.multinomial(N, np.full(N, 1 / N), 10)]).astype(float)
    found = weighted_values(name, truth, prediction[None], counts)[:, 0]
    repeated = [np.repeat(np.arange(N), each.astype(int)) for each in counts]
    wanted = [compute(name, truth[rows], prediction[rows]).value for rows in repeated]
    assert found == pytest.approx(np.array(wanted), rel=1e-9, nan_ok=True)
    assert np.isfinite(found[0])


@pytest.mark.parametrize(("name", "task"), CASES)
def test_the_value_is_within_its_bounds_and_the_truth_is_no_worse_than_noise(name, task):
    kind = metric_of(name)
    low, high = kind.bounds
    for seed in range(10):
        value = compute(name, *sample(task, seed)).value
        assert low <= value <= high
        best = compute(name, *sample(task, seed, noise=1e-9)).value
        assert best >= value if kind.higher_is_better else best <= value


@pytest.mark.parametrize(("name", "task"), CASES)
def test_the_order_of_subjects_changes_nothing(name, task):
    truth, prediction = sample(task, 4)
    order = np.random.default_rng(5).permutation(N)
    shuffled = compute(name, truth[order], prediction[order]).value
    assert shuffled == pytest.approx(compute(name, truth, prediction).value, rel=1e-12)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_without_a_finite_prediction_there_is_a_reason_and_no_number(name, task):
    truth, prediction = sample(task, 6)
    prediction[3] = np.nan
    score = compute(name, truth, prediction)
    assert np.isnan(score.value)
    assert "not finite" in score.reason


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_tested_metric_has_a_variance_near_that_of_a_bootstrap(name, task):
    if not metric_of(name).tested:
        with pytest.raises(ValueError, match="not tested"):
            measure_runs(name, sample(task)[0], RunPredictions(sample(task)[1][None], (0,)))
        return
    truth, prediction = sample(task, 9, noise=2.0)
    measured = measure_runs(name, truth, RunPredictions(prediction[None], (0,)))
    variance = float(measured.deviations[0] @ measured.deviations[0])
    weights = np.random.default_rng(8).multinomial(N, np.full(N, 1 / N), 2000).astype(float)
    resampled = np.nanvar(weighted_values(name, truth, prediction[None], weights))
    assert resampled / 1.6 < variance < resampled * 1.6


def test_every_metric_of_a_task_is_covered_here():
    for kind, n_classes in (("regression", 0), ("classification", 2), ("classification", 3)):
        assert {name for name in metrics_for(kind, n_classes) if not name.startswith("auc_")} <= {
            name for name, _ in CASES
        }


def test_similar_names_to_one_against_rest_and_any_order_of_tasks_are_allowed():
    hits = Metric(
        "auc_like",
        "",
        "",
        True,
        ("multiclass", "binary"),
        terms=lambda truth, classes: (truth == classes).astype(float),
        of_classes=True,
    )
    add_metric(hits)
    try:
        for task in ("binary", "multiclass"):
            truth, prediction = sample(task, 3)
            assert compute("auc_like", truth, prediction) == compute("accuracy", truth, prediction)
    finally:
        del METRICS["auc_like"]


def test_a_metric_has_either_terms_or_a_value():
    with pytest.raises(ValueError, match="a value or terms"):
        Metric("neither", "Neither", "", True, ("binary",))


@pytest.mark.parametrize("name", ["mae", "auc_7"])
def test_a_built_in_metric_is_never_replaced(name):
    with pytest.raises(ValueError, match="choose another name"):
        add_metric(Metric(name, "Mine", "", True, ("regression",), value=lambda t, p: 0.0))
