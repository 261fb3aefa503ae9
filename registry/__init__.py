"""What can be named: cards of encoders, models, datasets and metrics.

No torch and nothing of bench is imported here.

A plugin needs ``from registry import encoder, model, dataset, metric`` and the card types below.
"""

from registry.cards import (
    Choice,
    Constraints,
    DatasetCard,
    EncoderCard,
    Float,
    Int,
    MetricCard,
    ModelCard,
    Option,
    Task,
    Weights,
)
from registry.core import catalogue, dataset, encoder, metric, model

__all__ = [
    "Choice",
    "Constraints",
    "DatasetCard",
    "EncoderCard",
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
    "metric",
    "model",
]
