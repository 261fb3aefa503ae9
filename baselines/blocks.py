"""Shared parts of several families: the papers' convolutional trunk, head and initialisation."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256, 256)
"""Channels of the five blocks, in 2D and 3D."""

FEATURES = 64
"""Output channels of the trunk."""

EMBEDDING = 32
"""Dimension of the embedding of a slice."""

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}


class Block(nn.Module):
    """Convolution of width 3, instance norm, max pool by 2 and ReLU, in 2 or 3 dimensions.

    An axis is not pooled if fewer than two positions would remain, so that the trunk accepts small
    grids; at 91 x 109 x 91 every axis is pooled five times, as in the papers.
    """

    def __init__(self, dims: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = CONV[dims](n_in, n_out, kernel_size=3, padding=1)
        self.norm = NORM[dims](n_out)
        self.max_pool = MAX_POOL[dims]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_in, ...) to (B, n_out, ...) of half the size."""
        kernel = [2 if size >= 4 else 1 for size in x.shape[2:]]
        x = self.conv(x)
        # Compiled training steps take 0.7 to 0.95 of the time this way; others would be slower.
        if torch.compiler.is_compiling():
            return F.relu(self.pooled_norm(x, kernel))
        return F.relu(self.max_pool(self.norm(x), kernel))

    def pooled_norm(self, x: Tensor, kernel: list[int]) -> Tensor:
        """Normalise after pooling, which is equivalent because the norm preserves the order."""
        dims = tuple(range(2, x.dim()))
        var, mean = torch.var_mean(x.float(), dims, correction=0, keepdim=True)
        pooled = self.max_pool(x, kernel).float()
        return ((pooled - mean) * torch.rsqrt(var + self.norm.eps)).to(x.dtype)


class Trunk(nn.Module):
    """The papers' five blocks, a convolution of width 1 to 64 channels, and a global average.

    Convolutions are initialised Kaiming-normal (fan out, ReLU) with zero biases. The slice encoder
    and the 3D-CNN are this trunk in 2 and 3 dimensions.

    Parameters
    ----------
    dims : int
        2 or 3.
    channels : int
        Channels of the input.
    """

    def __init__(self, dims: int, channels: int = 1) -> None:
        super().__init__()
        widths = (channels, *WIDTHS)
        self.blocks = nn.Sequential(*(Block(dims, a, b) for a, b in pairwise(widths)))
        self.last = CONV[dims](WIDTHS[-1], FEATURES, kernel_size=1)
        self.norm = NORM[dims](FEATURES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                start_kaiming(module)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, ...) to (B, 64)."""
        x = F.relu(self.norm(self.last(self.blocks(x))))
        return x.mean(dim=tuple(range(2, x.dim())))


def head(n_in: int, width: int, n_outputs: int, small_start: bool) -> nn.Sequential:
    """Return Linear, ReLU and Linear, with a zero bias in the last layer.

    Ages are standardised on the training set, so that a zero bias corresponds to the papers'
    initialisation with the mean age of the training set. With `small_start`, the weights of the
    first layer are initialised as N(0, .01) instead of torch's default.
    """
    hidden, output = nn.Linear(n_in, width), nn.Linear(width, n_outputs)
    if small_start:
        start_small(hidden)
    nn.init.zeros_(output.bias)
    return nn.Sequential(hidden, nn.ReLU(), output)


def start_kaiming(layer: nn.Conv2d | nn.Conv3d | nn.Linear) -> None:
    """Initialise a layer Kaiming-normal (fan out, ReLU; He et al. 2015) with a zero bias."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def start_small(layer: nn.Linear) -> None:
    """Initialise a linear layer as N(0, .01) with a zero bias, as in the papers."""
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.zeros_(layer.bias)
