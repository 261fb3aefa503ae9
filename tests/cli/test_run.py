"""Runs on a user's own scans, with plugins and failures, followed by reports."""

import csv
import io
import json
import shutil
import textwrap

import numpy as np
import pytest
from sqlalchemy import select

from bench.data.synthetic import Spec, write_cohort
from bench.report.build import build_report
from bench.store import schema
from bench.store.store import Store
from tests.cli.running import ran

TINY = '''
from torch import nn
from registry import encoder

@encoder("tiny", channels=1, min_size=16)
def build(card, pretrained):
    """Two convolutions and a global average."""
    return nn.Sequential(nn.Conv2d(1, 16, 5, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A BIDS directory of 30 small scans with ages."""
    return write_cohort(
        Spec("people", "age", voxel_mm=4, n_subjects=30), tmp_path_factory.mktemp("p")
    )


def store_of(folder, name="results.db"):
    return Store.for_reading(folder / name)


def test_own_files_from_the_command_line_to_every_format(bench, tmp_path, people):
    words = [
        *("run", "--model", "linear-voxels,prior", "--data", "bids", "--root", people),
        *("--target", "age", "--data-set", "grid=mni-4mm", "--seeds", "3"),
        *("--train-sizes", "9,all", "--trials", "0"),
    ]
    out = ran(bench(*words))
    assert "12 of 12 trials done; results are stored in results.db" in out
    out = ran(bench(*words))
    assert "Nothing to run: all requested trials are already stored in results.db." in out
    found = json.loads(ran(bench("report", "--format", "json")))
    text = json.dumps(found)
    assert "sub-" not in text
    # The root directory must only occur in the commands that repeat runs.
    (runs,) = [t for t in found["sections"][0]["appendix"] if t["name"] == "runs"]
    commands = [row.pop("command")["text"] for row in runs["rows"]]
    assert len(commands) == 12
    assert all(f"--root {people}" in command for command in commands)
    assert str(people) not in json.dumps(found)
    csv_rows = list(csv.DictReader(io.StringIO(ran(bench("report", "--format", "csv")))))
    assert len(csv_rows) > 20
    terminal = ran(bench("report"))
    for words in (terminal, ran(bench("report", "--format", "markdown"))):
        assert "linear-voxels" in words
        assert "Holm" in words
    assert "\\toprule" in ran(bench("report", "--format", "latex"))
    assert "6 done" not in ran(bench("status"))
    assert "3 done" in ran(bench("status"))


def test_the_database_and_its_folder_hold_no_participant(bench, tmp_path, people):
    ran(
        bench(
            *("run", "--model", "prior", "--data", "bids", "--root", people, "--seeds", "1"),
            *("--data-set", "grid=mni-4mm", "--trials", "0"),
        )
    )
    content = (tmp_path / "results.db").read_bytes()
    assert b"sub-" not in content
    assert b"participants" not in content
    assert {file.name for file in tmp_path.iterdir()} == {"results.db", "results.db.lock"}


def test_a_configured_cohort_and_a_table_give_the_same_numbers_as_the_bids_folder(
    bench, tmp_path, people
):
    rows = ["subject_id,path,age,sex,site"]
    lines = (people / "participants.tsv").read_text().splitlines()
    participants = list(csv.DictReader(lines, delimiter="\t"))
    for row in participants:
        name = row["participant_id"]
        scan = next((people / name / "anat").glob("*.nii.gz"))
        rows.append(f"{name.removeprefix('sub-')},{scan},{row['age']},{row['sex']},{row['site']}")
    (tmp_path / "scans.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "bench.toml").write_text(
        textwrap.dedent(f"""
        [data.mine]
        adapter = "bids"
        root = "{people}"
        target = "age"
        grid = "mni-4mm"
        [data.listed]
        adapter = "table"
        table = "scans.csv"
        space = "mni"
        grid = "mni-4mm"
        """)
    )
    out = ran(
        bench(
            *("run", "--model", "linear-voxels", "--data", "mine,listed", "--seeds", "2"),
            *("--train-sizes", "9", "--trials", "0"),
        )
    )
    assert "4 of 4 trials done" in out
    store = store_of(tmp_path)
    found = store.predictions(store.frame(schema.trials)["key"], "test")
    names = store.frame(schema.datasets)["name"]
    store.close()
    assert set(names) == {"mine", "listed"}
    values = sorted(tuple(p.values.ravel()) for p in found.values())
    assert len(values) == 4
    assert values[0] == values[1]
    assert values[2] == values[3]


def test_the_plugin_of_the_readme_runs_and_appears_in_the_report(bench, tmp_path):
    (tmp_path / "tiny.py").write_text(TINY)
    words = [
        *("run", "--model", "slice2d-scratch,prior", "--encoder", "tiny", "--plugins", "tiny.py"),
        *("--data", "synthetic-age-4mm", "--seeds", "2", "--train-sizes", "16", "--epochs", "2"),
    ]
    out = ran(bench(*words, "--trials", "0", "--set", "stride=4"))
    assert "4 of 4 trials done" in out
    assert "slice2d-scratch" in ran(bench("report"))
    assert "tiny" in ran(bench("report"))
    (tmp_path / "tiny.py").write_text(TINY.replace("16, 5, 4", "16, 7, 4"))
    out = ran(bench(*words, "--trials", "0", "--set", "stride=4", "--dry-run"))
    assert "2 to run, 2 already stored" in out, "another plugin file is another encoder"


def test_a_dry_run_writes_nothing(bench, tmp_path):
    out = ran(
        bench(
            *("run", "--model", "prior", "--data", "synthetic-age-4mm", "--dry-run"),
            *("--train-sizes", "16,all"),
        )
    )
    assert "10 to run" in out
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_is_listed_and_retried_only_when_asked(bench, tmp_path):
    (tmp_path / "moody.py").write_text(
        textwrap.dedent("""
        from pathlib import Path
        from registry import model
        @model("moody", kind="estimator", deterministic=True)
        def build(params, task, shape):
            class Moody:
                def fit(self, volumes, targets):
                    if not Path("/tmp/%s").exists():
                        raise RuntimeError("not in the mood")
                    self.mean = targets.mean()
                    return self
                def predict(self, volumes):
                    return [self.mean] * len(volumes)
            return Moody()
        """)
        % tmp_path.name
    )
    words = [
        *("run", "--model", "moody,prior", "--plugins", "moody.py", "--seeds", "2"),
        *("--data", "synthetic-age-4mm", "--train-sizes", "16"),
    ]
    out = ran(bench(*words), code=1)
    assert "2 of 4 trials done" in out
    assert "moody n=16 seed 0: RuntimeError: not in the mood" in out
    assert "--reuse retry-failed" in out
    out = ran(bench(*words), code=1)
    assert "Nothing to run: 2 trials failed before" in out
    report = ran(bench("report"))
    assert "not in the mood" in report
    mood = tmp_path.parent / tmp_path.name
    flag = "/tmp/" + tmp_path.name
    try:
        open(flag, "w").close()
        out = ran(bench(*words, "--reuse", "retry-failed"))
    finally:
        shutil.os.remove(flag)
    assert mood.exists()
    assert "2 of 2 trials done" in out
    assert "not in the mood" not in ran(bench("report"))


def test_a_diverged_network_is_a_failed_run(bench, tmp_path):
    done = bench(
        *("run", "--model", "slice2d-own", "--data", "synthetic-age-4mm", "--seeds", "1"),
        *("--train-sizes", "16", "--trials", "0", "--epochs", "3", "--set", "stride=8"),
        *("--set", "optimizer=sgd", "--set", "lr=10", "--set", "batch_size=1"),
    )
    out = ran(done, code=1)
    assert "diverged" in out
    store = store_of(tmp_path)
    row = store.frame(schema.trials).iloc[0]
    store.close()
    assert row["state"] == "failed"
    assert "in epoch" in row["error"]


@pytest.mark.parametrize(("tune", "studies"), [("shared", 1), ("per-seed", 2)])
def test_tuned_trials_carry_the_settings_of_their_study(bench, tmp_path, tune, studies):
    ran(
        bench(
            *(
                "run",
                "--model",
                "linear-voxels,prior",
                "--data",
                "synthetic-ad-4mm",
                "--seeds",
                "2",
            ),
            *("--train-sizes", "24", "--trials", "3", "--tune", tune),
        )
    )
    store = store_of(tmp_path)
    found = store.frame(schema.studies).set_index("key")
    trials = store.frame(schema.trials)
    tuning = store.frame(schema.tuning_trials)
    store.close()
    assert len(found) == studies
    assert len(tuning) == 3 * studies
    assert set(tuning["state"]) == {"complete"}
    tuned = trials[trials["study"].notna()]
    assert len(tuned) == 2
    for _, trial in tuned.iterrows():
        best = found.loc[trial["study"], "best"]
        assert set(best) == {"n_components", "penalty"}
        assert best.items() <= trial["params"].items()
    assert list(trials[trials["study"].isna()]["params"].map(len)) == [2, 2]


@pytest.mark.slow
def test_every_model_sees_the_same_subjects_and_sizes_are_nested(cache):
    from bench.data.cohort import open_cohort
    from bench.data.listing import cohort_request

    cohort = open_cohort(cohort_request("synthetic-ad-4mm", {}), cache)
    small, large = (set(cohort.train_rows(n, "3")) for n in (24, 48))
    assert small < large
    assert len(small) == 24
    assert set(cohort.train_rows(24, "4")) != small
    test = set(cohort.test_rows())
    validation = set(cohort.validation_rows(96, "3", full=True))
    everyone = set(cohort.train_rows(96, "3"))
    assert not test & everyone
    assert not test & validation
    assert not validation & everyone
    assert len(test | everyone | validation) == 160


@pytest.mark.slow
def test_a_worker_is_given_no_label_of_the_test_set(cache, tmp_path):
    from bench.data.cohort import open_cohort
    from bench.data.listing import cohort_request
    from bench.execute.driver import Driver, _Job, record
    from bench.execute.settings import ExecutionSettings
    from bench.plan import RunRequest, make_plan

    cohort = open_cohort(cohort_request("synthetic-age-4mm", {}), cache)
    store = Store.for_writing(tmp_path / "x.db")
    request = RunRequest(["linear-voxels"], [0], sizes=["all"], trials=2, cache=cache)
    plan = make_plan(request, cohort, store, announce=print)
    number = record(store, [plan], [0], ["bench"])
    settings = ExecutionSettings(store.database, tmp_path, number, ["bench"], "cpu", threads=1)
    driver = Driver(store, None, settings, None, lambda: False)
    study = driver._unit(_Job(plan, plan.studies[0], plan.studies[0].arm.params))
    assert study.data.test_rows == []
    test = set(cohort.test_rows().tolist())
    seen = {*study.data.train_rows, *study.data.validation_rows}
    assert not test & seen
    # Ages have one decimal and repeat; the memory map itself holds images only.
    assert np.load(cohort.volumes_file, mmap_mode="r").shape == (160, 46, 55, 46)
    fields = json.loads(study.to_json())["data"]
    assert "test_targets" not in fields
    store.close()


@pytest.mark.slow
def test_nothing_is_found_where_there_is_nothing(bench, tmp_path):
    """In a small null cohort, no pair of models differs in AUC."""
    ran(
        bench(
            *("run", "--model", "linear-voxels,slice2d-own,prior", "--data", "synthetic-null-4mm"),
            *("--seeds", "5", "--train-sizes", "48", "--trials", "0", "--epochs", "2"),
            *("--set", "stride=8", "--workers", "2", "--threads", "1"),
        )
    )
    store = store_of(tmp_path)
    report = build_report(store, metric="all")
    store.close()
    pairs = next(table for table in report.tables if table.name == "pairs-primary")
    column = [column.key for column in pairs.columns].index("p_holm")
    holm = [row[column].values["value"] for row in pairs.rows]
    assert len(holm) == 3
    assert min(holm) >= 0.05


SEEN = '''
from registry import encoder
from registry.core import catalogue, resolve

lite = catalogue.encoder("efficientnet-lite0")


@encoder(
    "seen",
    channels=lite.channels,
    mean=lite.mean,
    std=lite.std,
    min_size=lite.min_size,
    weights=lite.weights,
    pretraining="scans of the cohort itself",
    pretrained_on=("synthetic-ad-4mm",),
)
def build(card, pretrained):
    """The same network; its card says that its weights have seen the cohort."""
    return resolve(lite.target)(card, pretrained)
'''


def test_an_encoder_is_not_tested_on_a_cohort_that_it_has_seen_unless_one_insists(bench, tmp_path):
    (tmp_path / "seen.py").write_text(SEEN)
    words = (
        *("run", "--model", "slice2d-imagenet,slice2d-scratch,prior", "--encoder", "seen"),
        *("--plugins", "seen.py", "--data", "synthetic-ad-4mm", "--set", "stride=16"),
        *("--train-sizes", "12", "--seeds", "2", "--trials", "0", "--epochs", "1"),
    )
    planned = ran(bench(*words, "--dry-run"))
    assert "slice2d-imagenet with seen: its weights were pretrained on synthetic-ad-4mm" in planned
    assert "2 models at" in planned
    out = ran(bench(*words, "--allow-pretraining-overlap"))
    assert "6 of 6 trials done" in out
    report = " ".join(ran(bench("report", "--format", "markdown")).split())
    assert "Not a valid test (encoder pretrained on the test cohort)" in report
    assert report.count("encoder pretrained on the test cohort") > 1


IN_TURN = '''
import multiprocessing
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from bench.execute.base import WorkerExit
from bench.execute.unit import work
from registry import executor


@executor("in-turn")
class InTurn:
    """One spawned process after another."""

    def __init__(self, workers, *, gpus, preload, on_progress):
        self.pool = ThreadPoolExecutor(1)
        self.on_progress = on_progress
        self.process = None

    def submit(self, unit):
        return self.pool.submit(self.run, unit)

    def run(self, unit):
        attempt, started = uuid.uuid4().hex, datetime.now(UTC)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(unit.to_json(), attempt, theirs))
        self.process.start()
        theirs.close()
        while True:
            try:
                self.on_progress(unit.key, *ours.recv())
            except EOFError:
                break
        self.process.join()
        return WorkerExit(attempt, started, datetime.now(UTC), self.process.exitcode)

    def cancel(self):
        self.pool.shutdown(wait=False, cancel_futures=True)

    def kill(self):
        if self.process is not None:
            self.process.kill()

    def shutdown(self):
        self.kill()
        self.pool.shutdown(cancel_futures=True)
'''


def test_an_executor_is_added_in_one_file_and_gives_the_same_numbers(bench, tmp_path):
    plugin = tmp_path / "in_turn.py"
    plugin.write_text(IN_TURN)
    grid = ("--model", "linear-voxels", "--data", "synthetic-ad-4mm", "--seeds", "2")
    size = ("--train-sizes", "24", "--trials", "0")
    ran(bench("run", *grid, *size, "--db", "local.db"))
    ran(bench("run", *grid, *size, "--db", "turn.db", "--plugins", plugin, "--executor", "in-turn"))
    values = []
    for name in ("local.db", "turn.db"):
        store = store_of(tmp_path, name)
        with store.engine.connect() as connection:
            values.append(connection.execute(select(schema.metrics)).fetchall())
        store.close()
    assert values[0] == values[1]
    assert len(values[0]) > 2
    words = bench("run", *grid, "--executor", "locl")
    assert words.returncode == 2
    assert "did you mean 'local'" in words.stderr
    assert "in_turn.py" in ran(bench("list", "executors", "--plugins", plugin))
