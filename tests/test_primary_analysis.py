import pytest

from bench.primary_analysis import (
    DEFAULT_ANALYSIS,
    PrimaryAnalysis,
    analysis_from_plain,
    check_analysis,
)
from registry.cards import Task
from registry.errors import UserError

AGE = Task("age", "regression")
DISEASE = Task("diagnosis", "classification", ("CN", "AD"))
MODELS = ["cnn3d", "slice2d-own", "slice2d-imagenet", "slice2d-imagenet"]


def check(task=DISEASE, **declared):
    check_analysis(PrimaryAnalysis(**declared), task, "mine", MODELS, [24, 48], pool=96)


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"metric": "auc", "size": 24, "reference": "cnn3d", "margin": 0.02},
        {"metric": "average_precision"},
    ],
)
def test_what_the_command_can_keep_is_taken(declared):
    check(**declared)


def test_all_is_the_pool():
    with pytest.raises(UserError, match=r"\(24, 48\), got all"):
        check(size="all")
    check_analysis(PrimaryAnalysis(size="all"), AGE, "mine", MODELS, [24, 96], pool=96)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"metric": "mae"}, "cannot be the primary metric on mine"),
        ({"metric": "sensitivity"}, "cannot be the primary metric on mine"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"size": 25}, r"\(24, 48\), got 25"),
        ({"reference": "cnn3"}, "did you mean 'cnn3d'"),
        ({"reference": "slice2d-imagenet"}, "ambiguous, because this model runs with 2 encoders"),
        ({"margin": 0.0}, "positive number"),
        ({"margin": float("nan")}, "positive number"),
        ({"margin": float("inf")}, "positive number"),
    ],
)
def test_what_it_cannot_keep_is_refused(declared, words):
    with pytest.raises(UserError, match=words):
        check(**declared)


def test_only_what_was_declared_is_stored():
    declared = PrimaryAnalysis(metric="auc", margin=0.02)
    assert declared.plain() == {"metric": "auc", "margin": 0.02}
    assert analysis_from_plain(declared.plain()) == declared
    assert analysis_from_plain(None) == analysis_from_plain({}) == DEFAULT_ANALYSIS
    assert declared.family == PrimaryAnalysis(metric="auc")
