"""One suite by every executor, stored on a server: bitwise the results of a run into a file."""

import pytest

from bench.store.database import find_database
from tests.execute.slurm_runs import GRID
from tests.execute.test_kill import finish, results, start
from tests.store.conftest import server, server_database

__all__ = ["server", "server_database"]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "slurm", "ray"])
def test_executor_and_database_change_no_bit(
    tmp_path, environment, server_database, grid_results, request, executor
):
    if executor == "slurm":
        environment = request.getfixturevalue("on_cluster")
    if executor == "ray":
        pytest.importorskip("ray")
    words = [*GRID, "--executor", executor, "--workers", "2", "--work", "work", "--db"]
    process = start(tmp_path, environment, words, server_database)
    out = finish(process)
    assert process.returncode == 0, out
    assert "4 of 4 trials done" in out
    assert results(find_database(server_database)) == grid_results
