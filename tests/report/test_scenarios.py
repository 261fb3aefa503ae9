"""For any contents of a database, every command gives a valid report or one error message."""

import re

import numpy as np
import pytest

from bench.report.build import build_report
from bench.report.checklists import CHECKLISTS, build_checklist
from bench.report.comparison import build_comparison
from bench.report.planning import build_planning
from bench.report.plots import KINDS, FigureRequest, figure
from bench.report.render import FORMATS, render
from bench.store.store import Store
from registry.errors import UserError
from tests.report.conftest import AGE, DISEASE, STAGES, every_word


def one_model(bench):
    bench.cohort()
    bench.grid([bench.arm("a")])


def one_seed(bench):
    bench.cohort()
    bench.grid([bench.arm("a"), bench.arm("b")], seeds=[3])


def two_seeds(bench):
    bench.cohort("ad", DISEASE)
    bench.grid([bench.arm(name, task=DISEASE) for name in "ab"], seeds=range(2))


def unequal_seeds(bench):
    bench.cohort()
    a, b = bench.arm("a"), bench.arm("b")
    command = bench.ask(a, b, sizes=(24, 48), seeds=range(4), declared={"margin": 1.0})
    for arm, seeds in ((a, (0, 1, 2)), (b, (2, 3))):
        for size in (24, 48):
            for seed in seeds:
                bench.run(command, arm, size, seed)


def no_shared_seed(bench):
    bench.cohort()
    a, b = bench.arm("a"), bench.arm("b")
    command = bench.ask(a, b, seeds=range(4))
    for arm, seeds in ((a, (0, 1)), (b, (2, 3))):
        for seed in seeds:
            bench.run(command, arm, 48, seed)


def diverged(bench):
    bench.cohort("ad", DISEASE)
    a, b = bench.arm("a", task=DISEASE), bench.arm("b", task=DISEASE)
    command = bench.ask(a, b, sizes=(24, 48))
    for size in (24, 48):
        for seed in range(3):
            bench.run(command, a, size, seed)
            failed = "diverged: the training loss is nan in epoch 2" if seed == 1 else ""
            bench.run(command, b, size, seed, failed=failed)


def everything_failed(bench):
    bench.cohort()
    a, b = bench.arm("a"), bench.arm("b")
    command = bench.ask(a, b)
    for arm in (a, b):
        bench.run(command, arm, 48, 0, failed="out of memory")


def identical(bench):
    bench.cohort("ad", DISEASE)
    a, b = bench.arm("a", task=DISEASE), bench.arm("b", task=DISEASE)
    command = bench.ask(a, b, sizes=(24, 48))
    for size in (24, 48):
        for seed in range(3):
            for arm in (a, b):
                bench.run(command, arm, size, seed)


def one_class(bench):
    fingerprint = bench.cohort("ad", DISEASE)
    bench.truth[fingerprint][:] = 1
    with bench.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE bench_subjects SET truth = 1")
    bench.grid([bench.arm(name, task=DISEASE) for name in "ab"], sizes=(24, 48))


def constant_target(bench):
    fingerprint = bench.cohort()
    bench.truth[fingerprint][:] = 60.0
    with bench.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE bench_subjects SET truth = 60.0")
    bench.grid([bench.arm(name) for name in "ab"], sizes=(24, 48))


def constant_predictions(bench):
    bench.cohort("ad", DISEASE)
    a, b = bench.arm("a", task=DISEASE), bench.estimator("prior", task=DISEASE)
    command = bench.ask(a, b, sizes=(24, 96), fixed=("prior",))
    for size in (24, 96):
        for seed in range(3):
            bench.run(command, a, size, seed)
            bench.run(command, b, size, seed, values=np.full(40, 0.5))


def two_subjects(bench):
    bench.cohort("ad", DISEASE, n_test=2)
    bench.grid([bench.arm(name, task=DISEASE) for name in "ab"], sizes=(24, 48))


def three_classes(bench):
    bench.cohort("stages", STAGES, n_test=60)
    bench.grid([bench.arm(name, task=STAGES) for name in "ab"], errors=(1.0, 2.0))


def nasty_names(bench):
    bench.cohort('<b>"50 %" & $x_1$</b>', AGE)
    bench.grid([bench.arm("a$_{b}<i>%&#"), bench.arm("b\\x|`*[c](d)")], sizes=(24, 48))


def nothing(bench):
    bench.cohort()


SCENARIOS = (
    one_model,
    one_seed,
    two_seeds,
    unequal_seeds,
    no_shared_seed,
    diverged,
    everything_failed,
    identical,
    one_class,
    constant_target,
    constant_predictions,
    two_subjects,
    three_classes,
    nasty_names,
    nothing,
)


def built(bench, build):
    """Return the report, or the message that says why there is none."""
    store = Store.for_reading(bench.store.database)
    try:
        return build(store)
    except UserError as refused:
        sentence = str(refused)
        assert sentence[-1] in ".)'"
        assert "Traceback" not in sentence
        return None
    finally:
        store.close()


def words_of(report):
    cells = [c.text for each in report.tables for row in each.rows for c in row]
    return [every_word(report), *cells, *(t.title for t in report.tables)]


def check_words(report):
    for text in words_of(report):
        known = text.replace("loss is nan", "")
        assert not re.search(r"(?<![\w.])(nan|-?inf)(?![\w.])", known), text
        assert not re.search(r"\bp = 0\.?0*\b(?!\.?\d)", text), text
    for each in report.tables:
        for column, *cells in zip(each.columns, *each.rows, strict=True):
            if column.key in ("p", "p_holm", "p_bh", "p_paired_t", "p_sign_flip"):
                assert not {"0", "0.0", "0.00", "0.000"} & {c.text for c in cells}, each.name


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_every_page_of_every_store_is_a_report_or_a_sentence(bench, scenario):
    scenario(bench)
    names = [arm for (arm,) in _models(bench)]
    a, b = (names * 2)[:2] if names else ("a", "b")
    builds = [
        lambda store: build_report(store, metric="all", appendix=True),
        lambda store: build_report(store, reference=a),
        lambda store: build_comparison(store, a, b, {}),
        lambda store: build_planning(store, [a, b], {}, difference=0.5, wanted=0.8),
        lambda store: build_planning(store, [], {}, difference=0.5, wanted=0.8),
        *(lambda store, kind=kind: build_checklist(store, kind) for kind in CHECKLISTS),
    ]
    reports = [built(bench, build) for build in builds]
    for report in reports:
        if report is not None:
            check_words(report)
    # Only an empty database has no report.
    assert (reports[0] is None) == (scenario is nothing)
    if reports[0] is not None:
        for format_ in FORMATS:
            assert render(reports[0], format_)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_every_figure_of_every_store_is_drawn_or_refused_in_a_sentence(bench, scenario):
    scenario(bench)
    store = Store.for_reading(bench.store.database)
    drawn = 0
    for kind in KINDS:
        try:
            found = figure(store, kind, FigureRequest(), "svg")
        except UserError as refused:
            sentence = str(refused)
        else:
            assert found.data.startswith(b"<?xml")
            sentence, drawn = found.description, drawn + 1
        assert sentence.rstrip()[-1] in ".)'"
        assert not re.search(r"(?<![\w.])nan(?![\w.])", sentence)
    store.close()
    assert drawn or scenario in (nothing, everything_failed)


def _models(bench):
    with bench.store.engine.connect() as connection:
        return connection.exec_driver_sql("SELECT DISTINCT model FROM bench_arms").all()
