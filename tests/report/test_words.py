"""Captions and methods of reports on incomplete grids describe what was run."""

import re

import numpy as np
import pytest

from bench.report.build import build_report
from bench.report.checklists import build_checklist
from bench.report.comparison import build_comparison
from bench.report.render import render
from tests.report.conftest import DISEASE, cell, every_word, table

FORMATS = ("terminal", "markdown", "latex", "html")


def said(report):
    """Return the text of a report in one line."""
    return " ".join(every_word(report).split())


def in_format(report, format_):
    """Return a rendered report as plain text, without the markup of its format."""
    text = render(report, format_, standalone=format_ == "latex")
    text = text.replace(r"{[}", "[").replace(r"{]}", "]").replace(r"\allowbreak{}", "")
    text = re.sub(r"\\([%&#_])", r"\1", text).replace("&#x27;", "'").replace("\\_", "_")
    return " ".join(text.split())


def uneven(bench):
    """Three and four runs without shared seeds, two shared seeds, and a missing cell."""
    bench.cohort("cohort", DISEASE)
    a, b, c = (bench.arm(name, task=DISEASE) for name in ("a", "b", "c"))
    command = bench.ask(a, b, c, sizes=(24, 48), seeds=range(7))
    for arm, seeds in ((a, (0, 1, 2)), (b, (3, 4, 5, 6)), (c, (0, 1, 4))):
        for seed in seeds:
            bench.run(command, arm, 48, seed, error=3.0 if arm is a else 4.0)
    for arm in (a, b):
        for seed in range(3):
            bench.run(command, arm, 24, seed)


def whole(bench):
    """Networks that are trained on all subjects of the pool."""
    bench.cohort()
    bench.grid([bench.arm("a"), bench.arm("b")], sizes=(96,))


def estimators(bench, sizes=(24, 96)):
    """Two deterministic models."""
    bench.cohort("cohort", DISEASE)
    linear, prior = (bench.estimator(name, task=DISEASE) for name in ("linear-voxels", "prior"))
    command = bench.ask(linear, prior, sizes=sizes, fixed=("prior", "linear-voxels"))
    truth = bench.truth["0" * 16]
    for size in sizes:
        for seed in range(3):
            values = bench.predict(DISEASE, truth, 3.0, seed if size < 96 else 0)
            bench.run(command, linear, size, seed, values=values)
            bench.run(command, prior, size, seed, values=np.full(40, 0.5))


# ------------------------------------------------------------------ unpaired, missing


def test_an_uneven_grid_is_described_by_cell_and_by_pair(bench):
    uneven(bench)
    report = build_report(bench.store)
    text = said(report)
    assert "seeds each" not in text
    assert "on the same seeds" not in text
    assert "paired runs" not in text
    assert "; some models or training sizes lack some of them." in text
    assert (
        "finished runs by seed: 0, 1, 2 (a at n=24, 48, b at n=24); 3, 4, 5, 6 (b at n=48); none "
        "(c at n=24); 0, 1, 4 (c at n=48)."
    ) in text
    assert "a vs b, unpaired, 3 runs against 4" in text
    assert "a vs c, on 2 shared seeds, without seed 2, 4" in text
    assert "every run of A with every run of B" in text
    assert "seeds excluded because only one of the two models has them: 2, 4" in text
    assert cell(table(report, "leaderboard-auc"), "c", "n24").text == "missing"
    assert cell(table(report, "pairs-primary"), "a vs b", "n").text == "(3, 4) x 40"
    assert "Fewer than two pairs of runs: a vs b, b vs c." in text


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_says_the_same_of_an_uneven_grid(bench, format_):
    uneven(bench)
    text = in_format(build_report(bench.store), format_)
    assert "unpaired, 3 runs against 4" in text
    assert "the same seeds" not in text
    assert "Best of each column marked ^" in text.replace(r"\textasciicircum{}", "^")
    assert "in bold" not in text


def test_the_page_of_an_unpaired_pair_lists_the_seeds_of_both(bench):
    uneven(bench)
    report = build_comparison(bench.store, "a", "b", {})
    first = report.sections[0].caption[0]
    assert "3 seeds of a and 4 seeds of b, unpaired" in first
    assert "Best of each column marked ^" in said(report)
    assert "Settings that differ from the published ones" not in said(report)


def test_a_pair_without_a_p_is_not_counted_by_holm(bench):
    bench.cohort()
    a, b, c = (bench.arm(name) for name in "abc")
    command = bench.ask(a, b, c, sizes=(48,), seeds=range(3))
    for arm in (a, b):
        for seed in range(3):
            bench.run(command, arm, 48, seed, error=4.0 if arm is a else 6.0)
    bench.run(command, c, 48, 0)
    text = said(build_report(bench.store))
    assert "all pairs (3 pairs, 1 with a p;" in text
    assert "over 1 pair;" in build_comparison(bench.store, "a", "b", {}).sections[0].caption[0]


def test_a_nonsignificant_difference_is_reported_with_the_favoured_model(bench):
    bench.cohort()
    bench.grid([bench.arm("worse"), bench.arm("better")], sizes=(48,), errors=(5.2, 5.0))
    for names in (("worse", "better"), ("better", "worse")):
        first = build_comparison(bench.store, *names, {}).sections[0].caption[0]
        if "No significant difference" in first:
            assert re.search(r"n=48: \d+\.\d+ years MAE in favour of better", first)
        assert "lead of" not in first


# ------------------------------------------------------------------ all subjects


def test_with_all_subjects_there_is_no_random_subset(bench):
    whole(bench)
    text = said(build_report(bench.store))
    assert "training subset" not in text
    assert (
        "The seed determines the initialisation of networks and the order of scans in training."
        in text
    )
    assert "the training sets of different seeds are identical" in text
    assert "conditional on this training set" in text
    assert (
        "32 at every training size (one third of the training size, at least 8 and at most all 32)"
    ) in text


def test_with_fewer_subjects_both_subsets_are_random(bench):
    bench.cohort()
    bench.grid([bench.arm("a"), bench.arm("b")], sizes=(24, 48, 96))
    text = said(build_report(bench.store))
    assert (
        "The seed determines the training subset at n=24, 48 (nested across sizes and the same "
        "for every model), the validation subset, the initialisation of networks and the order "
        "of scans"
    ) in text
    assert "used to select the best epoch of networks: 8 at n=24, 16 at n=48, 32 at n=96" in text
    assert "with 3 seeds each (0, 1, 2)" in text
    assert "on the same seeds and the same test subjects" in text


def test_the_validation_subjects_of_tuning_are_named_too(bench):
    bench.cohort()
    space = {"lr": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}}
    tuned = [bench.arm(name, space=space, trials=5, tune="shared") for name in "ab"]
    bench.grid([*tuned, bench.estimator("prior")], sizes=(48,))
    text = said(build_report(bench.store))
    assert (
        "used to select the best epoch of networks and tuned settings: 16 at every training size"
        in text
    )
    assert "each tuning study samples its own training and validation subjects" in text
    assert "with seeds other than those reported); not tuned: prior." in text


# ------------------------------------------------------------------ estimators


def test_estimators_have_no_epochs_initialisation_or_validation(bench):
    estimators(bench)
    for report in (
        build_report(bench.store, appendix=True),
        build_comparison(bench.store, "linear-voxels", "prior", {}),
    ):
        text = said(report)
        assert not re.search(r"epoch|initialisation|order of scans|used to select", text)
        assert "The seed determines the training subset at n=24 (the same for every model)." in text
        assert (
            "At n=96 (all) linear-voxels and prior are a single fit each, independent of the seed."
        ) in text
        assert "linear-voxels vs prior, a single fit against 3 runs" in text
    for kind in ("claim", "comparison", "tripod-ai"):
        answers = " ".join(
            c.text
            for t in build_checklist(bench.store, kind).tables
            for row in t.rows
            for c in row[2:]
        )
        assert not re.search(r"[Bb]est epoch|initialisation|whole volume", answers)


def test_single_fits_are_one_pair_however_often_they_were_run(bench):
    estimators(bench, sizes=(96,))
    report = build_report(bench.store)
    text = said(report)
    assert "every model is a single fit to all subjects" in text
    assert "The seed determines" not in text
    assert "linear-voxels vs prior, a single fit each, tested over subjects alone" in text
    assert cell(table(report, "pairs-primary"), "linear-voxels vs prior", "n").text == "1 x 40"
    # Three runs of a single fit are not three pairs for a test over seeds.
    assert not [each for each in report.tables if each.name == "pairs-seeds"]
    page = build_comparison(bench.store, "linear-voxels", "prior", {})
    assert "a single fit each x 40 subjects" in page.sections[0].caption[0]
    assert len(table(page, "seeds").rows) == 1
    assert not [each for each in page.tables if each.name == "beside"]


# ------------------------------------------------------------------ marks


def test_untested_rows_are_not_marked_as_tied(bench):
    bench.cohort()
    bench.grid([bench.arm("a"), bench.arm("b")], sizes=(48,), seeds=[0])
    report = build_report(bench.store)
    board = table(report, "leaderboard-mae")
    marks = [(row[1].bold, row[1].tied, row[1].untested) for row in board.rows]
    assert marks == [(True, False, False), (False, False, True)]
    text = said(report)
    assert "? not tested against the best (single run or no variance)" in text
    assert (
        "Results do not generalise to new training runs, because no model has two runs at n=48"
        in text
    )


def test_metrics_without_a_test_have_a_note(bench):
    bench.cohort("cohort", DISEASE)
    bench.grid([bench.arm(name, task=DISEASE) for name in "ab"], sizes=(48,))
    note = "MCC and F1: not tested; only the best is marked."
    assert note in table(build_report(bench.store), "metrics").notes
    alone = build_report(bench.store, metric="mcc")
    assert table(alone, "leaderboard-mcc").notes == ("MCC: not tested; only the best is marked.",)


# ------------------------------------------------------------------ settings, machines


def test_changed_settings_are_listed_for_untuned_models(bench):
    bench.cohort()
    params = {**bench.arm("cnn3d").params, "epochs": 12}
    bench.grid([bench.arm("cnn3d", params=params), bench.arm("slice2d-own", params=params)])
    (section,) = build_checklist(bench.store, "comparison").sections
    answers = {row[0].text: row[2].text for row in section.tables[0].rows}
    assert "except epochs=12" in answers["tuning"]
    assert "every model has its card's settings" not in answers["tuning"]
