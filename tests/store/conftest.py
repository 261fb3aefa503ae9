import contextlib
import glob
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine

from bench.records import DatasetRecord, SubjectRecord
from bench.spec import Arm, Component, StudySpec, TrialSpec
from bench.store.store import Predictions, Store, StudyResult, TrialResult
from bench.unit import TuningTrial
from registry.cards import Task

FINGERPRINT = "f" * 16


def make_arm(name="m", trials=None):
    return Arm(
        model=Component(name, 1),
        encoder=None,
        fingerprint=FINGERPRINT,
        task=Task("age", "regression"),
        params={"lr": 0.1},
        space={},
        trials=trials,
        tune=None,
        precision="fp32",
    )


PASSWORD = "s3cret@/word"
QUOTED = "s3cret%40%2Fword"


def server_program(name):
    """Return the path of a program of PostgreSQL, which Debian does not put on the PATH.

    On the PATH there may be a link in a directory that only its owner can read.
    """
    found = max(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), default=shutil.which(name))
    return None if found is None else os.path.realpath(found)


class Server:
    """A PostgreSQL server of its own, run by a user without privileges."""

    def __init__(self, folder):
        self.folder = folder
        self.user = next(
            (n for n in ("postgres", "nobody") if n in {u.pw_name for u in pwd.getpwall()}), None
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, self.user)
        self._call(
            *("initdb", "--no-sync", "--auth=scram-sha-256", "--username=bench"),
            *("--encoding=UTF8", "--locale=C", f"--pwfile={folder / 'password'}"),
        )

    def _call(self, program, *words):
        as_user = {"user": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(
            [server_program(program), "-D", str(self.folder / "data"), *words],
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            **as_user,
        )

    def start(self):
        options = f"-k {self.folder} -p {self.port} -c listen_addresses=127.0.0.1"
        options += " -c fsync=off -c timezone=Asia/Tokyo"
        log = str(self.folder / "log")
        self._call("pg_ctl", "start", "--wait", "--log", log, "--options", options)

    def stop(self):
        self._call("pg_ctl", "stop", "--wait", "--mode=immediate")

    def url(self, database, password=QUOTED):
        return f"postgresql://bench:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements, database="postgres"):
        url = self.url(database).replace("postgresql:", "postgresql+psycopg:")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                found = connection.exec_driver_sql(statement)
        engine.dispose()
        return found


@pytest.fixture(scope="session")
def server():
    """A running PostgreSQL server."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs psycopg")
    if server_program("initdb") is None:
        pytest.skip("needs the Debian package postgresql")
    # The path of a socket has at most 107 characters, so pytest's directories are too long.
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        found = Server(folder)
        found.start()
        yield found
        with contextlib.suppress(subprocess.CalledProcessError):
            found.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server_database(server):
    """The URL, as a user would give it, of an empty database on the server."""
    server.execute("DROP DATABASE IF EXISTS grid WITH (FORCE)", "CREATE DATABASE grid")
    return server.url("grid")


@pytest.fixture
def database(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def store(database):
    found = Store.for_writing(database)
    found.add_dataset(
        DatasetRecord(
            fingerprint=FINGERPRINT,
            name="cohort",
            manifest_digest="m",
            split_digest="s",
            target="age",
            kind="regression",
            classes=[],
            shape=[4, 4, 4],
            settings={},
            flow=[],
            n_pool=4,
            n_validation=2,
            n_test=2,
            subjects=[SubjectRecord(i, "test", 60.0 + i) for i in range(2)],
        )
    )
    yield found
    found.close()


def make_trial(arm, seed=0, state="done", lr=0.1, study=None, error=""):
    values = np.array([[60.5], [61.25]]) + seed
    return TrialResult(
        spec=TrialSpec(arm, 4, seed, study),
        state=state,
        params={"lr": lr},
        error=error,
        best_epoch=1,
        epochs=2,
        seconds=1.5,
        environment={"host": "here", "threads": 2},
        metrics={("test", "mae"): (0.375, ""), ("test", "r2"): (float("nan"), "constant")},
        predictions={"test": Predictions(np.array([0, 1], dtype=np.int32), values)},
        history=[{"epoch": 1, "train_loss": 1.0, "validation": 2.0, "seconds": 0.1}],
    )


def make_study(arm, state="done", best=None):
    distribution = (
        '{"name": "FloatDistribution", "attributes": '
        '{"step": null, "low": 0.01, "high": 1.0, "log": false}}'
    )
    trials = [
        TuningTrial(
            0, "complete", {"lr": 0.1}, {"lr": distribution}, 1.0, {"1": 1.5, "2": 1.0}, 0.5
        ),
        TuningTrial(1, "fail", {"lr": 0.9}, {"lr": distribution}, None, {}, 0.5),
    ]
    return StudyResult(
        spec=StudySpec(arm, 4, None),
        state=state,
        best=best or {"lr": 0.1},
        error="",
        trials=trials,
        seconds=1.0,
        environment={"host": "here", "threads": 2},
    )
