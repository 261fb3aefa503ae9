"""`bench export`: exact numbers, no confidential data, and either complete or absent."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet
import pytest
from sqlalchemy import insert, update

from bench.export import shareable
from bench.export.folder import export
from bench.export.tables import STORED
from bench.spec import Component, TrialSpec
from bench.store import schema
from bench.store.store import Predictions, Store, TrialResult
from tests.report.conftest import AGE, DISEASE, STAGES, Bench
from tests.store.conftest import make_study

SECRETS = ("sub-0042", "secret", "/home/", "hospital", "node17", "Berlin")
ODD = [0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, np.nextafter(1.0, 2.0), 1 / 3, 70.0, -1e-7]


@pytest.fixture
def planted(tmp_path):
    """Runs on three cohorts that contain confidential data."""
    bench = Bench(tmp_path / "r.db")
    ages = bench.cohort("ages")
    ill = bench.cohort(
        "ill",
        DISEASE,
        settings={"adapter": "bids", "grid": "mni-4mm", "hold_out_site": "hospital", "path": "x"},
    )
    stages = bench.cohort("stages", STAGES)
    with bench.store.engine.begin() as connection:
        connection.execute(update(schema.subjects).values(site="hospital", sex="F", age=71.25))
    argv = [
        *("bench", "run", "--model", "cnn3d,prior", "--data", "ages,ill,stages", "--seeds", "2"),
        *("--root=/home/secret", "--table", "secret.csv", "--hold-out-site", "hospital"),
        *("--weights", "resnet18=secret.pth", "--data-set", "subject=secret", "--db", "secret.db"),
        *("--set", "lr=0.1", "--withdrawals", "sub-0042.txt", "--data-set=grid=mni-4mm"),
    ]
    arms = [
        bench.arm(
            "cnn3d", ages, AGE, params={"val_size": "full", "lr": 0.1, "start": "/home/x.pt"}
        ),
        bench.arm("cnn3d", ill, DISEASE),
        bench.arm("cnn3d", stages, STAGES, encoder=Component("resnet18", 1)),
        bench.estimator("prior", fingerprint=ages),
    ]
    number = bench.ask(*arms, argv=argv, dropped=[["ages", "x", "no weights in /home/secret"]])
    for arm in arms:
        for seed in range(2):
            bench.run(number, arm, 48, seed)
    bench.run(number, arms[1], 24, 0, failed="ValueError: /home/secret/sub-0042.nii is empty")
    spec = TrialSpec(arms[3], 24, 0, None)
    bench.store.add_trial(
        TrialResult(
            spec,
            "done",
            dict(arms[3].params),
            timings={"train": 0.1},
            environment={"host": "node17", "command": "bench --root /home/secret", "threads": 3},
            predictions={
                split: Predictions(np.arange(len(ODD), dtype=np.int32), np.array([ODD]).T)
                for split in ("validation", "test")
            },
            history=[{"epoch": 1, "train_loss": 1 / 3, "validation": None, "seconds": 0.5}],
        ),
        number,
    )
    bench.store.add_study(make_study(arms[0]))
    yield bench
    bench.store.close()


def read(folder, name):
    """Return a table of an export in any format."""
    if (folder / f"{name}.csv").exists():
        nulls = pyarrow.csv.ConvertOptions(
            strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        return pyarrow.csv.read_csv(folder / f"{name}.csv", convert_options=nulls)
    return pyarrow.parquet.read_table(folder / f"{name}.parquet")


def bits(values):
    return np.asarray(values, dtype="<f8").tobytes()


@pytest.mark.parametrize("format_", ["parquet", "csv"])
def test_predictions_come_back_bit_for_bit_under_the_names_of_their_outputs(
    planted, tmp_path, format_
):
    export(planted.store, tmp_path / "out", format_=format_, repro=False)
    found = read(tmp_path / "out", "predictions").to_pandas()
    outputs = ["predicted_age", "p_AD", "p_CN", "p_MCI"]
    assert list(found.columns) == ["trial", "split", "subject", *outputs]
    trials = read(tmp_path / "out", "trials").to_pandas().set_index("key")
    named = {
        "ages": ["predicted_age"],
        "ill": ["p_AD"],
        "stages": ["p_CN", "p_MCI", "p_AD"],
    }
    stored = 0
    for split in ("test", "validation"):
        for key, wanted in planted.store.predictions(trials.index, split).items():
            rows = found[(found["trial"] == key) & (found["split"] == split)]
            own = named[trials.loc[key, "dataset"]]
            assert rows["subject"].tolist() == wanted.subjects.tolist()
            assert bits(rows[own]) == bits(wanted.values)
            assert rows[[name for name in outputs if name not in own]].isna().all(axis=None)
            stored += len(rows)
    assert stored == len(found)
    assert stored > 0


@pytest.mark.parametrize("format_", ["parquet", "csv"])
def test_every_table_has_the_rows_and_numbers_of_the_store(planted, tmp_path, format_):
    rows = export(planted.store, tmp_path / "out", format_=format_, repro=False)
    for name, (table, _) in STORED.items():
        wanted = planted.store.frame(table)
        found = read(tmp_path / "out", name).to_pandas()
        assert len(found) == len(wanted) == rows[name]
        assert list(found.columns) == [column.name for column in table.columns]
        # Both are sorted by primary key.
        keys = [column.name for column in table.primary_key]
        wanted = wanted.sort_values(keys, ignore_index=True)
        for column in wanted.select_dtypes("float"):
            assert bits(found[column]) == bits(wanted[column])
    trials = read(tmp_path / "out", "trials").to_pandas().set_index("key")
    wanted = planted.store.frame(schema.trials).set_index("key").loc[trials.index]
    assert trials["seed"].tolist() == wanted["seed"].tolist()
    assert trials["param_lr"].dropna().tolist() == [
        params["lr"] for params in wanted["params"] if "lr" in params
    ]
    assert trials["timing_train"].dropna().tolist() == [0.1]
    assert set(trials["dataset"]) == {"ages", "ill", "stages"}
    assert set(trials["precision"].dropna()) == {"fp32"}
    assert set(trials["encoder"].dropna()) == {"resnet18"}
    finished = pd.to_datetime(trials["finished"], utc=True)
    assert (finished == pd.to_datetime(wanted["finished"], utc=True)).all()
    assert json.loads(read(tmp_path / "out", "datasets").to_pandas()["flow"][0]) == [["no age", 3]]
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"r.db", "out"} | {name for name in left if name.startswith("r.db-")}


def test_settings_of_several_kinds_keep_their_values(planted, tmp_path):
    fingerprint = planted.cohort("more")
    params = [{"a": 1, "b": True, "c": 1}, {"a": 2.5, "b": None, "c": "x"}, {"a": 10**30, "c": 0.5}]
    arms = [planted.arm(f"m{i}", fingerprint, params=each) for i, each in enumerate(params)]
    number = planted.ask(*arms)
    for arm in arms:
        planted.run(number, arm, 48, 0)
    export(planted.store, tmp_path / "out", repro=False)
    found = read(tmp_path / "out", "trials").to_pandas().set_index("model").loc[["m0", "m1", "m2"]]
    assert [json.loads(text) for text in found["param_a"]] == [1, 2.5, 10**30]
    assert found["param_b"].tolist() == [True, None, None]
    assert found["param_c"].tolist() == ["1", "x", "0.5"]


@pytest.mark.parametrize("format_", ["parquet", "csv"])
def test_what_is_shareable_names_no_person_place_label_or_machine(planted, tmp_path, format_):
    open_ = tmp_path / "open"
    export(planted.store, open_, format_=format_, repro=True)
    everything = words_of(open_)
    # Check that the secrets can be found at all.
    assert all(secret in everything for secret in SECRETS[:-1])
    out = tmp_path / "out"
    export(planted.store, out, format_=format_, shareable=True, repro=True)
    found = words_of(out)
    assert [secret for secret in SECRETS if secret in found] == []
    assert not list(out.glob("subjects*"))
    assert "71.25" not in found
    for file in out.iterdir():
        content = file.read_bytes()
        assert [s for s in SECRETS if s.encode() in content] == [], file
    trials = read(out, "trials").to_pandas()
    assert trials["error"].dropna().tolist() == ["ValueError"]
    argv = json.loads(read(out, "commands").to_pandas()["argv"][0])
    assert shlex.join(argv) == (
        "bench run --model cnn3d,prior --data ages,ill,stages --seeds 2 --root ROOT --table TABLE "
        "--hold-out-site HOLD_OUT_SITE --weights resnet18=WEIGHTS --data-set subject=DATA_SET "
        "--db DB --set lr=0.1 --withdrawals WITHDRAWALS --data-set grid=mni-4mm"
    )
    readme = (out / "README.txt").read_text()
    assert "true values, age, sex, site" in " ".join(readme.split())
    assert "Omitted for sharing" not in (open_ / "README.txt").read_text()


def words_of(folder):
    parts = [(folder / "README.txt").read_text(), (folder / "repro.json").read_text()]
    for file in folder.iterdir():
        if file.suffix in (".csv", ".parquet"):
            parts.append(str(read(folder, file.stem).to_pydict()))
    return "\n".join(parts)


def test_a_column_of_the_database_is_shared_only_after_somebody_thought_of_it():
    tables = {name: table for name, (table, _) in STORED.items() if name != "subjects"}
    for name, table in {**tables, "trials": schema.trials}.items():
        assert set(shareable.COLUMNS[name]) == {column.name for column in table.columns}, name


def test_the_bundle_says_what_was_run_and_vouches_for_the_files(planted, tmp_path):
    import hashlib

    out = tmp_path / "out"
    rows = export(planted.store, out, format_="csv", repro=True)
    found = json.loads((out / "repro.json").read_text())
    assert set(found["files"]) == {f"{name}.csv" for name in rows}
    for name, about in found["files"].items():
        content = (out / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == about["sha256"]
        assert about["rows"] == rows[name.removesuffix(".csv")]
    trials = planted.store.frame(schema.trials).set_index("key")
    assert set(found["trials"]) == set(trials.index)
    for key, trial in found["trials"].items():
        arm = found["arms"][trial["arm"]]["spec"]
        assert trial["params"] == trials.loc[key, "params"]
        assert f"--model {arm['model']['name']} " in trial["reproduce"]
        assert f"--train-sizes {trial['n_train']} --seeds {trial['seed']}, " in trial["reproduce"]
        data = found["datasets"][arm["fingerprint"]]
        assert f"--data {data['name']} " in trial["reproduce"]
        assert (data["manifest_digest"], data["split_digest"]) == ("m", "s")
    (study,) = found["studies"].values()
    assert study["best"] == {"lr": 0.1}


# --------------------------------------------------------------------------- refused or interrupted


def test_a_folder_that_holds_something_is_left_as_it_is(bench, planted, tmp_path):
    planted.store.close(leave_wal=True)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for words, sentence in [
        (["--out", "full"], "is not empty"),
        (["--out", "file"], "is a file"),
        (["--out", "no/where"], "does not exist"),
        (["--out", "new", "--format", "parket"], "did you mean 'parquet'"),
        (["--out", "new", "--db", "none.db"], "The database none.db does not exist"),
    ]:
        found = bench("export", "--db", "r.db", *words)
        assert found.returncode == 2, words
        assert sentence in found.stderr
        assert "Traceback" not in found.stderr
    assert [file.name for file in full.iterdir()] == ["mine.txt"]
    assert not [file for file in tmp_path.iterdir() if "part" in file.name or file.name == "new"]


def test_an_empty_folder_is_filled_and_the_words_say_with_what(bench, planted, tmp_path):
    planted.store.close(leave_wal=True)
    (tmp_path / "out").mkdir()
    found = bench("export", "--db", "r.db", "--out", "out", "--shareable", "--repro")
    assert found.returncode == 0, found.stderr
    assert "trials: 10 rows" in found.stdout
    assert (tmp_path / "out" / "repro.json").exists()


def test_an_empty_database_is_a_sentence(bench, tmp_path):
    empty = Bench(tmp_path / "r.db")
    empty.cohort()
    empty.ask(empty.arm("cnn3d"))
    empty.store.close(leave_wal=True)
    found = bench("export", "--db", "r.db", "--out", "out")
    assert found.returncode == 2
    assert "There are no finished trials in r.db" in found.stderr
    assert not (tmp_path / "out").exists()


def test_damaged_predictions_and_a_full_disk_leave_nothing(bench, planted, tmp_path, environment):
    words = ["-m", "bench", "export", "--db", "r.db", "--out", "out", "--format", "csv"]
    planted.store.close(leave_wal=True)
    full = subprocess.run(
        # No file may become larger than 1 kB.
        ["bash", "-c", 'ulimit -f 1; exec "$0" "$@"', sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    store = Store.for_writing(tmp_path / "r.db")
    with store.engine.begin() as connection:
        connection.execute(update(schema.predictions).values(values=b"\0" * 12))
    store.close(leave_wal=True)
    found = bench(*words[2:])
    assert found.returncode == 2
    assert "are damaged, so nothing was exported" in found.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"r.db"}


def test_a_killed_export_leaves_nothing_that_looks_complete(bench, tmp_path, environment):
    n, subjects = 1000, 1000
    many = Bench(tmp_path / "r.db")
    arm = many.arm("cnn3d", many.cohort(n_test=subjects))
    number = many.ask(arm)
    index = np.arange(100, 100 + subjects, dtype="<i4").tobytes()
    values = np.random.default_rng(0).normal(size=(n, subjects))
    about = {"arm": arm.key, "n_train": 48, "state": "done", "params": {}, "command": number}
    with many.store.engine.begin() as connection:
        connection.execute(
            insert(schema.trials),
            [
                {**about, "key": f"{i:016x}", "seed": i, "finished": datetime.now(UTC)}
                for i in range(n)
            ],
        )
        connection.execute(
            insert(schema.predictions),
            [
                {
                    "trial": f"{i:016x}",
                    "split": "test",
                    "subjects": index,
                    "outputs": 1,
                    "values": values[i].tobytes(),
                }
                for i in range(n)
            ],
        )
    many.store.close(leave_wal=True)
    words = [sys.executable, "-m", "bench", "export", "--db", "r.db", "--out", "out"]
    running = subprocess.Popen([*words, "--format", "csv"], cwd=tmp_path, env=environment)
    try:
        # Killed while predictions are written, when the directory exists but is incomplete.
        while not list(tmp_path.glob(".out.part-*/predictions.csv")) and running.poll() is None:
            time.sleep(0.001)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    assert running.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    found = bench("export", "--db", "r.db", "--out", "out")
    assert found.returncode == 0, found.stderr
    again = read(tmp_path / "out", "predictions")
    assert bits(again["predicted_age"]) == values.tobytes()


# ---------------------------------------------------------------------------- a real run


GRIDS = [
    pytest.param(
        [
            *("--model=slice2d-own,linear-voxels", "--model", "prior", "--trials", "0"),
            *("--set", "stride=23", "--set=block=8", "--set", "n_components=4", "--epochs", "1"),
        ],
        id="settings of the command",
        marks=pytest.mark.slow,
    ),
    pytest.param(["--model", "linear-voxels,prior", "--trials=2"], id="tuned"),
]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_command_of_the_bundle_repeats_a_trial_bit_for_bit(bench, tmp_path, grid):
    ran = bench(
        *("run", "--data", "synthetic-ad-4mm", "--seeds=2", "--train-sizes=12", *grid),
        *("--workers", "2", "--threads", "1", "--db", "g.db"),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert bench("export", "--db", "g.db", "--out", "out", "--repro").returncode == 0
    bundle = json.loads((tmp_path / "out" / "repro.json").read_text())
    wanted = {}
    for key, trial in bundle["trials"].items():
        model = bundle["arms"][trial["arm"]]["model"]
        if model != "prior" and (trial["n_train"], trial["seed"]) == (12, 1):
            wanted[model] = key
            ran = bench(*shlex.split(trial["reproduce"])[1:])
            assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "linear-voxels" in wanted
    first, second = (Store.for_reading(tmp_path / name) for name in ("g.db", "reproduced.db"))
    assert set(second.frame(schema.trials)["key"]) == set(wanted.values())
    for split in ("validation", "test"):
        before = first.predictions(wanted.values(), split)
        after = second.predictions(wanted.values(), split)
        assert set(before) == set(after) == set(wanted.values())
        for key, found in after.items():
            assert found.subjects.tobytes() == before[key].subjects.tobytes()
            assert found.values.tobytes() == before[key].values.tobytes()
    first.close()
    second.close()
