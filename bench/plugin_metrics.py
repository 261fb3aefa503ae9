"""Registration of the metrics of plugins with the statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.stats.metric import Floats, Metric
from bench.stats.metrics import add_metric
from registry.cards import MetricCard
from registry.core import catalogue, resolve
from registry.errors import UserError

TASKS = ("regression", "binary", "multiclass")


def add_plugin_metrics() -> None:
    """Make the metrics of all loaded plugins available to tables, figures and tests.

    Raises
    ------
    UserError
        If a metric has the name of a built-in one, or its tasks do not exist or cannot be combined.
    """
    for card in catalogue.metrics:
        unknown = sorted(set(card.tasks) - set(TASKS))
        if unknown or not card.tasks:
            raise UserError(
                f"The metric {card.name!r} has the tasks {card.tasks}; they must be a non-empty "
                f"tuple of {', '.join(map(repr, TASKS))}."
            )
        if "regression" in card.tasks and len(card.tasks) > 1:
            raise UserError(
                f"The metric {card.name!r} combines regression with classification; register a "
                "separate metric for each."
            )
        try:
            add_metric(metric_of(card))
        except ValueError as error:
            raise UserError(f"{card.plugin}: {error}.") from None


def metric_of(card: MetricCard) -> Metric:
    """Return the `Metric` that a card describes."""
    function = _guarded(card)
    return Metric(
        name=card.name,
        label=card.label,
        unit=card.unit,
        higher_is_better=card.higher_is_better,
        tasks=card.tasks,
        terms=function if card.per_subject else None,
        value=None if card.per_subject else function,
        of_classes=card.of_classes,
        ranked=card.ranked,
        tested=card.tested,
        bounds=card.bounds,
        stored=False,
    )


def _guarded(card: MetricCard) -> Callable[[Floats, Floats], Any]:
    function = resolve(card.target)

    def call(truth: Floats, prediction: Floats) -> Any:
        try:
            found = np.asarray(function(truth, prediction), dtype=np.float64)
        except Exception as error:
            # A plugin may raise anything; the message names the plugin.
            raise UserError(
                f"The metric {card.name} of {card.plugin} failed: {type(error).__name__}: {error}"
            ) from error
        wanted = truth.shape if card.per_subject else ()
        if found.shape != wanted:
            what = "one number per subject" if card.per_subject else "one number"
            raise UserError(
                f"The metric {card.name} of {card.plugin} must return {what} (shape {wanted}) "
                f"because it has per_subject={card.per_subject}, but it returned the shape "
                f"{found.shape}."
            )
        return found

    return call
