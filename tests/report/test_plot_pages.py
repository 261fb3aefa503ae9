"""The figures of a page, and requests that cannot be drawn."""

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bench.report.build import build_report
from bench.report.data import section_data
from bench.report.plots import KINDS, FigureRequest, check_figure, figure, pictures_for
from bench.report.select import select_protocols
from bench.stats.metrics import metric_of
from registry.errors import UserError
from tests.report.conftest import DISEASE, cell, table
from tests.report.figures import gathered, three


def pictures(store, **where):
    (protocol,) = select_protocols(store, where).protocols
    return pictures_for(data_of(store, protocol))


def data_of(store, protocol, reference=None):
    return section_data(store, protocol, [metric_of(protocol.primary_metric)], reference, None)


def test_a_page_has_the_figures_of_its_task_with_the_numbers_in_words(bench, reading):
    three(bench, DISEASE, sizes=(24, 48))
    store = reading()
    found = pictures(store)
    titles = [picture.title.partition(",")[0] for picture in found]
    assert titles == ["Learning curves", "Differences", "ROC curves", "Calibration"]
    report = build_report(store)
    mean = cell(table(report, "leaderboard-auc"), "good", "n48").text.rpartition(" n=")[0]
    assert mean in found[0].alternative
    assert f"good: AUC {mean}" in found[2].alternative
    pair = table(report, "pairs-primary").rows[0]
    assert f"{pair[0].text} {pair[1].text} {pair[2].text}" in found[1].alternative
    for picture in found:
        assert picture.media == "image/svg+xml"
        ET.fromstring(picture.data)


def test_a_requested_reference_is_used_on_the_page(bench, reading):
    three(bench, sizes=(48,))
    store = reading()
    (protocol,) = select_protocols(store, {}).protocols
    words = pictures_for(data_of(store, protocol, "bad"))[0].alternative
    assert "good vs bad" in words
    assert "fair vs bad" in words
    assert "good vs fair" not in words
    assert "exploratory BH p" in words


def test_figures_that_need_several_sizes_or_models_are_omitted(bench, reading):
    bench.cohort()
    bench.grid([bench.arm("alone")], sizes=(48,))
    titles = [picture.title.partition(",")[0] for picture in pictures(reading())]
    assert titles == ["Predicted against true"]


@pytest.mark.slow
def test_the_pictures_of_a_page_stay_small(bench, reading):
    fingerprint = bench.cohort(name="a", n_test=2000, n_pool=400)
    arms = [bench.arm(f"a-model-{i}", fingerprint) for i in range(20)]
    bench.grid(arms, sizes=(24, 48, 96), seeds=range(5))
    fingerprint = bench.cohort(name="b", task=DISEASE, n_test=300)
    arms = [bench.arm(f"a-model-{i}", fingerprint, task=DISEASE) for i in range(20)]
    bench.grid(arms, sizes=(24, 48), seeds=range(5))
    store = reading()
    for cohort in ("a", "b"):
        for picture in pictures(store, dataset=cohort):
            assert len(picture.data) < 150_000, picture.title
            assert len(picture.alternative) < 4000


def test_reports_do_not_import_matplotlib():
    code = (
        "import sys, bench.report.build, bench.report.plots\n"
        "print([n for n in ('matplotlib', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "request_", "words"),
    [
        ("forest", {"metric": "mea"}, "--metric mea .* did you mean 'mae'"),
        ("forest", {"size": 30}, "--size 30: .* choose one of 24, 48, 96"),
        ("forest", {"models": ("goood",)}, "--models goood: .* did you mean 'good'"),
        ("forest", {"where": {"dataset": "x"}}, "match --where dataset=x; available"),
        ("roc", {}, "roc shows binary results, but these are regression"),
        ("roc", {"metric": "auc"}, "--metric does not apply to the figure roc"),
        ("pareto", {"size": 24}, "--size does not apply to the figure pareto"),
        ("subjects", {"models": ("good",)}, "needs at least 2 models with a finished run at n=48"),
        (
            "subjects",
            {"models": ("good", "fair", "bad")},
            "shows two models, but --models selects 3",
        ),
        ("critical-difference", {}, r"at least 5 cohorts .* has 1 \(cohort\)"),
        ("pareto", {}, "no record of cost; choose another figure"),
        ("heatmap", {"models": ("good",)}, "needs at least 2 models .* there is only 1"),
    ],
)
def test_wrong_requests_are_refused_in_one_sentence(bench, reading, name, request_, words):
    three(bench)
    with pytest.raises(UserError, match=words) as found:
        figure(reading(), name, FigureRequest(**request_))
    assert len(str(found.value).splitlines()) == 1


def test_two_protocols_of_one_command_must_be_chosen_from(bench, reading):
    arms = [bench.arm("m", bench.cohort(name=name)) for name in ("one", "two")]
    command = bench.ask(*arms)
    for arm, seed in itertools.product(arms, range(3)):
        bench.run(command, arm, 48, seed)
    store = reading()
    with pytest.raises(UserError, match="--where dataset=one or --where dataset=two"):
        figure(store, "learning-curves", FigureRequest())
    assert figure(store, "learning-curves", FigureRequest(where={"dataset": "two"})).data


def test_one_seed_and_undefined_scores_are_drawn_without_intervals(bench, reading):
    bench.cohort()
    arms = [bench.arm(name) for name in ("a", "b")]
    command = bench.ask(*arms, sizes=(24, 48), seeds=(0,))
    for arm, size in itertools.product(arms, (24, 48)):
        bench.run(command, arm, size, 0, values=np.full(40, 60.0 + (arm is arms[1])))
    store = reading()
    for name in ("learning-curves", "forest", "heatmap", "predicted-true", "subjects"):
        for metric_ in ("mae", "r") if "metric" in KINDS[name].options else (None,):
            drawn = figure(store, name, FigureRequest(metric=metric_))
            assert drawn.data.startswith(b"%PDF-")
            assert "nan" not in drawn.description
    assert np.isnan(gathered(store, "forest").p).all()
    assert gathered(store, "learning-curves", metric="r").curves[0].scores == ()


def test_kinds_and_formats_are_checked_before_anything_is_read():
    with pytest.raises(UserError, match="did you mean 'forest'"):
        check_figure("forrest", "pdf")
    with pytest.raises(UserError, match=r"'jpg'.* choose one of pdf, svg, png"):
        check_figure("forest", "jpg")


def plot(bench, tmp_path, *words):
    return subprocess.run(
        [sys.executable, "-m", "bench", "plot", *words, "--db", str(bench.store.database)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )


@pytest.mark.slow
def test_the_command_writes_a_file_and_prints_the_numbers(bench, tmp_path):
    three(bench)
    done = plot(bench, tmp_path, "forest")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "forest.pdf").read_bytes().startswith(b"%PDF-")
    assert "good vs fair" in done.stdout
    assert done.stdout.endswith("Written to forest.pdf.\n")
    done = plot(bench, tmp_path, "subjects", "--models", "bad,good", "--out", "two.SVG")
    assert done.returncode == 0, done.stderr
    ET.fromstring((tmp_path / "two.SVG").read_bytes())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["forrest"], "did you mean 'forest'"),
        (["forest", "--out", "x.pngg"], "did you mean 'png'"),
        (["forest", "--out", "nowhere/x.pdf"], "nowhere does not exist; create it"),
        (["forest", "--out", "x"], "pdf, svg, png"),
    ],
)
def test_a_wrong_command_is_one_sentence(bench, tmp_path, words, part):
    three(bench, sizes=(48,))
    done = plot(bench, tmp_path, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("x*"))
