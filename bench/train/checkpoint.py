"""Where a training run stands, kept on disk so that a killed one goes on."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch

from bench.files import atomic_write, remove_parts

logger = logging.getLogger(__name__)

SPARE = 50
"""Saving is put off until so many times its own duration has passed: it costs 2 % at most."""


class Checkpoint:
    """One file, replaced as a whole at the end of an epoch.

    Every epoch that takes longer than `SPARE` saves is kept; of shorter ones a few seconds' worth
    may be lost.

    Parameters
    ----------
    file : pathlib.Path
        Where it is kept.
    identity : str
        What is being trained and on what; a file of another identity is not taken up.
    """

    def __init__(self, file: Path, identity: str) -> None:
        self.file = file
        self.identity = identity
        self._cost = 0.0
        self._last = time.perf_counter()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state that was saved, tensors on `device`; None when there is none."""
        remove_parts(self.file)
        if not self.file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, map_location=device, weights_only=True)
        except Exception as error:
            # Only a broken disk leaves such a file; the run begins anew, and its log says so.
            logger.warning("checkpoint not read: %s", type(error).__name__)
            return None
        return state if state["identity"] == self.identity else None

    @property
    def due(self) -> bool:
        """Whether enough time has passed to save again."""
        return time.perf_counter() - self._last >= SPARE * self._cost

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file; on a full disk the run goes on without."""
        started = time.perf_counter()
        try:
            with atomic_write(self.file) as stream:
                torch.save({**state, "identity": self.identity}, stream)
        except (OSError, RuntimeError) as error:
            # torch's own error, when it cannot finish the file.
            logger.warning("checkpoint not written: %s", error)
        self._last = time.perf_counter()
        self._cost = self._last - started

    def remove(self) -> None:
        """Forget the file: the run is complete."""
        self.file.unlink(missing_ok=True)
