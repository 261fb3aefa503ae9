"""Metrics of plugins: from the cards of the registry to the objects of the statistics."""

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
    """Make the metrics of all loaded plugins known to tables, figures and tests.

    Raises
    ------
    UserError
        When a built-in metric has the name of one, or its tasks do not exist or do not go together.
    """
    for card in catalogue.metrics:
        unknown = sorted(set(card.tasks) - set(TASKS))
        if unknown or not card.tasks:
            raise UserError(
                f"The metric {card.name!r} is for the tasks {card.tasks}; give a tuple of "
                f"{', '.join(map(repr, TASKS))}."
            )
        if "regression" in card.tasks and len(card.tasks) > 1:
            raise UserError(
                f"The metric {card.name!r} is for ages and for classes; register one for each."
            )
        try:
            add_metric(metric_of(card))
        except ValueError as error:
            raise UserError(f"{card.plugin}: {error}.") from None


def metric_of(card: MetricCard) -> Metric:
    """Return what the statistics need of a plugin's metric."""
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
            # Whatever a plugin's function raises, the user needs to know whose fault it is.
            raise UserError(
                f"The metric {card.name} of {card.plugin} fails: {type(error).__name__}: {error}"
            ) from error
        wanted = truth.shape if card.per_subject else ()
        if found.shape != wanted:
            what = "one number a subject" if card.per_subject else "one number"
            raise UserError(
                f"The metric {card.name} of {card.plugin} must return {what}, of shape {wanted}, "
                f"not {found.shape}; per_subject says which of the two it is."
            )
        return found

    return call
