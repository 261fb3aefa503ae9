"""Augmentations of batches on the device, determined by random stream, epoch and scan.

torchvision's transforms are two-dimensional, and apply one random change from the global random
state to a whole batch. Here, each scan of a batch has its own three-dimensional change.
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
"""Options of augmentations; each is off at 0 or false."""


def is_on(params: Mapping[str, Value]) -> bool:
    """Return whether any augmentation is on."""
    return any(params.get(name) for name in OPTIONS)


def augmented(
    volumes: Tensor,
    samples: NDArray[np.int64],
    params: Mapping[str, Value],
    *,
    random_stream: str,
    epoch: int,
) -> Tensor:
    """Return an augmented batch, without changing the given tensor.

    The result for a scan depends on the random stream, the epoch and the scan, but not on the rest
    of the batch. The order is flip, movement, intensity, dropped slices and noise, so that dropped
    slices have the same intensity and noise as the rest of the background.

    Parameters
    ----------
    volumes : Tensor (b, 1, D, H, W), float32
        The batch; axis D runs from left to right.
    samples : array of int (b,)
        The position of each volume in the training set.
    params : mapping
        The settings of the model:

        - ``flip``: flip left and right with probability one half;
        - ``shift``, ``rotate``: shift along and rotate about each axis by a uniform number of at
          most this many voxels and degrees, in both directions;
        - ``intensity``: multiply by 1 + u and add v, both uniform between minus and plus this;
        - ``noise``: standard deviation of added Gaussian noise;
        - ``drop_slices``: probability of replacing each slice along ``axis`` (default: sagittal) by
          background, which is the minimum of the volume; at least one slice is kept.
    random_stream : str
        The seed of a trial, or the stream of a study.
    epoch : int
        The epoch, starting from 1.

    Returns
    -------
    Tensor (b, 1, D, H, W), float32
        The augmented batch; `volumes` itself if no augmentation is on.

    Raises
    ------
    ValueError
        If the numbers of samples and volumes differ.
    """
    if not is_on(params):
        return volumes
    if len(samples) != len(volumes):
        raise ValueError(f"got {len(volumes)} volumes, but {len(samples)} samples")
    rngs = [
        np.random.default_rng(seed_for("augment", random_stream, epoch, int(s))) for s in samples
    ]
    dim = 2 + AXES[str(params.get("axis", "sagittal"))]
    # All numbers are always drawn in this order, so that options do not affect each other.
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
    """Rotate each volume about its centre and shift it, in one trilinear resampling.

    The movement is rigid in voxels, whatever the shape of the grid. Voxels from outside of the
    volume have the values of its border, which is background.

    Parameters
    ----------
    volumes : Tensor (b, 1, D, H, W), float32
        The batch.
    shifts : array (b, 3)
        Shifts along D, H and W in voxels.
    degrees : array (b, 3)
        Angles about D, H and W, applied in this order. A positive angle rotates the next axis (in
        the cyclic order D, H, W) towards the one after it.

    Returns
    -------
    Tensor (b, 1, D, H, W), float32
        The moved batch.
    """
    half = np.array(volumes.shape[2:]) / 2
    # A voxel of the result is sampled at R^-1 (voxel - shift), relative to the centre.
    inverse = np.stack([_rotation(angles).T for angles in degrees])
    origin = -(inverse @ shifts[:, :, None])[:, :, 0] / half
    # grid_sample expects coordinates in units of half the axis, in the order W, H, D.
    turn = torch.as_tensor(inverse / half[:, None], dtype=torch.float32, device=volumes.device)
    start = torch.as_tensor(origin, dtype=torch.float32, device=volumes.device)
    d, h, w = (
        torch.arange(n, dtype=torch.float32, device=volumes.device) - (n - 1) / 2
        for n in volumes.shape[2:]
    )
    # affine_grid is not used, because its matrix product may run in TF32 on a GPU, which has only
    # ten bits for a coordinate.
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
    """Return the matrix (3, 3) of rotations about axes 0, 1 and 2, in this order."""
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
    """Replace the slices along `dim` whose number in [0, 1) is below `share` by background."""
    dropped = per_slice < share
    # The slice with the largest number is always kept.
    dropped[np.arange(len(dropped)), per_slice.argmax(axis=1)] = False
    shape = [len(dropped), 1, 1, 1, 1]
    shape[dim] = -1
    mask = torch.as_tensor(dropped, device=volumes.device).view(shape)
    return torch.where(mask, volumes.amin(dim=(1, 2, 3, 4), keepdim=True), volumes)


def _noise(rngs: list[np.random.Generator], like: Tensor) -> Tensor:
    """Return standard normal noise, generated on the CPU so that it is the same on all devices."""
    fields = np.empty(like.shape, dtype=np.float32)
    for rng, field in zip(rngs, fields, strict=True):
        rng.standard_normal(dtype=np.float32, out=field)
    return torch.from_numpy(fields).to(like.device)


def _per_volume(values: NDArray[np.generic], like: Tensor) -> Tensor:
    """Reshape one value per volume to be broadcast over a batch; float32 unless it is boolean."""
    column = torch.as_tensor(values, device=like.device).view(-1, 1, 1, 1, 1)
    return column if column.dtype == torch.bool else column.to(like.dtype)
