"""Faults on a real Slurm cluster at random moments: equal numbers, and no unit runs twice.

The number of moments is that in the environment variable BENCH_FAULTS.
"""

import os
import random
import signal
import subprocess
import time

from tests.execute.processes import workers_in
from tests.execute.slurm_runs import GRID, LONG, SLURM, ask, run, wait_for
from tests.execute.test_kill import MOMENTS, UNITS, finish, results, states_of_attempts


def states(environment):
    """Return the states of all jobs of units by id."""
    words = ("squeue", "--noheader", "--array", "--states=all", "--format=%i %T %j")
    lines = [line.split() for line in ask(environment, *words).splitlines()]
    return {
        job: state
        for job, state, name in lines
        if name.startswith("bench-") and "probe" not in name
    }


def workers(folder):
    """Return the processes that run units of a command."""
    return workers_in(folder / "x.db.work")


def has_steps(job):
    """Return whether a step of a job is running."""
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True)
    return f"slurmstepd: [{job}." in listed.stdout


def check_complete(folder, environment, before, expected):
    """Check the numbers, that each unit was finished once, and that nothing runs any more.

    Returns the numbers of jobs that ran to their end and of attempts that were killed.
    """
    assert results(folder / "x.db") == expected
    found = states_of_attempts(folder / "x.db")
    assert all(each.count("done") == 1 for each in found.values()), found
    assert not workers(folder)
    wait_for(lambda: "COMPLETING" not in states(environment).values())
    own = {job: state for job, state in states(environment).items() if job not in before}
    assert not {*own.values()} & {"PENDING", "RUNNING"}
    killed = sum(each.count("killed") for each in found.values())
    return list(own.values()).count("COMPLETED"), killed


def finish_all(folder, environment, words):
    """Run a command until it has nothing left to do."""
    for _ in range(10):
        process = run(folder, environment, *words, *SLURM)
        out = finish(process)
        if process.returncode == 0:
            return
        assert process.returncode == 1, out
    raise AssertionError(out)


def test_workers_killed_at_random_moments(tmp_path, on_cluster, grid_results):
    dice = random.Random(1)
    kills = recorded = 0
    while kills < MOMENTS:
        folder = tmp_path / str(kills)
        folder.mkdir()
        before = states(on_cluster)
        process = run(folder, on_cluster, *GRID, *SLURM)
        while process.poll() is None and kills < MOMENTS:
            moment = time.monotonic() + dice.uniform(0, 8)
            while process.poll() is None and (time.monotonic() < moment or not workers(folder)):
                time.sleep(0.05)
            for worker in workers(folder)[:1]:
                os.kill(worker, signal.SIGKILL)
                kills += 1
        finish(process)
        finish_all(folder, on_cluster, GRID)
        completed, killed = check_complete(folder, on_cluster, before, grid_results)
        assert completed == UNITS + killed
        recorded += killed
    print(f"{kills} workers killed, {recorded} of them before their outcome")
    assert recorded


def test_drivers_killed_at_random_moments(tmp_path, on_cluster, grid_results):
    dice = random.Random(2)
    kills = runs = 0
    while kills < MOMENTS:
        folder = tmp_path / str(kills)
        folder.mkdir()
        before = states(on_cluster)
        code = None
        while code is None and kills < MOMENTS:
            process = run(folder, on_cluster, *GRID, *SLURM)
            for line in process.stdout:
                if "studies to run" in line:
                    break
            moment = time.monotonic() + dice.uniform(0, 12)
            while process.poll() is None and time.monotonic() < moment:
                time.sleep(0.05)
            code = process.poll()
            if code is None:
                process.kill()
                process.communicate()
                kills += 1
        finish_all(folder, on_cluster, GRID)
        completed, killed = check_complete(folder, on_cluster, before, grid_results)
        # A driver that dies while it submits a job leaves one that is cancelled.
        assert (completed, killed) == (UNITS, 0)
        runs += 1
    print(f"{kills} drivers killed in {runs} runs")


def test_the_controller_restarted_at_random_moments(
    tmp_path, slurm_cluster, on_cluster, grid_results
):
    dice = random.Random(3)
    restarts = max(1, MOMENTS // 4)
    for number in range(restarts):
        folder = tmp_path / str(number)
        folder.mkdir()
        before = states(on_cluster)
        process = run(folder, on_cluster, *GRID, *SLURM)
        wait_for(lambda folder=folder: workers(folder))
        time.sleep(dice.uniform(0, 10))
        slurm_cluster.restart_controller(dice.uniform(0, 10))
        out = finish(process)
        assert "Traceback" not in out
        finish_all(folder, on_cluster, GRID)
        check_complete(folder, on_cluster, before, grid_results)
    print(f"slurmctld restarted {restarts} times")


def test_a_node_drained_lost_and_resumed(tmp_path, slurm_cluster, on_cluster, long_results):
    before = states(on_cluster)
    process = run(tmp_path, on_cluster, *LONG, *SLURM)
    wait_for(lambda: list((tmp_path / "x.db.work").glob("*/checkpoint.pt")))
    (job,) = set(states(on_cluster)) - set(before)

    def update(what):
        ask(on_cluster, "scontrol", "update", *what.split())

    update(f"NodeName={slurm_cluster.host} State=DRAIN Reason=test")
    assert states(on_cluster)[job] == "RUNNING"
    update(f"NodeName={slurm_cluster.host} State=DOWN Reason=test")
    wait_for(lambda: states(on_cluster)[job] == "PENDING")
    # Slurm would start it two minutes later. A job whose old steps still end would be held.
    wait_for(lambda: not has_steps(job))
    update(f"NodeName={slurm_cluster.host} State=RESUME")
    update(f"JobId={job} StartTime=now+2")
    out = finish(process)
    assert "1 of 1 trials done" in out, out
    assert check_complete(tmp_path, on_cluster, before, long_results) == (1, 0)
    assert "Restarts=1" in ask(on_cluster, "scontrol", "show", "job", job)
