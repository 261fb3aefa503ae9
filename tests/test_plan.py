"""Plans: types of settings, and unchanged keys."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from bench.data.cohort import open_cohort
from bench.data.listing import cohort_request
from bench.plan import RunRequest, make_plan
from registry.core import catalogue
from registry.errors import UserError

EXAMPLE = Path(__file__).parents[1] / "results.db"

TWO = """
from registry import model
from registry.cards import Option

@model("whole", kind="estimator", options={"k": Option(1, "a whole number")})
def whole(params, task, shape): ...

@model("real", kind="estimator", options={"k": Option(1.0, "any number", low=0)})
def real(params, task, shape): ...

@model("word", kind="estimator", options={"k": Option("a", "any word")})
def word(params, task, shape): ...
"""


@pytest.fixture
def plan(tmp_path, cache):
    """Plan models of a plugin on a synthetic cohort."""
    file = tmp_path / "two.py"
    file.write_text(TWO)
    catalogue.load_file(file)
    cohort = open_cohort(cohort_request("synthetic-age-4mm", {}), cache)

    def make(*models, **settings):
        request = RunRequest(models, [0], trials=0, settings=settings, cache=cache)
        return make_plan(request, cohort, None, announce=print)

    yield make
    catalogue._discard(str(file))
    catalogue.files.remove(str(file))


@pytest.mark.parametrize("order", [("whole", "real", "word"), ("word", "real", "whole")])
def test_a_setting_is_read_by_each_model_as_its_own_option_says(plan, order):
    found = {arm.model.name: arm.params["k"] for arm in plan(*order, k="3").arms.values()}
    assert {name: (type(k), k) for name, k in found.items()} == {
        "whole": (int, 3),
        "real": (float, 3.0),
        "word": (str, "3"),
    }
    assert set(plan(*order, k="3").arms) == {key for m in order for key in plan(m, k="3").arms}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"k": "2.5"}, "k=2.5 .* whole: '2.5' is not an integer"),
        ({"kk": "1"}, "mean 'k'"),
    ],
)
def test_a_setting_that_does_not_fit_is_a_sentence(plan, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        plan("real", "whole", **settings)


@pytest.mark.slow
def test_every_stored_trial_of_the_shipped_example_is_found_again(bench, tmp_path):
    """The keys of built-in models are those in results.db."""
    shutil.copy(EXAMPLE, tmp_path / "results.db")
    with sqlite3.connect(tmp_path / "results.db") as connection:
        ((argv,),) = connection.execute("SELECT argv FROM bench_commands")
    done = bench(*json.loads(argv)[1:], "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials: 80 already stored; studies to run: 0" in done.stdout
