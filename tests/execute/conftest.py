from contextlib import ExitStack

import pytest

from tests.execute import ray_cluster
from tests.execute.slurm_cluster import NoCluster, cluster


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
