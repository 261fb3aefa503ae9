"""Compare the training loop with a bare PyTorch loop of the same model on tensors in memory.

Both do the same work: optimiser steps on the training set, the recalibration of BatchNorm, and the
predictions of the validation set that select the best epoch. They alternate, and the ratio is
computed for each pair, because the speed of a shared machine varies over time.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.plan import resolve_params
from bench.train.encoder import encoder_handle
from bench.train.learner import Learner
from bench.train.loader import VolumeLoader
from bench.train.loop import fit
from registry.cards import Task
from registry.core import catalogue, resolve

LIMIT = 1.05
TASK = Task("age", "regression")
SHAPE = (46, 55, 46)
SCANS, EPOCHS, PAIRS = 32, 2, 5
CPU = torch.device("cpu")


def build(name: str, encoder: str | None) -> tuple[torch.nn.Module, dict]:
    """Return a network with its settings."""
    card = catalogue.model(name)
    params = resolve_params(card, {"stride": 4})
    handle = encoder_handle(catalogue.encoder(encoder), None) if encoder else None
    torch.manual_seed(0)
    return resolve(card.target)(params, TASK, SHAPE, handle), params


def bare(network: torch.nn.Module, volumes: torch.Tensor, ages: torch.Tensor) -> None:
    """Train with the loop that one would write in a notebook."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-4)
    wanted = (ages - ages.mean()) / ages.std()
    for _ in range(EPOCHS):
        network.train()
        for index in torch.randperm(len(volumes)).split(8):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(network(volumes[index])[:, 0], wanted[index])
            loss.backward()
            optimizer.step()
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        with torch.no_grad():
            if norms:
                for block in volumes.split(8):
                    network(block)
            network.eval()
            for block in volumes[:8].split(8):
                network(block)


def ours(network: torch.nn.Module, params: dict, volumes: np.ndarray, ages: np.ndarray) -> None:
    """Train with the loop of this package from a memory map."""
    rows = np.arange(len(ages))
    learner = Learner(network, TASK, params, ages, device=CPU, precision="fp32")
    fit(
        learner,
        VolumeLoader(volumes, rows, ages, CPU),
        VolumeLoader(volumes, rows[:8], ages[:8], CPU),
        params,
        epochs=EPOCHS,
        random_stream="0",
        on_epoch=lambda epoch, score: None,
    )


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "volumes.npy"
        np.save(file, rng.normal(size=(SCANS, *SHAPE)).astype(np.float16))
        volumes = np.load(file, mmap_mode="r")
        ages = rng.normal(65, 8, SCANS)
        inside = torch.from_numpy(np.asarray(volumes, dtype=np.float32))[:, None].contiguous()
        years = torch.from_numpy(ages).float()
        for name, encoder in (
            ("slice2d-own", "own"),
            ("slice2d-scratch", "resnet18"),
            ("cnn3d", None),
        ):
            ratios = []
            for pair in range(PAIRS + 1):
                network, params = build(name, encoder)
                started = time.perf_counter()
                ours(network, params, volumes, ages)
                middle = time.perf_counter()
                network, _ = build(name, encoder)
                begun = time.perf_counter()
                bare(network, inside, years)
                if pair:
                    ratios.append((middle - started) / (time.perf_counter() - begun))
            ratio = statistics.median(ratios)
            verdict = "ok" if ratio <= LIMIT else f"over the limit of {LIMIT}"
            print(f"{name}: {ratio:.3f} of the bare loop's time, {verdict}")
