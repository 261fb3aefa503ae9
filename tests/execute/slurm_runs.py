"""Commands on the Slurm cluster of the tests."""

import os
import subprocess
import time

from tests.execute.test_kill import finish, results, start

GRID = (
    *("run", "--data", "synthetic-ad-4mm", "--model", "slice2d-own,linear-voxels"),
    *("--set", "stride=8", "--train-sizes", "16", "--seeds", "2", "--trials", "2"),
    *("--epochs", "2", "--threads", "1", "--precision", "fp32"),
)
SLURM = ("--executor", "slurm")
LONG = (
    *("run", "--data", "synthetic-ad-4mm", "--model", "slice2d-own", "--set", "stride=4"),
    *("--train-sizes", "24", "--seeds", "1", "--trials", "0", "--epochs", "16"),
    *("--threads", "1", "--precision", "fp32"),
)


def ask(environment, *words):
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def jobs(environment, states="PENDING,RUNNING,COMPLETING"):
    """Return the ids of jobs of units in the given states."""
    words = ("squeue", "--noheader", "--array", f"--states={states}", "--format=%i %j")
    lines = [line.split() for line in ask(environment, *words).splitlines()]
    return [job for job, name in lines if name.startswith("bench-") and "probe" not in name]


def wait_for(ready, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def run(folder, environment, *words, name="x.db"):
    """Start a command whose output can be read."""
    return start(folder, environment, [*words, "--db"], name)


def local(folder, cache, words):
    """Return the results of a grid on this machine."""
    process = run(folder, {**os.environ, "BENCH_CACHE": str(cache)}, *words)
    out = finish(process)
    assert process.returncode == 0, out
    return results(folder / "x.db")
