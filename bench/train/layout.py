"""Choice of memory format and compilation by measuring training steps once."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.files import atomic_write
from bench.lock import locked
from bench.machine import cpu_name
from bench.spec import canonical_json
from bench.train.learner import Learner
from bench.train.loop import make_optimizer
from bench.train.numerics import give_back_freed_memory, rule, why_not_compiled
from bench.unit import Layout
from registry.cards import Task, Value

LEAST_STEPS = 120
"""Minimum number of steps for which measuring pays off."""
COMPILE_SECONDS = 60.0
"""Expected duration of compilation."""
GAIN = 0.5
"""Maximum fraction of the duration of a step that compilation is expected to save."""


@dataclass(frozen=True)
class Workload:
    """The training for which a layout is chosen.

    Parameters
    ----------
    build : callable
        Builds the network.
    task, params, precision
        As for `Learner`.
    shape : tuple of int
        The shape (D, H, W) of volumes.
    device : torch.device
        The device to use.
    steps : int
        Planned number of optimiser steps.
    identity : mapping
        JSON-ready values that identify the workload.
    """

    build: Callable[[], nn.Module]
    task: Task
    params: Mapping[str, Value]
    precision: str
    shape: tuple[int, ...]
    device: torch.device
    steps: int
    identity: Mapping[str, Any]


def fastest_layout(workload: Workload, folder: Path, say: Callable[[str], None] = print) -> Layout:
    """Return the fastest layout, measuring it if it is not in the cache.

    Units with the same workload wait for the one that measures it, so that they use the same
    layout.

    Parameters
    ----------
    workload : Workload
        The planned training.
    folder : pathlib.Path
        The directory of measurements, with one JSON file per workload.
    say : callable
        Called with a message if a cached layout no longer works and is measured again.
    """
    if workload.steps < LEAST_STEPS:
        with torch.random.fork_rng(devices=[]):
            return rule(workload.build())
    identity = {**workload.identity, **_machine(workload.device), "steps": workload.steps}
    file = folder / f"{hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]}.json"
    with locked(file.with_suffix(".lock")):
        if not file.exists() or not usable(_kept(file), workload.device, say):
            with torch.random.fork_rng():
                found = time_layouts(workload)
            # The other layouts left freed memory in blocks of unsuitable sizes.
            give_back_freed_memory()
            with atomic_write(file) as stream:
                stream.write(json.dumps({**identity, **found}, indent=1).encode())
        return _kept(file)


def _kept(file: Path) -> Layout:
    return Layout(**json.loads(file.read_text(encoding="utf-8"))["layout"])


def usable(layout: Layout, device: torch.device, say: Callable[[str], None]) -> bool:
    """Return whether a layout that was chosen earlier still works; call `say` if it does not."""
    why = why_not_compiled(device) if layout.mode else ""
    if why:
        say(
            f"torch.compile, which was fastest when it was measured, fails now ({why}); layouts "
            "are measured again without it, which changes results only by rounding"
        )
    return not why


def time_layouts(workload: Workload) -> dict[str, Any]:
    """Time training steps in all suitable memory formats, with and without compilation.

    Compilation is only tried if it could pay off for the planned number of steps, and only chosen
    if this is the case including the duration of compilation.

    Returns
    -------
    dict
        The chosen ``layout``, and ``measured``, with the durations of a step and of compilation in
        seconds for all layouts that were tried.
    """
    network = workload.build()
    measured = []
    for memory_format in _formats(network):
        layout = Layout(memory_format)
        _, step = _seconds(workload, network, layout)
        measured.append({**asdict(layout), "step": step, "compile": 0.0, "note": ""})
    best = min(measured, key=lambda found: found["step"])
    if workload.steps * best["step"] * GAIN > COMPILE_SECONDS:
        for memory_format in _formats(network):
            for mode in (
                ("default", "reduce-overhead") if workload.device.type == "cuda" else ("default",)
            ):
                layout = Layout(memory_format, mode)
                measured.append(_compiled(workload, network, layout))
    chosen = min(
        (found for found in measured if not found["note"]),
        key=lambda found: workload.steps * found["step"] + found["compile"],
    )
    return {
        "layout": {name: chosen[name] for name in asdict(Layout())},
        "measured": measured,
    }


def _compiled(workload: Workload, network: nn.Module, layout: Layout) -> dict[str, Any]:
    found = {**asdict(layout), "step": None, "compile": None, "note": ""}
    if why := why_not_compiled(workload.device):
        return {**found, "note": why}
    try:
        first, step = _seconds(workload, network, layout)
    except Exception as error:
        # Networks that cannot be compiled are trained without compilation.
        return {**found, "note": f"{type(error).__name__}"}
    finally:
        torch.compiler.reset()
    return {**found, "step": step, "compile": max(0.0, first - step)}


def _seconds(workload: Workload, network: nn.Module, layout: Layout) -> tuple[float, float]:
    """Return the durations of the first training step and of the faster one of two more."""
    size = int(workload.params["batch_size"])
    targets = np.arange(size, dtype=np.float64) % max(2, len(workload.task.classes))
    learner = Learner(
        copy.deepcopy(network),
        workload.task,
        workload.params,
        targets,
        device=workload.device,
        precision=workload.precision,
        layout=layout,
    )
    learner.train_mode()
    optimizer = make_optimizer(learner.network, workload.params)
    volumes = torch.randn(size, 1, *workload.shape, device=workload.device)
    wanted = torch.as_tensor(targets, device=workload.device)
    spent = [_step(learner, optimizer, volumes, wanted) for _ in range(3)]
    return spent[0], min(spent[1:])


def _step(
    learner: Learner, optimizer: torch.optim.Optimizer, volumes: Tensor, targets: Tensor
) -> float:
    started = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    learner.backward(volumes, targets)
    optimizer.step()
    if learner.device.type == "cuda":
        torch.cuda.synchronize(learner.device)
    return time.perf_counter() - started


def _formats(network: nn.Module) -> list[str]:
    found = ["contiguous_format"]
    modules = list(network.modules())
    if any(isinstance(module, nn.Conv2d) for module in modules):
        found.append("channels_last")
    if any(isinstance(module, nn.Conv3d) for module in modules):
        found.append("channels_last_3d")
    return found


def _machine(device: torch.device) -> dict[str, Any]:
    import platform

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name() or "cpu"
    return {
        "device": name,
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
