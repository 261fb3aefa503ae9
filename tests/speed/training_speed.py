"""Compare training with the plain loop at 91 x 109 x 91, batch 8, with two steps per epoch.

Layouts are chosen by `bench.train.layout` as in a run of a thousand steps. Times do not include
compilation and the choice of layouts. The bare loop trains the same network on tensors in memory,
with the fastest of several layouts and the same reuse of freed memory. The plain loop runs in a
separate process with the default settings of torch. The loops take turns, and the fastest of five
epochs counts. By default all three models are timed; arguments select some of them.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from plain import plain_epoch, write_scans

from bench.data.volume import zscore
from bench.plan import resolve_params
from bench.train.encoder import encoder_handle
from bench.train.layout import Workload, time_layouts
from bench.train.learner import Learner
from bench.train.loader import VolumeLoader
from bench.train.loop import _State, _train_epoch
from bench.train.numerics import compiled, configure
from bench.unit import Layout
from registry.cards import Task
from registry.core import catalogue, resolve
from registry.models import complete_params

TASK = Task("age", "regression")
FULL, BRAIN = (91, 109, 91), (75, 93, 79)
SCANS, BATCH, EPOCHS = 16, 8, 5
CPU = torch.device("cpu")
MODELS = {
    "own": ("slice2d-own", "own"),
    "resnet18": ("slice2d-scratch", "resnet18"),
    "cnn3d": ("cnn3d", None),
}
GOALS = {
    "auto, full grid": {"own": 2.8, "resnet18": 2.8, "cnn3d": 2.0},
    "auto, brain box": {"own": 4.5, "resnet18": 4.5, "cnn3d": 3.5},
    "fp32, full grid": {"own": 1.0, "resnet18": 1.25, "cnn3d": 1.25},
}


def settings(name: str, **changes):
    """Return the complete settings of a model."""
    card = catalogue.model(MODELS[name][0])
    return complete_params(card, resolve_params(card, {"batch_size": BATCH, **changes}))


def build(name: str, params, shape):
    """Build a network as a trial does."""
    model, encoder = MODELS[name]
    handle = encoder_handle(catalogue.encoder(encoder), None) if encoder else None
    torch.manual_seed(0)
    return resolve(catalogue.model(model).target)(params, TASK, shape, handle)


def layout_of(name: str, precision: str, shape) -> Layout:
    """Choose the layout of a model by timing training steps."""
    params = settings(name)
    found = time_layouts(
        Workload(lambda: build(name, params, shape), TASK, params, precision, shape, CPU, 1000, {})
    )
    return Layout(**found["layout"])


Epoch = Callable[[], float]
"""Runs one epoch and returns its seconds."""


class Ours:
    """Epochs with the training loop of this package."""

    def __init__(self, name: str, volumes: np.ndarray, ages, precision: str, layout: Layout):
        params = settings(name)
        learner = Learner(
            build(name, params, volumes.shape[1:]),
            TASK,
            params,
            ages,
            device=CPU,
            precision=precision,
            layout=layout,
        )
        self.state = _State(learner, params, 2 * EPOCHS, "0")
        self.train = VolumeLoader(volumes, np.arange(SCANS), ages, CPU)
        self.outside = float("nan")
        """The proportion of the last epoch that was not spent in optimiser steps."""

    def __call__(self) -> float:
        self.state.fit.seconds["steps"] = 0.0
        started = time.perf_counter()
        _train_epoch(self.state, self.train, 1, "0", None)
        whole = time.perf_counter() - started
        self.outside = 1 - self.state.fit.seconds["steps"] / whole
        return whole


def bare(name: str, volumes: np.ndarray, ages, layout: Layout) -> Epoch:
    """Return a bare bf16 loop over tensors in memory, in one layout."""
    inside = torch.from_numpy(np.asarray(volumes, dtype=np.float32))[:, None]
    years = torch.from_numpy((ages - ages.mean()) / ages.std()).float()
    network = build(name, settings(name), volumes.shape[1:])
    network.to(memory_format=getattr(torch, layout.memory_format)).train()
    forward = compiled(network, layout.mode) if layout.mode else network
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-4)

    def epoch() -> float:
        started = time.perf_counter()
        for index in torch.randperm(len(inside)).split(BATCH):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs = forward(inside[index])
            torch.nn.functional.mse_loss(outputs.float()[:, 0], years[index]).backward()
            optimizer.step()
        return time.perf_counter() - started

    return epoch


def outside(elsewhere: Executor, *words) -> float:
    """Run an epoch of the plain loop in a separate process."""
    return elsewhere.submit(plain_epoch, *words).result()


def in_turn(epochs: Sequence[Epoch]) -> list[float]:
    """Return the fastest epoch of each loop; the loops take turns, after a warm-up epoch.

    Disturbances of the machine then affect all loops. The order is random in each round, because
    the speed of an epoch may depend on how the previous one left the memory fragmented.
    """
    rng = np.random.default_rng(0)
    spent: list[list[float]] = [[] for _ in epochs]
    for _ in range(1 + EPOCHS):
        for place in rng.permutation(len(epochs)):
            spent[place].append(epochs[place]())
    return [min(seconds[1:]) for seconds in spent]


def verdict(what: str, value: float, goal: float, *, at_most: bool = False) -> None:
    """Print a value with its goal."""
    met = value <= goal if at_most else value >= goal
    word = "at most" if at_most else "at least"
    print(f"{what:58} {value:7.2f}  {word} {goal:g}: {'met' if met else 'NOT MET'}", flush=True)


def training(folder: Path, elsewhere: Executor) -> None:
    """Compare epochs of the three models; `elsewhere` is the process of the plain loop."""
    files = write_scans(folder, SCANS, FULL)
    ages = np.random.default_rng(1).normal(65, 8, SCANS)
    import nibabel

    volumes = np.stack(
        [zscore(nibabel.load(f).get_fdata(dtype=np.float32), "whole") for f in files]
    )
    np.save(folder / "volumes.npy", volumes.astype(np.float16))
    full = np.load(folder / "volumes.npy", mmap_mode="r")
    np.save(folder / "brain.npy", full[:, 8:83, 8:101, 4:83])
    brain = np.load(folder / "brain.npy", mmap_mode="r")
    for name in sys.argv[1:] or MODELS:
        layouts = {p: layout_of(name, p, FULL) for p in ("fp32", "bf16")}
        print(f"{name}: {layouts}", flush=True)
        fast = Ours(name, full, ages, "bf16", layouts["bf16"])
        runs = {
            "auto, full grid": fast,
            "auto, brain box": Ours(name, brain, ages, "bf16", layouts["bf16"]),
            "fp32, full grid": Ours(name, full, ages, "fp32", layouts["fp32"]),
        }
        tried = {layouts["bf16"], Layout(), Layout("contiguous_format", "default")}
        loops = [bare(name, full, ages, layout) for layout in tried]
        plainly = functools.partial(outside, elsewhere, name, files, ages)
        plain, *spent = in_turn([plainly, *runs.values(), *loops])
        print(f"{name}: the plain loop's epoch takes {plain:.1f} s", flush=True)
        found = dict(zip(runs, spent, strict=False))
        for what, seconds in found.items():
            verdict(
                f"{name}: epoch, {what}, against the plain loop", plain / seconds, GOALS[what][name]
            )
        seconds, cropped = found["auto, full grid"], found["auto, brain box"]
        verdict(
            f"{name}: time against the fastest bare loop's",
            seconds / min(spent[len(runs) :]),
            1.03,
            at_most=True,
        )
        verdict(f"{name}: brain box against full grid", seconds / cropped, 1.5)
        verdict(f"{name}: % of an epoch outside of steps", 100 * fast.outside, 2, at_most=True)
        torch.compiler.reset()


def steps_alone(name: str, chunk: int = 0, **variables: str) -> tuple[float, float]:
    """Return the seconds of a step and the peak memory in GB, in a separate process."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import training_speed as t; t.steps()"
    words = [sys.executable, "-c", code, str(Path(__file__).parent), name, str(chunk)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, **variables}
    )
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def steps() -> None:
    """Run three fp32 steps on eight volumes; print the fastest time and the peak memory."""
    name, chunk = sys.argv[2:]
    configure(CPU, deterministic=False)
    params = settings(name, **({"slice_chunk": int(chunk)} if chunk != "0" else {}))
    ages = np.linspace(50, 80, BATCH)
    learner = Learner(build(name, params, FULL), TASK, params, ages, device=CPU, precision="fp32")
    learner.train_mode()
    volumes, spent = torch.randn(BATCH, 1, *FULL), []
    for _ in range(3):
        started = time.perf_counter()
        learner.backward(volumes, torch.as_tensor(ages))
        spent.append(time.perf_counter() - started)
    print(min(spent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def memory() -> None:
    """Measure the effects of reusing freed memory and of slice_chunk on time and memory."""
    kept = {name: steps_alone(name) for name in MODELS}
    for name, (seconds, peak) in kept.items():
        slow, least = steps_alone(name, MALLOC_MMAP_MAX_="65536")
        verdict(f"{name}: fp32 step, freed memory kept, against given back", slow / seconds, 1.3)
        verdict(f"{name}: its peak memory against given back", peak / least, 2, at_most=True)
    share = steps_alone("resnet18", 8)[1] / kept["resnet18"][1]
    verdict("resnet18: peak memory with slice_chunk=8", share, 0.4, at_most=True)


def trials(folder: Path) -> None:
    """Run trials with a trained and with a frozen encoder, for 20 epochs on 48 scans of 4 mm."""
    database = folder / "trials.db"
    words = [
        *(sys.executable, "-m", "bench", "run", "--model", "slice2d-imagenet"),
        *("--encoder", "efficientnet-lite0", "--data", "synthetic-ad-4mm", "--train-sizes", "48"),
        *("--trials", "0", "--epochs", "20", "--set", "stride=2", "--workers", "1"),
        *("--seeds", "2", "--db", str(database)),
    ]
    for more in ([], ["--set", "freeze=true", "--set", "bn=frozen"]):
        subprocess.run([*words, *more], check=True, capture_output=True)
    rows = sqlite3.connect(database).execute(
        "select seconds, timings from bench_trials order by finished"
    )
    found = [(seconds, json.loads(timings)) for seconds, timings in rows]
    free, frozen = found[:2], found[2:]
    # The first trial also chooses the layout and computes the slice features.
    verdict("lite0: frozen encoder, its first trial", free[1][0] / frozen[0][0], 15)
    verdict("lite0: frozen encoder, further trials", free[1][0] / frozen[1][0], 15)
    verdict(
        "seconds from a trial's start to its first step", free[1][1]["start"], 0.5, at_most=True
    )


if __name__ == "__main__":
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}"
    )
    # The process is forked, like the workers of its DataLoader, before torch is configured here.
    alone = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    alone.submit(int).result()
    configure(CPU, deterministic=False)
    with tempfile.TemporaryDirectory() as made, alone:
        if not sys.argv[1:]:
            memory()
            trials(Path(made))
        training(Path(made), alone)
