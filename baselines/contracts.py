"""The attributes of cards, tasks and encoder handles that builders use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

Params = Mapping[str, Any]
"""All settings of a model by name, complete and validated."""

Shape = tuple[int, int, int]
"""Volume shape (D, H, W) in voxels: left-right, back-front, bottom-top."""


class Card(Protocol):
    """The card of an encoder."""

    name: str
    channels: int


class Task(Protocol):
    """The prediction task."""

    kind: str
    """``"regression"`` or ``"classification"``."""
    classes: tuple[str, ...]
    n_outputs: int
    """1 for regression and two classes (one logit), otherwise the number of classes."""


class EncoderHandle(Protocol):
    """A 2D encoder as passed to a model: its properties, and how to create it."""

    name: str
    channels: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    min_size: int
    """Smallest height and width of a slice, in pixels."""
    feature_dim: int
    position_at: str
    """``"features"``: position embeddings are added to the output of the encoder; ``"output"``: to
    the embedding that the model computes from it."""

    def make(self) -> nn.Module:
        """Return a new encoder from (B, C, H, W) to (B, feature_dim), pretrained or random."""
        ...
