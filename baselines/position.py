"""Position embeddings: telling a set of slices apart by their place in the head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def position(kind: str, norm: bool, n_slices: int, features: int, first: int = 0) -> nn.Module:
    """Build what acts on slice features (B, n_slices, features) in the name of position.

    The papers' embedding is two things: vectors that are added, and a LayerNorm over all slices
    and features whose weight and bias differ by slice, and which therefore tells slices apart by
    itself. Both can be had alone. Vectors alone, followed by nothing but linear maps and the mean
    over slices, add the same constant whatever the order: under mean pooling it is the norm that
    makes place matter.

    Parameters
    ----------
    kind : str
        ``none``; ``learned``: one vector a slice; ``sinusoidal``: fixed vectors.
    norm : bool
        Whether the LayerNorm follows, also after ``none``.
    n_slices, features : int
        Slices that enter the model and numbers that describe each.
    first : int
        Place of the first of them, where slices before it are skipped: sinusoids keep the place.

    Raises
    ------
    ValueError
        When `kind` is none of the three.
    """
    added: nn.Module
    if kind == "none":
        added = nn.Identity()
    elif kind == "learned":
        added = Learned(n_slices, features)
    elif kind == "sinusoidal":
        added = Sinusoidal(n_slices, features, first)
    else:
        raise ValueError(f"position={kind} is unknown; choose none, learned or sinusoidal.")
    return nn.Sequential(added, nn.LayerNorm([n_slices, features])) if norm else added


class Learned(nn.Module):
    """One learned vector a slice, added.

    Kaiming-normal (fan out, linear) over the papers' (1, features, n_slices, 1, 1): std
    1 / sqrt(n_slices).
    """

    def __init__(self, n_slices: int, features: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(n_slices, features))
        nn.init.normal_(self.vectors, std=n_slices**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_slices, features) to the same."""
        return x + self.vectors


class Sinusoidal(nn.Module):
    """Sines and cosines of the slice number at geometric wavelengths (Vaswani et al. 2017), added.

    Has no parameters.
    """

    vectors: Tensor

    def __init__(self, n_slices: int, features: int, first: int = 0) -> None:
        super().__init__()
        pair = torch.arange(features) // 2
        rate = torch.exp(-math.log(10_000) * 2 * pair / features)
        angle = torch.arange(first, first + n_slices).unsqueeze(1) * rate
        even = torch.arange(features) % 2 == 0
        vectors = torch.where(even, angle.sin(), angle.cos())
        self.register_buffer("vectors", vectors, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_slices, features) to the same."""
        return x + self.vectors
