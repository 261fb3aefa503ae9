"""Pieces that several families share: the papers' convolutional trunk, their head, their inits."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256, 256)
"""Channels of the five blocks, in 2D as in 3D."""

FEATURES = 64
"""Channels that the trunk ends with."""

EMBEDDING = 32
"""Numbers that a slice is embedded in."""

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}


class Block(nn.Module):
    """3-wide convolution, instance norm, max pool by 2, ReLU, in 2 or 3 dimensions.

    An axis on which the pool would leave fewer than two positions is not pooled, so that the trunk
    accepts small grids; at 91 x 109 x 91 every axis is pooled five times, as in the papers.
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
        # Measured: compiled steps take .7 to .95 of the time, others are slower.
        if torch.compiler.is_compiling():
            return F.relu(self.pooled_norm(x, kernel))
        return F.relu(self.max_pool(self.norm(x), kernel))

    def pooled_norm(self, x: Tensor, kernel: list[int]) -> Tensor:
        """Normalise after pooling: without affine parameters the norm keeps the order of values."""
        dims = tuple(range(2, x.dim()))
        var, mean = torch.var_mean(x.float(), dims, correction=0, keepdim=True)
        pooled = self.max_pool(x, kernel).float()
        return ((pooled - mean) * torch.rsqrt(var + self.norm.eps)).to(x.dtype)


class Trunk(nn.Module):
    """The papers' five blocks, a 1-wide convolution to 64 channels, and a global average.

    Convolutions start Kaiming-normal (fan out, ReLU) with zero biases. Slice encoder and 3D-CNN
    are this same trunk in 2 and in 3 dimensions.

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
    """Linear, ReLU, Linear, the last bias at zero.

    The harness standardises ages on the training set, so that a zero bias is the papers' start at
    the training mean age. `small_start`: the first layer starts at N(0, .01), not as torch does.
    """
    hidden, output = nn.Linear(n_in, width), nn.Linear(width, n_outputs)
    if small_start:
        start_small(hidden)
    nn.init.zeros_(output.bias)
    return nn.Sequential(hidden, nn.ReLU(), output)


def start_kaiming(layer: nn.Conv2d | nn.Conv3d | nn.Linear) -> None:
    """Start a layer Kaiming-normal (fan out, ReLU; He et al. 2015) with a zero bias."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def start_small(layer: nn.Linear) -> None:
    """Start a linear layer at N(0, .01) with a zero bias, as the papers do."""
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.zeros_(layer.bias)
