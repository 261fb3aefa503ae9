"""Permutation-invariant pooling of slice embeddings, (B, S, features) to (B, features)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.blocks import start_small


def pooling(kind: str, features: int, small_start: bool) -> nn.Module:
    """Build a pooling layer.

    Parameters
    ----------
    kind : {"mean", "max", "attention"}
        The kind of pooling.
    features : int
        Dimension of the embedding of a slice.
    small_start : bool
        Whether the linear layers of attention are initialised as N(0, .01), as in the papers with
        their own encoder, instead of torch's default.

    Raises
    ------
    ValueError
        If `kind` is unknown.
    """
    if kind == "mean":
        return Mean()
    if kind == "max":
        return Max()
    if kind == "attention":
        return Attention(features, small_start)
    raise ValueError(f"pool={kind} is unknown; choose mean, max or attention.")


class Mean(nn.Module):
    """Mean over slices."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, S, features) to (B, features)."""
        return x.mean(dim=1)


class Max(nn.Module):
    """Maximum over slices, feature by feature."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, S, features) to (B, features)."""
        return x.amax(dim=1)


class Attention(nn.Module):
    """Attention of a learned query to the slices, with one head and no query projection.

    The pooled value is passed through a LayerNorm and an output projection.
    """

    def __init__(self, features: int, small_start: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, features))
        nn.init.xavier_uniform_(self.query)
        self.key = nn.Linear(features, features)
        self.value = nn.Linear(features, features)
        self.norm = nn.LayerNorm(features)
        self.output = nn.Linear(features, features)
        if small_start:
            for layer in (self.key, self.value, self.output):
                start_small(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, S, features) to (B, features)."""
        query = self.query.expand(x.shape[0], 1, -1)
        # The scores are scaled by 1 / sqrt(features), because there is one head.
        pooled = F.scaled_dot_product_attention(query, self.key(x), self.value(x))
        return self.output(self.norm(pooled)).squeeze(1)
