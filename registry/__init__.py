"""Cards that describe encoders, models, datasets, metrics and executors.

This package imports neither torch nor bench. Plugins import the decorators ``encoder``,
``model``, ``dataset``, ``metric`` and ``executor`` and the types of cards from it.
"""

from registry.cards import (
    Choice,
    Constraints,
    DatasetCard,
    EncoderCard,
    ExecutorCard,
    Float,
    Int,
    MetricCard,
    ModelCard,
    Option,
    Task,
    Weights,
)
from registry.core import catalogue, dataset, encoder, executor, metric, model

__all__ = [
    "Choice",
    "Constraints",
    "DatasetCard",
    "EncoderCard",
    "ExecutorCard",
    "Float",
    "Int",
    "MetricCard",
    "ModelCard",
    "Option",
    "Task",
    "Weights",
    "catalogue",
    "dataset",
    "encoder",
    "executor",
    "metric",
    "model",
]
