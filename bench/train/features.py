"""Slice features of a frozen encoder, computed once per scan and kept in the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.disk import reserve_space
from bench.files import atomic_write
from bench.lock import locked
from bench.spec import canonical_json
from bench.train.loader import VolumeLoader
from bench.train.numerics import autocast, keep_small_convolutions_exact
from bench.train.weights import tensors_digest

SCANS = 8
"""Number of volumes per forward pass of the encoder."""


def features_of(
    network: nn.Module,
    volumes: NDArray[np.float16],
    rows: NDArray[np.int64],
    *,
    identity: dict[str, Any],
    folder: Path,
    device: torch.device,
    precision: str,
) -> NDArray[np.float32]:
    """Return the slice features of a cohort, computing those of `rows` if necessary.

    Parameters
    ----------
    network : nn.Module
        A network with a frozen module ``slices`` from volumes to slice features.
    volumes : array (N, D, H, W)
        The cohort.
    rows : array of int
        The scans whose features are needed.
    identity : dict
        Identifies the code, the cohort and the choice of slices; the tensors of the encoder, the
        precision and the type of device are added to it.
    folder : pathlib.Path
        The directory for features, with two files per identity.
    device, precision
        As for `Learner`.

    Returns
    -------
    array (N, S, feature_dim)
        The features, memory-mapped; only `rows` are valid.
    """
    network = network.to(device).eval()
    if precision == "bf16":
        keep_small_convolutions_exact(network, device)
    encoder: Any = network.slices
    identity = {
        **identity,
        "tensors": tensors_digest(_tensors(encoder)),
        "precision": precision,
        "device": device.type,
    }
    name = hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]
    file = folder / f"{name}.npy"
    loader = VolumeLoader(volumes, rows, None, device, location="map")
    with locked(file.with_suffix(".lock")), torch.no_grad():

        def embed(index: NDArray[np.int64]) -> NDArray[np.float32]:
            with autocast(device, precision):
                found = encoder(loader.volumes_at(index))
            features: NDArray[np.float32] = found.float().cpu().numpy()
            return features

        if not file.exists():
            shape = (len(volumes), *embed(np.arange(1)).shape[1:])
            part = file.with_suffix(".part")
            try:
                np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape).flush()
                # Writing to a memory map on a full disk would kill the process.
                with open(part, "r+b") as stream:
                    reserve_space(stream.fileno(), part.stat().st_size)
            except OSError:
                part.unlink(missing_ok=True)
                raise
            part.replace(file)
        filled = np.lib.format.open_memmap(file, mode="r+")
        done_file = file.with_suffix(".done")
        done = np.frombuffer(done_file.read_bytes(), bool) if done_file.exists() else None
        done = np.zeros(len(volumes), bool) if done is None else done.copy()
        missing = np.flatnonzero(~done[rows])
        for start in range(0, len(missing), SCANS):
            index = missing[start : start + SCANS]
            filled[rows[index]] = embed(index)
        if len(missing):
            filled.flush()
            done[rows] = True
            with atomic_write(done_file) as target:
                target.write(done.tobytes())
    found: NDArray[np.float32] = np.load(file, mmap_mode="r")
    return found


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return all tensors of a module, including those that are not in its state dict."""
    found = dict(module.state_dict()) | dict(module.named_buffers())
    for name, part in module.named_modules():
        own = {k: v for k, v in vars(part).items() if isinstance(v, torch.Tensor)}
        found |= {f"{name}.{k}".lstrip("."): v for k, v in own.items()}
    return found
