"""Loading of volumes from the memory map to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from registry.cards import Value

RESIDENT_SHARE = 0.5
"""Maximum fraction of a GPU's free memory for keeping a split on it."""

Augment = Callable[[Tensor, NDArray[np.int64], int], Tensor]
"""Function of volumes (b, 1, D, H, W), their positions in the split, and the epoch."""


class VolumeLoader:
    """Loads the scans of one split by index.

    A split is kept on a GPU if it fits into a fraction of the free memory. Otherwise, it is read
    from the memory map, which the system caches in memory for all processes. Then a thread
    prepares the next batch (in pinned memory for a GPU) during the computations on the current
    one. Volumes are transferred as float16 and converted to float32 on the device. The location
    does not affect results.

    Parameters
    ----------
    volumes : array (N, ...), float16 or float32
        The cohort, memory-mapped.
    rows : array of int (n,)
        The scans of this split.
    targets : array (n,) or None
        Float targets or class indices; None for the test set, whose labels only the driver has.
    device : torch.device
        The device of the batches.
    location : str, optional
        ``device`` or ``map``; default: the device if it is a GPU with enough memory.
    """

    def __init__(
        self,
        volumes: NDArray[np.generic],
        rows: NDArray[np.int64],
        targets: NDArray[np.float64] | None,
        device: torch.device,
        location: str | None = None,
    ) -> None:
        self.volumes = volumes
        self.rows = rows
        self.device = device
        self.targets = None if targets is None else torch.as_tensor(targets, device=device)
        self.location = location or _location_for(volumes, len(rows), device)
        self._resident: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def volumes_at(self, index: NDArray[np.int64]) -> Tensor:
        """Return the volumes (b, 1, D, H, W), float32, at positions `index` of this split."""
        return self._arrived(self._taken(index))

    def batches(
        self,
        order: NDArray[np.int64],
        size: int,
        *,
        epoch: int = 0,
        augment: Augment | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (volumes, targets) in the given order; the last batch may be smaller."""
        if self.targets is None:
            raise ValueError("this split has no targets")
        for index, volumes in self._drawn(np.asarray(order), size):
            if augment is not None:
                volumes = augment(volumes, index, epoch)
            yield volumes, self.targets[torch.as_tensor(index, device=self.device)]

    def volume_batches(self, size: int) -> Iterator[Tensor]:
        """Yield all volumes of this split in order."""
        for _, volumes in self._drawn(np.arange(len(self.rows)), size):
            yield volumes

    def _drawn(
        self, order: NDArray[np.int64], size: int
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        if self.location == "device":
            for index in parts:
                yield index, self.volumes_at(index)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
            ready = thread.submit(self._taken, parts[0]) if parts else None
            for number, index in enumerate(parts):
                assert ready is not None
                block = ready.result()
                if number + 1 < len(parts):
                    ready = thread.submit(self._taken, parts[number + 1])
                yield index, self._arrived(block)

    def _taken(self, index: NDArray[np.int64]) -> Tensor:
        """Return scans in the stored data type from the location of the split."""
        if self.location == "map":
            block = torch.from_numpy(np.ascontiguousarray(self.volumes[self.rows[index]]))
        else:
            if self._resident is None:
                kept = torch.from_numpy(np.ascontiguousarray(self.volumes[self.rows]))
                self._resident = kept.to(self.device)
            where = torch.as_tensor(index, device=self._resident.device)
            block = self._resident.index_select(0, where)
        pinned = self.device.type == "cuda" and self.location == "map"
        return block.pin_memory() if pinned else block

    def _arrived(self, block: Tensor) -> Tensor:
        return block.to(self.device, non_blocking=True).float().unsqueeze(1)


def augmentation(params: Mapping[str, Value], random_stream: str) -> Augment | None:
    """Return the augmentation of training volumes, None if the settings have none.

    Parameters
    ----------
    params : mapping
        The complete settings of a model.
    random_stream : str
        The seed of a trial, or the stream of a study.
    """
    from bench.train.augment import augmented, is_on

    if not is_on(params):
        return None
    return lambda volumes, samples, epoch: augmented(
        volumes, samples, params, random_stream=random_stream, epoch=epoch
    )


def _location_for(volumes: NDArray[np.generic], n: int, device: torch.device) -> str:
    if device.type != "cuda":
        return "map"
    free, _ = torch.cuda.mem_get_info(device)
    return "device" if n * volumes[:1].nbytes <= RESIDENT_SHARE * free else "map"
