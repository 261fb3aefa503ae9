"""What can be named: cards of encoders, models, datasets, metrics and executors.

No torch and nothing of bench is imported here. A plugin imports the decorators ``encoder``,
``model``, ``dataset``, ``metric`` and ``executor`` and the card types below.
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
