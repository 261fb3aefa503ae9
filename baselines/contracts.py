"""What the builders are given: the attributes they read of a card, a task and an encoder handle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

Params = Mapping[str, Any]
"""Every setting of a model by name, complete and already checked."""

Shape = tuple[int, int, int]
"""Volume shape (D, H, W) in voxels: left-right, back-front, bottom-top."""


class Card(Protocol):
    """An encoder's card."""

    name: str
    channels: int


class Task(Protocol):
    """What is predicted."""

    kind: str
    """``"regression"`` or ``"classification"``."""
    classes: tuple[str, ...]
    n_outputs: int
    """1 for regression and for two classes (one logit), else the number of classes."""


class EncoderHandle(Protocol):
    """A 2D encoder as a model receives it: how to make it, and what it needs and gives."""

    name: str
    channels: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    min_size: int
    """Smallest height and width of a slice, in pixels."""
    feature_dim: int
    position_at: str
    """``"features"``: position embeddings act on the encoder's output; ``"output"``: on the 32
    numbers that the model makes of it."""

    def make(self) -> nn.Module:
        """Return a new encoder (B, C, H, W) -> (B, feature_dim), pretrained or random."""
        ...
