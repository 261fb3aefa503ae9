"""What can be named: cards of encoders, models and datasets. Imports no torch and no bench.

A plugin needs ``from registry import encoder, model, dataset`` and the card types below.
"""

from registry.cards import (
    Choice,
    Constraints,
    DatasetCard,
    EncoderCard,
    Float,
    Int,
    ModelCard,
    Option,
    Task,
    Weights,
)
from registry.core import catalogue, dataset, encoder, model

__all__ = [
    "Choice",
    "Constraints",
    "DatasetCard",
    "EncoderCard",
    "Float",
    "Int",
    "ModelCard",
    "Option",
    "Task",
    "Weights",
    "catalogue",
    "dataset",
    "encoder",
    "model",
]
