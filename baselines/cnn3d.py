"""3D-CNN: the papers' trunk in three dimensions, applied to the whole volume."""

from __future__ import annotations

from torch import Tensor, nn

from baselines.blocks import FEATURES, Trunk
from baselines.contracts import EncoderHandle, Params, Shape, Task

MIN_SIZE = 4
"""Smallest number of voxels along an axis; with fewer, instance norm would fail."""


def build(params: Params, task: Task, shape: Shape, encoder: EncoderHandle | None) -> CNN3D:
    """Build the 3D-CNN, which has no encoder.

    Raises
    ------
    ValueError
        If the volume has fewer than 4 voxels along an axis.
    """
    if min(shape) < MIN_SIZE:
        raise ValueError(
            f"A volume of {'x'.join(map(str, shape))} voxels is too small for the 3D-CNN, which "
            f"needs at least {MIN_SIZE} along every axis; use a finer grid."
        )
    return CNN3D(params["dropout"], task.n_outputs)


class CNN3D(nn.Module):
    """Five 3D blocks, a convolution to 64 channels, a global average, Linear to the outputs.

    The weights of the last layer keep torch's initialisation, with a zero bias. Ages are
    standardised, and the Kaiming-normal initialisation of the other layers would result in initial
    predictions that are several standard deviations off.
    """

    def __init__(self, dropout: float, n_outputs: int) -> None:
        super().__init__()
        self.trunk = Trunk(dims=3)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(FEATURES, n_outputs)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map volumes (B, 1, D, H, W) to (B, n_outputs)."""
        return self.output(self.dropout(self.trunk(x)))
