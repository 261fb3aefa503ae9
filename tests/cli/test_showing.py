"""All commands that read a database, and the primary analysis declared by `bench run`."""

import json
import shutil
from pathlib import Path

import pytest

from bench.data.synthetic import Spec, write_cohort

EXAMPLE = Path(__file__).parents[2] / "results.db"
PAIR = ("slice2d-imagenet", "cnn3d")


@pytest.fixture
def example(tmp_path):
    return shutil.copy(EXAMPLE, tmp_path / "results.db")


def ran(done, code=0):
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_page_on_two_models_begins_with_its_sentence(bench, example):
    out = ran(bench("compare", *PAIR))
    assert "slice2d-imagenet" in out.splitlines()[3]
    assert "95 % CI" in out
    assert "DeLong" in out
    assert "<table" in ran(bench("compare", *PAIR, "--format", "html"))


def test_power_takes_two_models_or_the_family(bench, example):
    assert "Numbers required to detect 0.1" in ran(bench("power", *PAIR, "--difference", "0.1"))
    assert "linear-voxels" in ran(bench("power"))


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png"])
def test_a_figure_is_written_in_the_format_of_its_name(bench, example, tmp_path, suffix):
    file = tmp_path / f"curves.{suffix}"
    assert f"Written to {file}" in ran(bench("plot", "learning-curves", "--out", file))
    assert file.stat().st_size > 1000


def test_a_checklist_and_an_export_are_made(bench, example, tmp_path):
    assert "| " in ran(bench("report", "--checklist", "claim", "--format", "markdown"))
    ran(bench("export", "--out", "out", "--format", "csv", "--repro"))
    assert {"trials.csv", "repro.json"} <= {file.name for file in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("compare", "cnn3", "prior"), "did you mean 'cnn3d'"),
        (("compare", "prior", "prior"), "are the same row"),
        (("power", "prior"), "bench power A B"),
        (("plot", "lerning-curves"), "did you mean 'learning-curves'"),
        (("plot", "forest", "--out", "forest.docx"), "docx"),
        (
            ("report", "--format", "markdown", "--standalone"),
            "--standalone requires --format latex",
        ),
        (("report", "--checklist", "tripod"), "tripod-ai"),
        (("report", "--format", "htm"), "did you mean 'html'"),
        (("report", "--out", "nowhere/r.txt"), "does not exist"),
        (("compare", *PAIR, "--db", "none.db"), "The database none.db does not exist"),
    ],
)
def test_a_wrong_request_is_one_sentence(bench, example, words, sentence):
    error = ran(bench(*words), 2)
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_what_a_run_declares_is_in_its_report(bench, tmp_path):
    people = write_cohort(Spec("people", "age", voxel_mm=4, n_subjects=30), tmp_path / "p")
    words = [
        *("run", "--model", "linear-voxels,prior", "--data", "bids", "--root", people),
        *("--target", "age", "--data-set", "grid=mni-4mm", "--seeds", "3", "--trials", "0"),
        *("--train-sizes", "9,all"),
    ]
    assert "(9, 18), got 10" in ran(bench(*words, "--primary-size", "10"), 2)
    assert "--metric auc cannot be the primary metric" in ran(bench(*words, "--metric", "auc"), 2)
    assert not (tmp_path / "results.db").exists() or "any runs" in ran(bench("report"), 2)
    declared = ("--metric", "rmse", "--reference", "prior", "--margin", "0.5")
    ran(bench(*words, *declared, "--primary-size", "all"))
    out = ran(bench("report"))
    assert "Primary family: differences in RMSE (years) at n=18 (all)" in out
    assert "metric rmse, size all, reference prior, margin 0.5" in " ".join(out.split())
    assert "margin 0.5" in out
    # Another margin for the same grid is declared too late, because the results are known.
    ran(bench(*words, "--metric", "rmse", "--reference", "prior", "--margin", "5"))
    assert "declared after results were available, so all tests are exploratory" in " ".join(
        ran(bench("report")).split()
    )


def test_what_libraries_say_is_shown_on_request(bench, example):
    assert ran(bench("--log-level", "debug", "report")) == ran(bench("report"))
    assert "--log-level must be one of debug, info" in ran(
        bench("--log-level", "loud", "report"), 2
    )


KAPPA = '''
import numpy as np
from registry import metric


@metric("kappa", label="Cohen's kappa", higher_is_better=True, tasks=("binary",), of_classes=True)
def kappa(truth, classes):
    """Agreement beyond chance."""
    chance = sum((truth == k).mean() * (classes == k).mean() for k in (0, 1))
    return ((truth == classes).mean() - chance) / (1 - chance) if chance < 1 else np.nan
'''


@pytest.fixture
def kappa(tmp_path):
    file = tmp_path / "kappa.py"
    file.write_text(KAPPA)
    return file


def test_a_metric_of_a_plugin_is_reported_tested_and_drawn(bench, example, kappa):
    asked = ("report", "--metric", "kappa", "--format", "json", "--plugins", kappa)
    report = json.loads(ran(bench(*asked)))
    board = report["sections"][0]["tables"][0]
    assert board["title"].startswith("Cohen's kappa by training size")
    means = {row["arm"]["values"]["model"]: row["n48"]["values"]["mean"] for row in board["rows"]}
    accuracy = json.loads(ran(bench("report", "--metric", "accuracy", "--format", "json")))
    rows = accuracy["sections"][0]["tables"][0]["rows"]
    # If both classes have the same size, kappa is twice the accuracy minus one.
    wanted = {r["arm"]["values"]["model"]: 2 * r["n48"]["values"]["mean"] - 1 for r in rows}
    assert means == pytest.approx(wanted, abs=1e-12)
    assert len(means) == 8
    assert "kappa" in ran(bench("compare", *PAIR, "--plugins", kappa))
    assert "kappa" in ran(
        bench("plot", "forest", "--metric", "kappa", "--plugins", kappa, "--out", "k.svg")
    )
    assert "kappa.py" in ran(bench("list", "metrics", "--plugins", kappa))


def test_a_metric_that_fails_or_returns_another_shape_is_one_sentence(bench, example, kappa):
    asked = ("report", "--metric", "kappa", "--plugins", kappa)
    kappa.write_text(KAPPA.replace("chance = ", "chance = 1 / 0 +"))
    assert "The metric kappa of" in ran(bench(*asked), 2)
    kappa.write_text(KAPPA.replace("of_classes=True", "per_subject=True"))
    assert "one number per subject" in ran(bench(*asked), 2)
    kappa.write_text(KAPPA.replace('("binary",)', '("ordinal",)'))
    assert "'regression', 'binary', 'multiclass'" in ran(bench(*asked), 2)
    kappa.write_text(KAPPA.replace('("binary",)', '("binary", "regression")'))
    assert "separate metric for each" in ran(bench(*asked), 2)
    kappa.write_text(KAPPA.replace('"kappa"', '"auc"'))
    assert "'auc' is the name of a built-in metric" in ran(bench(*asked), 2)


def test_runs_that_were_judged_by_a_plugins_metric_say_so_without_it(bench, tmp_path, kappa):
    data = ("--data", "synthetic-ad-4mm", "--seeds", "2", "--train-sizes", "24")
    run = ("run", *data, "--model", "prior,linear-voxels", "--metric", "kappa")
    ran(bench(*run, "--plugins", kappa))
    assert "with --plugins" in ran(bench("report"), 2)
    assert "Cohen's kappa" in ran(bench("report", "--plugins", kappa))
