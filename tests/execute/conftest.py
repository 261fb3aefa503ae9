from contextlib import ExitStack

import numpy as np
import pytest

from bench.unit import Unit, UnitData
from tests.execute import ray_cluster
from tests.execute.slurm_cluster import NoCluster, cluster
from tests.execute.slurm_runs import GRID, LONG, local
from tests.execute.units import estimator_unit


@pytest.fixture(scope="session")
def slurm_cluster():
    """A Slurm cluster on this machine, or the reason for none."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(cluster())
        except NoCluster as error:
            found = str(error)
        yield found


@pytest.fixture
def slurm(slurm_cluster, monkeypatch):
    """Let commands use a Slurm cluster on this machine, and return the environment for that.

    The test is skipped if there is none.
    """
    pytest.importorskip("submitit")
    if isinstance(slurm_cluster, str):
        pytest.skip(slurm_cluster)
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return slurm_cluster.environment


@pytest.fixture(scope="session")
def ray_nodes():
    """A Ray cluster on this machine; tests are skipped if Ray is not installed."""
    pytest.importorskip("ray")
    with ray_cluster.cluster() as nodes:
        yield nodes


@pytest.fixture
def on_cluster(slurm, environment):
    """The environment of a user of the cluster."""
    return {**environment, **slurm}


@pytest.fixture(scope="session")
def grid_results(tmp_path_factory, cache):
    return local(tmp_path_factory.mktemp("grid"), cache, GRID)


@pytest.fixture(scope="session")
def long_results(tmp_path_factory, cache):
    return local(tmp_path_factory.mktemp("long"), cache, LONG)


SLOW = """
import time
from registry import model

@model("slow", kind="estimator")
def build(params, task, shape):
    class Slow:
        def fit(self, volumes, targets):
            time.sleep(60)
    return Slow()

@model("hungry", kind="estimator")
def build_hungry(params, task, shape):
    class Hungry(build(params, task, shape).__class__):
        def fit(self, volumes, targets):
            self.waste = b"1" * 1_500_000_000
            super().fit(volumes, targets)
    return Hungry()

@model("failing", kind="estimator")
def build_failing(params, task, shape):
    raise RuntimeError("no such luck")

@model("visible", kind="estimator")
def build_visible(params, task, shape):
    import os
    time.sleep(1)
    raise RuntimeError(os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that creates a small unit of a model."""
    volumes = np.random.default_rng(0).normal(size=(12, 4, 4, 4)).astype(np.float16)
    np.save(tmp_path / "volumes.npy", volumes)
    (tmp_path / "slow.py").write_text(SLOW)

    ages = [60.0, 62.0, 64.0, 66.0, 68.0, 70.0]
    data = UnitData(
        str(tmp_path / "volumes.npy"), 6, 6, list(range(6)), ages, [6, 7], [65.0, 66.0], [8, 9]
    )

    def unit(model: str, key: str) -> Unit:
        return estimator_unit(model, key, data, tmp_path / "slow.py")

    return unit
