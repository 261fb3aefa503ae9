"""Checkpoints, from which an interrupted training run is resumed."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch

from bench.files import atomic_write, remove_parts

logger = logging.getLogger(__name__)

SPARE = 50
"""Minimum time between two saves, relative to the duration of one, so that saving takes 2 %."""


class Checkpoint:
    """A file that is replaced at the end of an epoch.

    Epochs that are shorter than `SPARE` times the duration of saving are not all saved.

    Parameters
    ----------
    file : pathlib.Path
        The file of the checkpoint.
    identity : str
        Identifies the training run; a checkpoint with another identity is ignored.
    """

    def __init__(self, file: Path, identity: str) -> None:
        self.file = file
        self.identity = identity
        self._cost = 0.0
        self._last = time.perf_counter()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the saved state with tensors on `device`; None if there is none."""
        remove_parts(self.file)
        if not self.file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, map_location=device, weights_only=True)
        except Exception as error:
            # The file can only be damaged by a disk error; training then starts again.
            logger.warning(
                "the checkpoint could not be read (%s); training starts again", type(error).__name__
            )
            return None
        return state if state["identity"] == self.identity else None

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last save."""
        return time.perf_counter() - self._last >= SPARE * self._cost

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file; if that fails, log a warning."""
        started = time.perf_counter()
        try:
            with atomic_write(self.file) as stream:
                torch.save({**state, "identity": self.identity}, stream)
        except (OSError, RuntimeError) as error:
            # torch raises a RuntimeError if it cannot complete the file.
            logger.warning("the checkpoint could not be written: %s", error)
        self._last = time.perf_counter()
        self._cost = self._last - started

    def remove(self) -> None:
        """Delete the file after training has finished."""
        self.file.unlink(missing_ok=True)
