"""Volumes on their way from the memory map to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from registry.cards import Value

RESIDENT_SHARE = 0.5
"""Share of a GPU's free memory that a resident split may take."""

Augment = Callable[[Tensor, NDArray[np.int64], int], Tensor]
"""From volumes (b, 1, D, H, W), their positions in the split and the epoch to changed volumes."""


class VolumeLoader:
    """The scans of one split, drawn by index.

    The split lies on a GPU where a share of its memory holds it. Otherwise it stays in the memory
    map, of which the system keeps in memory what fits, once for all processes; a thread makes the
    next batch ready (in pinned memory for a GPU) while one is computed on. Volumes travel as
    float16 and become float32 on the device; where they lie changes no number.

    Parameters
    ----------
    volumes : array (N, ...), float16 or float32
        The cohort, memory-mapped: nothing is read before it is asked for.
    rows : array of int (n,)
        Which scans belong to this split.
    targets : array (n,) or None
        Float targets or class indices; None for the test set, whose labels stay with the driver.
    device : torch.device
        Where batches go.
    location : str, optional
        ``device`` or ``map``; default: the device where it has room and is not the CPU.
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
        """Yield (volumes, targets) in the given order, the last batch as small as it comes out."""
        if self.targets is None:
            raise ValueError("this split has no targets")
        for index, volumes in self._drawn(np.asarray(order), size):
            if augment is not None:
                volumes = augment(volumes, index, epoch)
            yield volumes, self.targets[torch.as_tensor(index, device=self.device)]

    def volume_batches(self, size: int) -> Iterator[Tensor]:
        """Yield the volumes of this split in its own order."""
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
        """Return the scans as they are stored, wherever they lie."""
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
    """Return how training volumes are changed at random, None where the settings change nothing.

    Parameters
    ----------
    params : mapping
        The complete settings of a model.
    random_stream : str
        What the random numbers derive from, with the epoch and the scan.
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
