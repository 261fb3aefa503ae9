"""Augmentations: whole batches on the device, every number fixed by random stream, epoch and scan.

torchvision's transforms change two-dimensional images and take one random change for a whole
batch from the global state; here each scan of a batch has a three-dimensional one of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.spec import seed_for
from registry.cards import Value
from registry.models import AXES

OPTIONS = ("flip", "shift", "rotate", "intensity", "noise", "drop_slices")
"""The recipe's options that are augmentations; each is off at 0 or false."""


def is_on(params: Mapping[str, Value]) -> bool:
    """Tell whether the recipe augments at all."""
    return any(params.get(name) for name in OPTIONS)


def augmented(
    volumes: Tensor,
    samples: NDArray[np.int64],
    params: Mapping[str, Value],
    *,
    random_stream: str,
    epoch: int,
) -> Tensor:
    """Return a batch as one epoch shows it to the network; the given tensor is left as it is.

    A scan's result depends on the random stream, the epoch and the scan, not on the rest of its
    batch.
    The order is flip, movement, intensity, dropped slices, noise: dropped slices look like the
    rest of the background, whatever the intensity, and carry the same noise.

    Parameters
    ----------
    volumes : Tensor (b, 1, D, H, W), float32
        Axis D runs from left to right.
    samples : array of int (b,)
        Each volume's position within the training set.
    params : mapping
        The resolved recipe:

        - ``flip``: mirror left and right with probability one half;
        - ``shift``, ``rotate``: move along and turn about each axis, uniform in plus or minus so
          many voxels and degrees;
        - ``intensity``: multiply by 1 + u and add v, both uniform in plus or minus this;
        - ``noise``: standard deviation of added Gaussian noise;
        - ``drop_slices``: probability of each slice along ``axis`` (sagittal where the recipe has
          none) to become background, the volume's minimum; at least one slice stays.
    random_stream : str
        The seed, or the study's own stream.
    epoch : int
        From 1.

    Returns
    -------
    Tensor (b, 1, D, H, W), float32
        `volumes` itself when nothing is on.

    Raises
    ------
    ValueError
        When there is not one sample a volume.
    """
    if not is_on(params):
        return volumes
    if len(samples) != len(volumes):
        raise ValueError(f"{len(volumes)} volumes came with {len(samples)} samples")
    rngs = [
        np.random.default_rng(seed_for("augment", random_stream, epoch, int(s))) for s in samples
    ]
    dim = 2 + AXES[str(params.get("axis", "sagittal"))]
    # Drawn always and in this order, so that no option changes the numbers of another.
    uniform = np.stack([rng.random(9) for rng in rngs])
    per_slice = np.stack([rng.random(volumes.shape[dim]) for rng in rngs])
    signed = 2 * uniform - 1

    if params.get("flip"):
        mirrored = _per_volume(uniform[:, 0] < 0.5, volumes)
        volumes = torch.where(mirrored, volumes.flip(2), volumes)
    shift, rotate = float(params.get("shift", 0)), float(params.get("rotate", 0))
    if shift or rotate:
        volumes = moved(volumes, shift * signed[:, 1:4], rotate * signed[:, 4:7])
    if intensity := float(params.get("intensity", 0)):
        gain = _per_volume(1 + intensity * signed[:, 7], volumes)
        offset = _per_volume(intensity * signed[:, 8], volumes)
        volumes = volumes * gain + offset
    if share := float(params.get("drop_slices", 0)):
        volumes = _without_slices(volumes, per_slice, share, dim)
    if sd := float(params.get("noise", 0)):
        volumes = volumes + sd * _noise(rngs, volumes)
    return volumes


def moved(volumes: Tensor, shifts: NDArray[np.float64], degrees: NDArray[np.float64]) -> Tensor:
    """Turn each volume about its centre, then shift it; trilinear, in one resampling.

    A movement is rigid in voxels whatever the grid's proportions. What comes in from outside
    repeats the border, which is background.

    Parameters
    ----------
    volumes : Tensor (b, 1, D, H, W), float32
        The batch.
    shifts : array (b, 3)
        Voxels along D, H, W.
    degrees : array (b, 3)
        Angles about D, H, W, applied in this order; a positive angle turns the axis that follows
        (D, H, W, D ...) towards the one after it.

    Returns
    -------
    Tensor (b, 1, D, H, W), float32
        The moved batch.
    """
    half = np.array(volumes.shape[2:]) / 2
    # A voxel of the result comes from R^-1 (voxel - shift), both measured from the centre.
    inverse = np.stack([_rotation(angles).T for angles in degrees])
    origin = -(inverse @ shifts[:, :, None])[:, :, 0] / half
    # grid_sample measures each axis in half lengths and names W first.
    turn = torch.as_tensor(inverse / half[:, None], dtype=torch.float32, device=volumes.device)
    start = torch.as_tensor(origin, dtype=torch.float32, device=volumes.device)
    d, h, w = (
        torch.arange(n, dtype=torch.float32, device=volumes.device) - (n - 1) / 2
        for n in volumes.shape[2:]
    )
    # One term an axis, summed, rather than affine_grid: its matrix product may run in TF32 on a
    # GPU, which keeps ten bits of a coordinate.
    grid = torch.stack(
        [
            (start[:, to, None] + turn[:, to, 0, None] * d)[:, :, None, None]
            + (turn[:, to, 1, None] * h)[:, None, :, None]
            + (turn[:, to, 2, None] * w)[:, None, None, :]
            for to in (2, 1, 0)
        ],
        dim=-1,
    )
    return F.grid_sample(volumes, grid, padding_mode="border", align_corners=False)


def _rotation(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix (3, 3) that turns about axis 0, then 1, then 2."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[first, second], [first, second]] = math.cos(angle)
        turn[second, first], turn[first, second] = math.sin(angle), -math.sin(angle)
        matrix = turn @ matrix
    return matrix


def _without_slices(
    volumes: Tensor, per_slice: NDArray[np.float64], share: float, dim: int
) -> Tensor:
    """Make background of the slices along `dim` whose number in [0, 1) is below `share`."""
    dropped = per_slice < share
    # The largest number is the last to go: it stays even where all would be dropped.
    dropped[np.arange(len(dropped)), per_slice.argmax(axis=1)] = False
    shape = [len(dropped), 1, 1, 1, 1]
    shape[dim] = -1
    mask = torch.as_tensor(dropped, device=volumes.device).view(shape)
    return torch.where(mask, volumes.amin(dim=(1, 2, 3, 4), keepdim=True), volumes)


def _noise(rngs: list[np.random.Generator], like: Tensor) -> Tensor:
    """Return standard normal fields, drawn on the CPU: the same numbers on every device."""
    fields = np.empty(like.shape, dtype=np.float32)
    for rng, field in zip(rngs, fields, strict=True):
        rng.standard_normal(dtype=np.float32, out=field)
    return torch.from_numpy(fields).to(like.device)


def _per_volume(values: NDArray[np.generic], like: Tensor) -> Tensor:
    """Return one value a volume, shaped to meet a batch; float32 unless it is a truth value."""
    column = torch.as_tensor(values, device=like.device).view(-1, 1, 1, 1, 1)
    return column if column.dtype == torch.bool else column.to(like.dtype)
