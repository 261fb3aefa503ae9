"""`bench run --detach`: jobs that outlive the command, and collecting what they have finished."""

import pytest

from bench.store import schema
from bench.store.store import Store
from tests.execute.slurm_runs import GRID, SLURM, jobs, run, wait_for
from tests.execute.test_kill import finish, results


@pytest.mark.slow
def test_jobs_outlive_the_command_and_are_collected(tmp_path, on_cluster, grid_results):
    def bench(*words):
        process = run(tmp_path, on_cluster, *words)
        out = finish(process)
        assert process.returncode == 0, out
        return out

    out = bench(*GRID, *SLURM, "--detach")
    assert "0 of 4 trials done" in out
    assert "2 units left to slurm" in out
    assert "bench ingest --db x.db" in out
    out = bench("status")
    assert "6 units on other machines: 0 stored" in out
    wait_for(lambda: not jobs(on_cluster))
    assert "2 finished and not stored yet" in bench("status")
    out = bench("ingest")
    assert "0 of 4 trials done" in out
    assert "4 units without an outcome yet" in out
    # The studies are stored, and nothing was started.
    assert not jobs(on_cluster)
    assert "6 units on other machines: 2 stored, 0 finished and not stored yet" in bench("status")
    out = bench(*GRID, *SLURM, "--detach")
    assert "4 units left to slurm" in out
    wait_for(lambda: not jobs(on_cluster))
    assert "4 of 4 trials done" in bench("ingest")
    assert results(tmp_path / "x.db") == grid_results
    assert "on other machines" not in bench("status")
    assert "There is nothing to collect" in bench("ingest")
    assert "Nothing to run" in bench(*GRID, *SLURM, "--detach")
    store = Store.for_reading(tmp_path / "x.db")
    assert list(store.frame(schema.attempts)["state"]) == ["done"] * 6
    store.close()
