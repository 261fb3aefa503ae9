"""Invalid input results in one clear message and exit code 2, and nothing is written."""

import fcntl
import sqlite3
import subprocess
import sys
import textwrap

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.cli.running import ran

RUN = ["run", "--model", "prior", "--data", "synthetic-ad-4mm", "--db", "x.db", "--trials", "0"]


def change(**options):
    """Return RUN with options replaced or added; underscores in names become dashes."""
    words = list(RUN)
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return words


def assert_refused(done, *parts):
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    message = done.stderr.strip()
    assert message.startswith("Error: ")
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (change(model="slice2d-imagnet"), ["no model", "did you mean 'slice2d-imagenet'"]),
        (change(data="synthetic-ad4mm"), ["no dataset", "did you mean 'synthetic-ad-4mm'"]),
        (
            change(model="slice2d-scratch", encoder="resnet-18"),
            ["no encoder", "did you mean 'resnet18'"],
        ),
        (change(encoder="resnet18"), ["none of the chosen models has a replaceable encoder"]),
        (change(model="cnn3d", set="lrr=1"), ["setting lrr", "did you mean 'lr'"]),
        (change(model="cnn3d", set="lr=-1"), ["--set lr=-1", "is outside"]),
        (change(model="cnn3d", set="lr"), ["--set", "form key=value, got 'lr'"]),
        (change(model="cnn3d", epochs="0"), ["epochs=0", "is outside"]),
        (change(train_sizes="0"), ["--train-sizes", "'0' is neither a positive number"]),
        (change(train_sizes="5000"), ["--train-sizes", "at most 96, got 5000"]),
        (change(train_sizes="ten"), ["--train-sizes ten", "'ten' is neither a positive number"]),
        (change(seeds="-1"), ["--seeds", "non-negative", "got '-1'"]),
        (change(seeds="0"), ["--seeds", "between 1 and 1000, got 0"]),
        (change(trials="-1"), ["--trials must be at least 0, got -1"]),
        (change(tune="sometimes"), ["--tune must be one of shared, per-seed, got 'sometimes'"]),
        (change(memory="much"), ["--memory must be an amount such as 8G or 500M, got 'much'"]),
        (
            change(memory="8G", executor="slurm", precision="fp32"),
            ["--memory requires an executor on this machine"],
        ),
        (change(target="height"), ["height"]),
        (change(db="postgresql://x/y"), ["--work DIR is required"]),
        (change(db="mysql://x/y"), ["mysql", "postgresql://USER@HOST/NAME"]),
        (change(db="no/such/folder/x.db"), ["does not exist"]),
        (change(data="bids"), ["--root"]),
        (change(data="bids", root="nowhere"), ["nowhere", "not a directory"]),
        (change(plugins="none.py"), ["none.py", "does not exist"]),
        (change(model="slice2d-imagenet", weights="resnet18=none.pth"), ["none.pth"]),
        (change(data_set="colour=red"), ["colour"]),
        # A typo is reported before scans are looked for.
        (change(model="cnn3d", set="lrr=1", data="bids", root="nowhere"), ["setting lrr"]),
    ],
    ids=lambda value: " ".join(value[5:]) if isinstance(value, list) else None,
)
def test_a_wrong_request_is_one_sentence(bench, tmp_path, words, parts):
    assert_refused(bench(*words), *parts)
    database = tmp_path / "x.db"
    if database.exists():
        with sqlite3.connect(database) as connection:
            assert connection.execute("SELECT COUNT(*) FROM bench_trials").fetchone() == (0,)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cpu(bench):
    assert_refused(bench(*change(model="cnn3d", device="cuda")), "--device cuda requires a GPU")


def test_missing_pretrained_weights_are_an_error_that_names_three_ways(bench, tmp_path):
    done = bench(*change(model="slice2d-imagenet"))
    assert_refused(
        done, "resnet18", "--weights resnet18=FILE", "bench weights get", "efficientnet-lite0"
    )


def bids(folder, participants, scans=12):
    """Write a BIDS folder of tiny scans in MNI space."""
    for number in range(scans):
        anat = folder / f"sub-{number:02d}" / "anat"
        anat.mkdir(parents=True)
        data = np.random.default_rng(number).integers(0, 200, (20, 22, 20)).astype(np.uint8)
        affine = np.diag([10.0, 10.0, 10.0, 1.0])
        affine[:3, 3] = (-90, -126, -72)
        nib.save(nib.Nifti1Image(data, affine), anat / f"sub-{number:02d}_space-MNI152_T1w.nii.gz")
    if participants is not None:
        (folder / "participants.tsv").write_text(participants)


def table(columns, rows):
    return "\n".join("\t".join(map(str, line)) for line in [columns, *rows]) + "\n"


@pytest.mark.parametrize(
    ("participants", "scans", "parts"),
    [
        (table(["participant_id", "age"], [["sub-00", 60]]), 0, ["T1w"]),
        (None, 12, ["participants.tsv"]),
        (
            table(["participant_id", "sex"], [[f"sub-{i:02d}", "F"] for i in range(12)]),
            12,
            ["age", "sex"],
        ),
    ],
    ids=["no scan", "no table", "no target column"],
)
def test_a_bids_folder_that_cannot_be_used_says_why(bench, tmp_path, participants, scans, parts):
    folder = tmp_path / "bids"
    folder.mkdir()
    bids(folder, participants, scans)
    assert_refused(bench(*change(data="bids", root=str(folder), target="age")), *parts)


def test_a_target_with_one_class_is_refused(bench, tmp_path):
    folder = tmp_path / "bids"
    folder.mkdir()
    rows = [[f"sub-{i:02d}", "AD"] for i in range(12)]
    bids(folder, table(["participant_id", "diagnosis"], rows))
    assert_refused(
        bench(*change(data="bids", root=str(folder), target="diagnosis")), "AD for every scan"
    )


def test_a_file_that_is_no_database_is_left_alone(bench, tmp_path):
    file = tmp_path / "x.db"
    file.write_text("not a database at all" * 100)
    assert_refused(bench(*RUN), "is not a database")
    assert_refused(bench("report", "--db", file), "is not a database")
    assert file.read_text().startswith("not a database at all")


def test_a_database_of_another_program_is_left_alone(bench, tmp_path):
    file = tmp_path / "x.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE notes (x)")
    before = file.read_bytes()
    words = [RUN, [*RUN, "--dry-run"], [*RUN, "--reuse", "only"]]
    words += [["report"], ["status"], ["compare", "prior", "cnn3d"], ["export", "--out", "out"]]
    words += [["db", "mirror"], ["db", "upgrade"]]
    for each in words:
        assert_refused(
            bench(*each, "--db", "x.db"), "belongs to another program", "was not changed"
        )
    assert file.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.db"]


def test_a_second_run_on_the_same_database_waits_for_the_first(environment, tmp_path):
    with open(tmp_path / "x.db.lock", "w") as lock:
        lock.write("process 4711 on here since 2026-01-01")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *RUN],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = process.stdout.readline()
        assert line.startswith("Another command is writing to x.db: process 4711 on here since")
        assert "Waiting for it" in line
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "trials done" in out


def test_other_commands_name_the_run_that_writes_to_a_database(bench, tmp_path):
    ran(bench(*RUN))
    with open(tmp_path / "x.db.lock", "r+") as lock:
        lock.write("process 4711 on here since 2026-01-01")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = ("db", "upgrade", "--db", "x.db")
        assert_refused(bench(*words), "Another command is writing to x.db", "process 4711")


BAD_PLUGINS = {
    "syntax": ("def build(:\n", "SyntaxError"),
    "shape": (
        """
        from torch import nn
        from registry import model
        @model("odd")
        def build(params, task, shape, encoder):
            return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 7))
        """,
        "must return the shape (2, 1)",
    ),
    "nan": (
        """
        from torch import nn
        from registry import model
        @model("odd")
        def build(params, task, shape, encoder):
            net = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 1))
            nn.init.constant_(net[1].bias, float("nan"))
            return net
        """,
        "not finite",
    ),
    "raises": (
        """
        from registry import model
        @model("odd")
        def build(params, task, shape, encoder):
            raise KeyError("width")
        """,
        "KeyError",
    ),
}


@pytest.mark.parametrize("kind", BAD_PLUGINS)
def test_a_plugin_that_breaks_its_contract_is_found_before_anything_runs(bench, tmp_path, kind):
    body, words = BAD_PLUGINS[kind]
    (tmp_path / "odd.py").write_text(textwrap.dedent(body))
    assert_refused(bench(*change(model="odd", plugins="odd.py")), words)


def test_a_report_of_nothing_is_a_sentence(bench, tmp_path):
    assert_refused(bench("report", "--db", "none.db"), "The database none.db does not exist")
    assert_refused(bench("report", "--format", "pdf"), "--format", "got 'pdf'")


def test_debug_shows_the_traceback(bench):
    done = bench(*change(model="nobody"), "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "Error: There is no model 'nobody'" in done.stderr


def test_a_broken_configuration_is_a_sentence(bench, tmp_path):
    (tmp_path / "bench.toml").write_text("cache = [")
    assert_refused(bench(*RUN), "bench.toml is not valid TOML")
    (tmp_path / "bench.toml").write_text("cahce = 'x'")
    assert_refused(bench(*RUN), "cahce")


@pytest.mark.git
def test_results_on_people_are_not_written_into_a_file_that_git_publishes(bench, tmp_path):
    folder = tmp_path / "bids"
    folder.mkdir()
    rows = [[f"sub-{i:02d}", 60 + i] for i in range(12)]
    bids(folder, table(["participant_id", "age"], rows))
    (tmp_path / "x.db").touch()
    for words in (["init", "-q"], ["add", "x.db"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    words = change(data="bids", root=str(folder), data_set="grid=mni-4mm")
    assert_refused(bench(*words), "x.db is tracked by git", "--db")
    words[words.index("x.db")] = "mine.db"
    assert bench(*words).returncode == 0
