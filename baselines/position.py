"""Position embeddings, which make a model sensitive to the positions of slices."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def position(kind: str, norm: bool, n_slices: int, features: int, first: int = 0) -> nn.Module:
    """Build the position embedding of slice features (B, n_slices, features).

    The papers' embedding has two parts: vectors that are added, and a LayerNorm over all slices and
    features, whose weights and biases differ between slices so that it also encodes the position.
    Each part can be used alone. If the added vectors are followed only by linear maps and the mean
    over slices, they add a constant that does not depend on the order of the slices; with mean
    pooling, the position therefore matters only through the LayerNorm.

    Parameters
    ----------
    kind : {"none", "learned", "sinusoidal"}
        No vectors, one learned vector per slice, or fixed vectors.
    norm : bool
        Whether the LayerNorm is used, also with ``none``.
    n_slices, features : int
        Number of slices, and dimension of the features of each.
    first : int
        Position of the first slice if slices before it are skipped; sinusoids depend on it.

    Raises
    ------
    ValueError
        If `kind` is unknown.
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
    """Adds one learned vector per slice.

    The initialisation is Kaiming-normal (fan out, linear) for the papers' shape (1, features,
    n_slices, 1, 1), i.e. with standard deviation 1 / sqrt(n_slices).
    """

    def __init__(self, n_slices: int, features: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(n_slices, features))
        nn.init.normal_(self.vectors, std=n_slices**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_slices, features) to the same."""
        return x + self.vectors


class Sinusoidal(nn.Module):
    """Adds sines and cosines of the slice number (Vaswani et al. 2017).

    The wavelengths form a geometric progression. The module has no parameters.
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
