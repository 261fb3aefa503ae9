"""The recipes in CONTRIBUTING.md work, each as one plugin file."""

import re
from pathlib import Path

import pytest

from tests.cli.running import ran

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^### (.+)$", TEXT, flags=re.MULTILINE)
BLOCKS = dict(
    re.findall(
        r"^### ([^\n]+)\n(?:(?!^### ).)*?```python\n(.*?)```", TEXT, flags=re.MULTILINE | re.DOTALL
    )
)
GRID = ("--seeds", "1", "--train-sizes", "24", "--trials", "0")


@pytest.fixture
def plugin(tmp_path):
    def write(recipe):
        file = tmp_path / "plugin.py"
        file.write_text(BLOCKS[recipe])
        return file

    return write


def test_every_kind_of_extension_has_a_recipe():
    assert RECIPES == [
        "An encoder",
        "A model",
        "A data set",
        "A metric",
        "A part of the report",
        "An executor",
    ]


def test_the_encoder_trains(bench, plugin):
    data = ("--data", "synthetic-ad-4mm", "--model", "slice2d-scratch", "--encoder", "tiny")
    out = ran(bench("run", *data, *GRID, "--epochs", "1", "--plugins", plugin("An encoder")))
    assert "1 of 1 trials done" in out


def test_the_model_runs_and_the_report_names_it(bench, plugin):
    data = ("--data", "synthetic-age-4mm", "--model", "block-means,prior")
    assert "2 of 2 trials done" in ran(bench("run", *data, *GRID, "--plugins", plugin("A model")))
    assert "block-means" in ran(bench("report"))


def test_the_metric_is_reported(bench, plugin):
    data = ("--data", "synthetic-ad-4mm", "--model", "linear-voxels,prior")
    ran(bench("run", *data, *GRID))
    report = ran(bench("report", "--metric", "kappa", "--plugins", plugin("A metric")))
    assert "Cohen's kappa by training size" in report
