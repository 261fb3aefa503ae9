"""Several commands on one database: every trial once, by one of them."""

import subprocess
import sys

import pytest
from sqlalchemy import func, select

from bench.store import schema
from bench.store.database import find_database
from bench.store.store import Store
from tests.store.conftest import server, server_database

__all__ = ["server", "server_database"]

SEEDS = 100


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file", "server"])
def test_two_drivers_store_every_trial_once(tmp_path, environment, request, place):
    name = "x.db" if place == "file" else request.getfixturevalue("server_database")
    words = [
        *("run", "--model", "prior", "--data", "synthetic-ad-4mm", "--trials", "0"),
        *("--train-sizes", "16,24", "--seeds", str(SEEDS), "--workers", "2", "--work", "work"),
        *("--db", name),
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    first, second = sorted(outs, key=lambda out: "Waiting for it" in out)
    assert f"{2 * SEEDS} of {2 * SEEDS} trials done" in first
    assert "Nothing to run: all requested trials are already stored" in second
    assert "locked" not in first + second
    database = find_database(name if place == "server" else str(tmp_path / name))
    store = Store.for_reading(database)
    with store.engine.connect() as connection:
        trials = connection.scalar(select(func.count()).select_from(schema.trials))
        attempts = connection.scalar(select(func.count()).select_from(schema.attempts))
    store.close()
    assert (trials, attempts) == (2 * SEEDS, 2 * SEEDS)
