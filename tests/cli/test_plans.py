"""Plans that are run elsewhere: `bench plan`, `bench run --from` and `bench ingest`."""

import json
import re
import shutil

import pytest

from bench.cli.parsing import parse_limit, parse_shard
from bench.plan_file import PlanFile, read_plan
from registry.errors import UserError
from tests.cli.running import ran
from tests.execute.test_kill import results

TINY = """
from torch import nn
from registry import encoder
from .blocks import convolution

@encoder("tiny", channels=1, min_size=16)
def build(card, pretrained):
    return nn.Sequential(convolution(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
BLOCKS = """
from torch import nn

def convolution():
    return nn.Conv2d(1, 8, 5, 4)
"""
GRID = (
    *("--model", "slice2d-scratch,linear-voxels,prior", "--encoder", "tiny"),
    *("--data", "synthetic-ad-4mm", "--set", "stride=8", "--train-sizes", "16,24"),
    *("--seeds", "2", "--trials", "2", "--epochs", "1", "--precision", "fp32"),
)


def refused(done):
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def test_parts_of_a_plan_run_elsewhere_give_the_same_results(bench, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "__init__.py").write_text(TINY)
    (tmp_path / "tiny" / "blocks.py").write_text(BLOCKS)
    plugin = ("--plugins", "tiny")
    ran(bench("run", *GRID, *plugin, "--threads", "1", "--db", "here.db"))
    out = ran(bench("plan", *GRID, *plugin, "--out", "plan"))
    assert "12 trials to run written to plan." in out
    # The other machine has nothing but the plan.
    there = tmp_path / "there"
    there.mkdir()
    shutil.move(tmp_path / "plan", there / "carried")
    shutil.rmtree(tmp_path / "tiny")
    for part in ("1/3", "2/3", "3/3"):
        words = ("run", "--from", "carried", "--shard", part, "--threads", "1")
        assert "trials done" in ran(bench(*words, cwd=there))
    assert "Nothing to run" in ran(bench(*words, cwd=there))
    out = ran(bench("ingest", there / "carried", "--db", "home.db"))
    assert "12 of 12 trials of the plan are stored in home.db." in out
    assert results(tmp_path / "home.db") == results(tmp_path / "here.db")
    out = ran(bench("ingest", there / "carried", "--db", "home.db"))
    assert out.count("0 trials and 0 studies added") == 3
    # The report covers the whole plan.
    out = ran(bench("report", "--db", "home.db"))
    assert re.search(r"slice2d-scratch .* n=2 .* n=2", out)
    assert "12 trials to run" not in ran(
        bench(
            "plan",
            *GRID,
            "--plugins",
            there / "carried/plugins/0/tiny",
            "--out",
            "again",
            "--db",
            "home.db",
        )
    )


def test_trials_that_are_stored_are_not_planned(bench, tmp_path):
    grid = ("--model", "prior", "--data", "synthetic-ad-4mm", "--trials", "0")
    ran(bench("run", *grid, "--seeds", "2", "--db", "x.db"))
    more = ("--seeds", "3", "--precision", "fp32", "--db", "x.db", "--out", "plan")
    assert "1 trial to run written to plan." in ran(bench("plan", *grid, *more))
    assert "1 of 1 trials done" in ran(bench("run", "--from", "plan"))
    assert "1 of 1 trials of the plan are stored" in ran(bench("ingest", "plan", "--db", "x.db"))


def test_what_does_not_fit_a_plan_is_one_sentence(bench, tmp_path):
    grid = ("--model", "prior", "--data", "synthetic-ad-4mm", "--trials", "0", "--seeds", "1")
    assert "requires --precision" in refused(bench("plan", *grid, "--out", "plan"))
    ran(bench("plan", *grid, "--precision", "fp32", "--out", "plan"))
    assert "no results in plan" in refused(bench("ingest", "plan", "--db", "x.db"))
    assert "--shard requires --from" in refused(bench("run", *grid, "--shard", "1/2"))
    message = refused(bench("run", "--from", "plan", "--crop", "brain"))
    assert "The cohort synthetic-ad-4mm differs from that of the plan" in message
    message = refused(bench("run", "--from", "plan", "--seeds", "7,8"))
    assert "cannot be run as planned" in message
    assert "There is no plan.json in elsewhere" in refused(bench("run", "--from", "elsewhere"))
    file = tmp_path / "plan" / "plan.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "format": 99, "slicebench": "9.0"}))
    assert "newer version of slicebench (9.0)" in refused(bench("run", "--from", "plan"))
    file.write_text(file.read_text()[:100])
    assert "plan.json is damaged" in refused(bench("run", "--from", "plan"))


def test_detaching_needs_jobs_that_outlive_the_command(bench):
    grid = ("run", "--model", "prior", "--data", "synthetic-ad-4mm", "--trials", "0")
    message = refused(bench(*grid, "--detach"))
    assert "--detach requires an executor whose jobs outlive this command" in message
    assert "There is nothing to collect for x.db" in ran(bench("ingest", "--db", "x.db"))


def test_parts_keep_studies_together_and_contain_every_trial_once():
    trials = [
        {"key": f"{study}{seed}", "study": study if study < "d" else None}
        for study in "abcde"
        for seed in range(3)
    ]
    plan = PlanFile(None, "", {}, {}, trials, {})
    parts = [plan.shard(part, 4) for part in (1, 2, 3, 4)]
    assert sum(map(len, parts)) == 15
    assert set().union(*parts) == plan.keys
    for study in "abc":
        assert sum(f"{study}0" in part for part in parts) == 1
        assert [part for part in parts if f"{study}0" in part] == [
            part for part in parts if f"{study}2" in part
        ]
    # Trials without a study are distributed individually.
    assert sorted(len([key for key in part if key[0] in "de"]) for part in parts) == [1, 1, 2, 2]


@pytest.mark.parametrize(("text", "limit"), [(None, None), ("3", 3), ("5%", 2), ("100%", 40)])
def test_the_limit_of_failures_is_a_number_or_a_share(text, limit):
    assert parse_limit(text, 40) == limit


@pytest.mark.parametrize("text", ["", "-1", "x", "1.5", "101%", "%"])
def test_other_limits_are_refused(text):
    with pytest.raises(UserError, match="--max-failures"):
        parse_limit(text, 40)


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "a/b", "1/0", "1/2/3"])
def test_other_parts_are_refused(text):
    with pytest.raises(UserError, match="--shard"):
        parse_shard(text)


def test_a_plan_is_read_with_files_in_its_directory(tmp_path):
    content = {
        **{"format": 1, "slicebench": "0.1.0", "options": {"seeds": "2"}, "cohorts": {}},
        **{"plugins": ["plugins/0/tiny.py"], "weights": {"resnet18": "weights/resnet18.pth"}},
        **{"trials": [], "studies": {}},
    }
    (tmp_path / "plan.json").write_text(json.dumps(content))
    assert read_plan(tmp_path).options == {
        "seeds": "2",
        "plugins": [f"{tmp_path}/plugins/0/tiny.py"],
        "weights": [f"resnet18={tmp_path}/weights/resnet18.pth"],
    }
