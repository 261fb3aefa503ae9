"""Volumes on their way from the memory map to the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Feed:
    """The scans of one split, read by index from the cohort's memory map.

    Parameters
    ----------
    volumes : array (N, D, H, W), float16
        The cohort, memory-mapped: nothing is read before it is asked for.
    rows : array of int (n,)
        Which scans belong to this split.
    targets : array (n,) or None
        Float targets or class indices; None for the test set, whose labels stay with the driver.
    device : torch.device
        Where batches go.
    """

    def __init__(
        self,
        volumes: NDArray[np.float16],
        rows: NDArray[np.int64],
        targets: NDArray[np.float64] | None,
        device: torch.device,
    ) -> None:
        self.volumes = volumes
        self.rows = rows
        self.device = device
        self.targets = None if targets is None else torch.as_tensor(targets, device=device)

    def __len__(self) -> int:
        return len(self.rows)

    def volumes_at(self, index: NDArray[np.int64]) -> Tensor:
        """Return the volumes (b, 1, D, H, W), float32, at positions `index` of this split."""
        block = torch.from_numpy(np.ascontiguousarray(self.volumes[self.rows[index]]))
        return block.to(self.device, non_blocking=True).float().unsqueeze(1)

    def batches(self, order: NDArray[np.int64], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (volumes, targets) in the given order, the last batch as small as it comes out."""
        if self.targets is None:
            raise ValueError("this split has no targets")
        for start in range(0, len(order), size):
            index = order[start : start + size]
            where = torch.as_tensor(index, device=self.device)
            yield self.volumes_at(index), self.targets[where]

    def volume_batches(self, size: int) -> Iterator[Tensor]:
        """Yield the volumes of this split in its own order."""
        for start in range(0, len(self.rows), size):
            yield self.volumes_at(np.arange(start, min(start + size, len(self.rows))))
