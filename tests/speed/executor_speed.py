"""The time between two units of a worker, for each executor.

Goal: less than 1 % of a unit of one minute with Slurm and Ray. The units import torch and timm, as
those of networks. Slurm and Ray run on this machine; what cannot be started here is left out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from bench.execute.base import Executor
from bench.execute.local import LocalExecutor
from bench.execute.ray import RayExecutor
from bench.execute.slurm import SlurmExecutor
from bench.unit import Unit, UnitData
from tests.execute import ray_cluster, slurm_cluster
from tests.execute.units import estimator_unit

UNITS = 6
GOAL = 600.0
"""Milliseconds."""
PRELOAD = ["torch", "timm", "bench.train.network", "baselines.estimators"]
"""What `bench run` imports in fork servers for networks and estimators."""
PLUGIN = """
import time
from pathlib import Path
from registry import model

FILE = Path(__file__).with_name("times")

def note():
    with FILE.open("a") as stream:
        print(time.time(), file=stream)

class Timed:
    def fit(self, volumes, targets):
        note()
        time.sleep(0.2)
        return self

    def predict(self, volumes):
        note()
        return [0.0] * len(volumes)

@model("timed", kind="estimator")
def build(params, task, shape):
    import bench.train.network
    import timm
    import torch
    return Timed()
"""


def unit(folder: Path, key: str) -> Unit:
    """Return a unit that writes down when it starts and ends."""
    data = UnitData(str(folder / "volumes.npy"), 2, 2, [0, 1], [60.0, 70.0], [2], [65.0], [3])
    return estimator_unit("timed", key, data, folder / "plugin.py")


def between_units(folder: Path, start: Callable[..., Executor]) -> float:
    """Return the median time in milliseconds from the end of a unit to the start of the next."""
    (folder / "times").write_text("")
    shutil.rmtree(folder / "work", ignore_errors=True)
    executor = start(1, gpus=0, preload=PRELOAD, on_progress=lambda *_: None)
    for future in [executor.submit(unit(folder, f"unit{n}")) for n in range(UNITS)]:
        ended = future.result(timeout=600)
        assert ended.exit_code == 0, ended
    executor.shutdown()
    # Each unit predicts two sets.
    times = np.array((folder / "times").read_text().split(), dtype=float).reshape(UNITS, 3)
    return 1000 * statistics.median(times[1:, 0] - times[:-1, 2])


def executors(folder: Path) -> Iterator[tuple[str, Callable[..., Executor]]]:
    """Yield the executors that can be started here."""
    remote = {"work": folder / "work", "cache": folder / "cache", "say": lambda words: None}
    yield "local", LocalExecutor
    try:
        with slurm_cluster.cluster() as slurm, patch.dict(os.environ, slurm.environment):
            yield "slurm", partial(SlurmExecutor, options={}, **remote)
    except slurm_cluster.NoCluster as error:
        print(f"slurm: {error}")
    if importlib.util.find_spec("ray") is None:
        print("ray: not installed")
        return
    with ray_cluster.cluster() as nodes:
        yield "ray", partial(RayExecutor, options={"address": nodes.address}, **remote)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "volumes.npy", np.zeros((4, 4, 4, 4), dtype=np.float16))
        (folder / "plugin.py").write_text(PLUGIN)
        for executor, start in executors(folder):
            spent = between_units(folder, start)
            verdict = "ok" if spent < GOAL else f"over the goal of {GOAL:.0f} ms"
            print(f"{executor}: {spent:.0f} ms between two units, {verdict}")
