"""Figures: their numbers are the report's, their files are whole, nothing is cut."""

import io
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bench.report.build import build_report
from bench.report.evidence import load_evidence
from bench.report.plots import FORMATS, KINDS, Request, check, figure, pictures_for
from bench.report.plots.pareto import front
from bench.report.plots.source import open_source, spread_evenly
from bench.report.plots.style import MARKERS, look, styled
from bench.report.select import select_protocols
from bench.report.tables.leaderboard import best_first
from bench.stats.inference import holm
from bench.stats.metrics import metric
from bench.store.store import Store, TrialResult
from registry.errors import UserError
from tests.report.conftest import AGE, DISEASE, STAGES, cell, table

NASTY = "we$rd_x$ & <b> \\frac"


@pytest.fixture
def reading(bench):
    """Open the store as `bench plot` does, after everything is planted."""
    opened = []

    def read():
        opened.append(Store.for_reading(bench.store.file))
        return opened[-1]

    yield read
    for store in opened:
        store.close()


def gathered(store, name, **request):
    kind = KINDS[name]
    source = open_source(store, name, kind.tasks, Request(**request), several=kind.several)
    return kind.steps.gather(source)


def three(bench, task=AGE, **grid):
    fingerprint = bench.cohort(task=task)
    arms = [bench.arm(name, fingerprint, task=task) for name in ("good", "fair", "bad")]
    bench.grid(arms, **grid)
    return arms


def costs(bench, command, arm, seconds, parameters, size=48, error=5.0):
    """Run one seed and record what it took."""
    spec = bench.run(command, arm, size, 0, error=error)
    truth = bench.truth[arm.fingerprint]
    stored = bench.store.predictions([spec.key], "test")
    bench.store.add_trial(
        TrialResult(
            spec=spec,
            state="done",
            params=dict(arm.params),
            epochs=20,
            timings={"train": seconds, "parameters": parameters},
            environment={"host": "here", "threads": 1},
            metrics={("test", "mae"): (float(np.abs(_first(stored) - truth).mean()), "")},
            predictions={"test": stored[spec.key]},
        ),
        command,
        replace=True,
    )


def _first(stored):
    (found,) = stored.values()
    return found.values[:, 0]


# ------------------------------------------------------------------ data


def test_learning_curves_have_the_means_and_intervals_of_the_report(bench, reading):
    three(bench)
    store = reading()
    data = gathered(store, "learning-curves")
    board = table(build_report(store), "leaderboard-mae")
    assert [curve.label for curve in data.curves] == ["good", "fair", "bad"]
    for curve in data.curves:
        assert curve.sizes.tolist() == [24, 48, 96]
        for size, score in zip((24, 48, 96), curve.scores, strict=True):
            found = cell(board, curve.label, f"n{size}")
            told = (score.mean, score.low, score.high)
            assert told == tuple(found.values[key] for key in ("mean", "low", "high"))
            assert found.text.startswith(score.text)
            runs = curve.run_values[curve.run_sizes == size]
            assert runs.mean() == pytest.approx(score.mean, rel=1e-12)
            assert len(runs) == 3
    # Above half the pool of 96 seeds draw nearly the same subjects.
    assert data.conditional == 96
    assert data.size_labels == ("24", "48", "96 (all)")


def test_learning_curves_say_failed_runs_and_draw_the_others(bench, reading):
    bench.cohort()
    arm = bench.arm("good")
    command = bench.ask(arm, sizes=(24, 48))
    for size, seed in itertools.product((24, 48), range(3)):
        bench.run(command, arm, size, seed, failed="NaN" if seed == 1 and size == 24 else "")
    (curve,) = gathered(reading(), "learning-curves").curves
    assert curve.label == "good (1 of 6 runs failed)"
    assert len(curve.run_values) == 5


def test_the_forest_is_the_primary_family_of_the_report(bench, reading):
    three(bench)
    store = reading()
    data = gathered(store, "forest")
    pairs = table(build_report(store), "pairs-primary")
    assert list(data.labels) == [row[0].text for row in pairs.rows]
    keys = [column.key for column in pairs.columns]
    for i, row in enumerate(pairs.rows):
        by_key = dict(zip(keys, row, strict=True))
        assert data.improvement[i] == by_key["difference"].values["value"]
        assert data.low[i] == by_key["ci"].values["low"]
        assert data.high[i] == by_key["ci"].values["high"]
        assert data.p[i] == by_key["p_holm"].values["value"]
        assert data.texts[i] == f"{by_key['difference'].text} {by_key['ci'].text}"
    assert data.how == "Holm p"
    assert data.margin is None


def test_the_declared_metric_and_margin_are_those_of_the_forest(bench, reading):
    bench.cohort()
    arms = [bench.arm(name) for name in ("good", "bad")]
    command = bench.ask(*arms, declared={"metric": "rmse", "margin": 0.5})
    for arm, seed in itertools.product(arms, range(3)):
        bench.run(command, arm, 48, seed, error=4.0 + (arm is arms[1]))
    store = reading()
    data = gathered(store, "forest")
    assert "RMSE (years)" in data.axis
    assert (data.margin, data.how) == (0.5, "Holm p")
    # The margin is in units of the primary metric.
    assert gathered(store, "forest", metric="mae").margin is None
    with styled():
        (axes, _) = KINDS["forest"].steps.draw(data).axes
    (band,) = axes.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (-0.5, 0.5)


def test_a_family_declared_after_the_runs_is_exploratory(bench, reading):
    arms = three(bench)
    bench.ask(*arms, sizes=(24, 48, 96), declared={"metric": "rmse"})
    data = gathered(reading(), "forest")
    assert "RMSE" in data.axis
    assert data.how == "exploratory BH p"


def test_fewer_models_leave_the_p_values_of_the_whole_family(bench, reading):
    three(bench)
    store = reading()
    whole = gathered(store, "forest")
    part = gathered(store, "forest", models=("bad", "good"))
    assert part.labels == ("good vs bad",)
    assert part.p[0] == whole.p[whole.labels.index("good vs bad")]


def test_models_without_a_pair_in_the_family_are_compared_as_exploratory(bench, reading):
    bench.cohort()
    arms = [bench.arm(f"m{i}") for i in range(7)] + [bench.estimator("linear-voxels")]
    bench.grid(arms, sizes=(48,))
    store = reading()
    assert len(gathered(store, "forest").labels) == 7  # each against linear-voxels
    part = gathered(store, "forest", models=("m1", "m3"))
    assert part.labels == ("m1 vs m3",)
    assert part.how == "exploratory BH p"


def test_other_metrics_and_sizes_are_exploratory(bench, reading):
    three(bench)
    store = reading()
    assert gathered(store, "forest", metric="rmse").how == "exploratory BH p"
    assert gathered(store, "forest", size=24).how == "exploratory BH p"
    assert gathered(store, "heatmap").how == "Holm p"


def test_the_heat_map_has_every_pair_once_in_either_triangle(bench, reading):
    three(bench)
    store = reading()
    data, pairs = gathered(store, "heatmap"), gathered(store, "forest")
    below, above = np.tril_indices(3, -1), np.triu_indices(3, 1)
    assert np.isnan(data.effect[above]).all()
    assert np.isnan(data.p[below]).all()
    assert np.isnan(np.diag(data.p)).all()
    for label, improvement, p in zip(pairs.labels, pairs.improvement, pairs.p, strict=True):
        a, b = (data.labels.index(name) for name in label.split(" vs "))
        assert data.effect[b, a] == improvement
        assert data.p[a, b] == p
    assert data.p[above].tolist() == pytest.approx(holm([x.p for x in raw_pairs(store)]).tolist())


def raw_pairs(store):
    source = open_source(store, "heatmap", ("regression",), Request())
    return [pair.found for pair in source.all_pairs().pairs]


def test_the_heat_map_turns_signs_when_models_are_named_in_another_order(bench, reading):
    three(bench)
    store = reading()
    one = gathered(store, "heatmap", models=("good", "bad"))
    two = gathered(store, "heatmap", models=("bad", "good"))
    assert one.effect[1, 0] == -two.effect[1, 0]
    assert one.p[0, 1] == two.p[0, 1]


def test_predicted_against_true_is_the_mean_and_range_over_seeds(bench, reading):
    arms = three(bench, sizes=(48,))
    data = gathered(reading(), "predicted-true")
    truth = bench.truth["0" * 16]
    stack = np.stack([bench.predict(AGE, truth, 4.0 * 1.25, seed) for seed in range(3)])
    panel = data.panels[0]
    assert panel.label == arms[0].model.name
    np.testing.assert_allclose(data.truth, truth)
    np.testing.assert_allclose(panel.mean, stack.mean(axis=0))
    np.testing.assert_allclose(panel.low, stack.min(axis=0))
    np.testing.assert_allclose(panel.high, stack.max(axis=0))
    assert panel.score.startswith(f"MAE {np.abs(stack - truth).mean():.2f} [")


def test_roc_and_calibration_have_the_scores_of_the_report(bench, reading):
    three(bench, DISEASE, sizes=(48,))
    store = reading()
    report = table(build_report(store, metric="all"), "leaderboard-auc")
    for curve in gathered(store, "roc").curves:
        text = cell(report, curve.label, "n48").text
        assert text.startswith(curve.auc.removeprefix("AUC "))
        # The mean of the curves has the mean of the areas, but for the grid's steps.
        area = float(np.trapezoid(curve.curve.tpr, curve.curve.fpr))
        assert area == pytest.approx(cell(report, curve.label, "n48").values["mean"], abs=0.02)
    report = table(build_report(store, metric="all"), "leaderboard-brier")
    for panel in gathered(store, "calibration").panels:
        text = cell(report, panel.label, "n48").text
        assert text.startswith(panel.brier.removeprefix("Brier "))
        assert panel.mean.counts.sum() == 40
        assert len(panel.runs) == 3
        assert len(panel.mean.counts) == 15


def test_one_fit_is_one_curve_without_an_interval(bench, reading):
    bench.cohort(task=DISEASE, n_pool=48)
    arm = bench.estimator("prior", task=DISEASE)
    command = bench.ask(arm, fixed=("prior",), sizes=(48,))
    for seed in range(3):
        bench.run(command, arm, 48, seed, values=np.full(40, 0.5))
    store = reading()
    (curve,) = gathered(store, "roc").curves
    assert curve.auc == "AUC 0.500 [n/a]"
    assert np.isnan(curve.curve.low).all()
    assert len(gathered(store, "calibration").panels[0].runs) == 1


def test_subjects_are_losses_averaged_over_seeds(bench, reading):
    three(bench, sizes=(48,))
    store = reading()
    data = gathered(store, "subjects")
    truth = bench.truth["0" * 16]
    for loss, error in ((data.loss_a, 4.0), (data.loss_b, 5.0)):
        runs = [np.abs(bench.predict(AGE, truth, error * 1.25, s) - truth) for s in range(3)]
        np.testing.assert_allclose(loss, np.mean(runs, axis=0))
    assert (data.a, data.b) == ("good", "fair")
    assert data.better == np.mean(data.loss_a < data.loss_b)
    other = gathered(store, "subjects", models=("fair", "good"))
    assert (other.a, other.b) == ("fair", "good")
    assert other.better == pytest.approx(1 - data.better)


def test_subjects_of_classes_are_told_apart(bench, reading):
    three(bench, STAGES, sizes=(48,))
    data = gathered(reading(), "subjects")
    assert data.groups == ("CN", "MCI", "AD")
    assert np.bincount(data.group).tolist() == [14, 13, 13]


def test_a_page_draws_fewer_subjects_and_says_so(bench, reading):
    bench.cohort(n_test=2000)
    arms = [bench.arm(name) for name in ("good", "fair")]
    bench.grid(arms, sizes=(48,))
    store = reading()
    source = open_source(store, "predicted-true", ("regression",), Request())
    few = KINDS["predicted-true"].steps.gather(replace(source, most=300))
    all_ = KINDS["predicted-true"].steps.gather(source)
    assert len(few.truth) == 150
    assert len(all_.truth) == 2000
    assert [p.score for p in few.panels] == [p.score for p in all_.panels]
    assert "150 of 2000 subjects drawn" in KINDS["predicted-true"].steps.words(few)
    assert "drawn" not in KINDS["predicted-true"].steps.words(all_)


def test_spread_evenly_keeps_both_ends_and_no_subject_twice():
    values = np.random.default_rng(0).normal(size=501)
    for most in (2, 7, 100, 500):
        chosen = spread_evenly(values, most)
        assert len(chosen) == len(set(chosen.tolist())) <= most
        assert values[chosen].min() == values.min()
        assert values[chosen].max() == values.max()
    assert spread_evenly(values, None).tolist() == list(range(501))


def test_the_front_has_what_no_other_beats_in_both():
    rng = np.random.default_rng(3)
    for _ in range(50):
        cost, gain = rng.integers(1, 6, 12).astype(float), rng.integers(0, 6, 12).astype(float)
        cost[rng.integers(12)] = np.nan
        expected = [
            not np.isnan(cost[i])
            and not any(
                cost[j] <= cost[i]
                and gain[j] >= gain[i]
                and (cost[j], gain[j]) != (cost[i], gain[i])
                for j in range(12)
            )
            for i in range(12)
        ]
        assert front(cost, gain).tolist() == expected


def test_pareto_takes_the_costs_of_the_report(bench, reading):
    bench.cohort()
    cheap, dear, poor = (bench.arm(name) for name in ("cheap", "dear", "poor"))
    command = bench.ask(cheap, dear, poor, seeds=(0,))
    costs(bench, command, cheap, 10.0, 0, error=5)
    costs(bench, command, dear, 100.0, 2_000_000, error=3)
    costs(bench, command, poor, 200.0, 4_000_000, error=8)
    data = gathered(reading(), "pareto")
    assert data.labels == ("dear", "cheap", "poor")
    time, parameters = data.costs
    assert time.label == "training time (s)"
    assert time.values.tolist() == [100, 10, 200]
    assert time.front.tolist() == [True, True, False]
    # No parameters have no place on a logarithmic axis.
    assert parameters.values.tolist()[::2] == [2, 4]
    assert np.isnan(parameters.values[1])
    assert parameters.front.tolist() == [True, False, False]


def seven_cohorts(bench, names=("a", "b", "c")):
    for k in range(7):
        fingerprint = bench.cohort(name=f"cohort-{k}")
        arms = [bench.arm(name, fingerprint) for name in names]
        bench.grid(arms, sizes=(48,), seeds=range(2), errors=[3, 4 + (k == 0), 6])


def test_ranks_are_of_the_means_at_each_cohorts_primary_size(bench, reading):
    seven_cohorts(bench)
    extra = bench.arm("only-here", "0" * 16)
    bench.run(bench.ask(extra, sizes=(48,)), extra, 48, 0)
    data = gathered(reading(), "critical-difference")
    assert data.table.arms == ("a", "b", "c")
    assert data.table.mean_ranks.tolist() == [1, 2, 3]
    assert len(data.table.cohorts) == 7
    assert data.left_out == ("only-here",)
    # By hand: 12 n / (k (k + 1)) (1 + 4 + 9 - k (k + 1)^2 / 4) with n = 7 and k = 3.
    assert data.table.statistic == pytest.approx(14)


def test_a_newer_version_of_a_cohort_is_not_another_cohort(bench, reading):
    for _ in range(6):
        fingerprint = bench.cohort(name="same")
        bench.grid([bench.arm(n, fingerprint) for n in ("a", "b")], sizes=(48,), seeds=(0,))
    with pytest.raises(UserError, match=r"5 cohorts or more .* has 1 \(same\)"):
        gathered(reading(), "critical-difference")


# ------------------------------------------------------------------ files


def everything(bench):
    """Plant a store of each task with names that are trouble; return kind to request."""
    fingerprint = bench.cohort(name="ages", n_test=60)
    names = ("good", NASTY, "_hidden", "a-model-with-a-very-long-name-" * 3)
    bench.grid([bench.arm(name, fingerprint) for name in names], sizes=(24, 48, 96))
    fingerprint = bench.cohort(name="classes", task=DISEASE, classes=["C$N", "A_D$"])
    arms = [bench.arm(name, fingerprint, task=DISEASE) for name in names]
    bench.grid(arms, sizes=(24, 48), errors=[2, 3, 4, 5])
    for k in range(5):
        fingerprint = bench.cohort(name=f"cohort-{k}", n_test=30)
        arms = [bench.arm(name, fingerprint) for name in names]
        bench.grid(arms, sizes=(24, 48, 96), seeds=(0, 1))
    command = bench.ask(arms[0], sizes=(96,))
    costs(bench, command, arms[0], 3.0, 1_000_000, size=96)
    costs(bench, command, arms[1], 9.0, 5_000_000, size=96)
    requests = {name: {"dataset": "ages"} for name in KINDS}
    requests |= {name: {"dataset": "classes"} for name in ("roc", "calibration")}
    return requests | {"pareto": {"dataset": "cohort-4"}}


def font_kinds(pdf):
    """Return the subtypes of the fonts in a PDF, of its compressed objects too."""
    parts = [pdf]
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.S):
        try:
            parts.append(zlib.decompress(found[1]))
        except zlib.error:
            continue
    whole = b"".join(parts)
    return set(re.findall(rb"/Subtype\s*/(Type\w+|TrueType|CIDFontType\w+)", whole)), whole


def test_every_kind_is_a_whole_file_with_its_fonts_and_the_same_bytes_again(bench, reading):
    requests = everything(bench)
    store = reading()
    assert set(requests) == set(KINDS)
    for name, where in requests.items():
        made = {f: figure(store, name, Request(where=where), f) for f in FORMATS}
        pdf = made["pdf"].data
        assert pdf.startswith(b"%PDF-")
        assert pdf.rstrip().endswith(b"%%EOF")
        kinds, whole = font_kinds(pdf)
        assert kinds
        assert b"Type3" not in kinds, name
        assert b"/FontFile2" in whole
        root = ET.fromstring(made["svg"].data)
        assert root.tag.endswith("svg")
        # Glyphs are shapes: no machine needs the font; and nothing is pixels.
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"text", "image", "script"}, name
        with Image.open(io.BytesIO(made["png"].data)) as image:
            assert image.format == "PNG"
            assert image.width in (875, 1750)
        assert len({each.words for each in made.values()}) == 1
        for format_, drawn in made.items():
            assert figure(store, name, Request(where=where), format_).data == drawn.data, name
        assert b"CreationDate" not in pdf
        assert "nan" not in made["pdf"].words


@pytest.fixture
def texts_of(monkeypatch):
    """Draw a figure and return every text that was put on it with its box."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    drawn_texts = []
    plain_draw = Text.draw

    def draw(self, renderer, *args, **options):
        drawn_texts.append(self)
        return plain_draw(self, renderer, *args, **options)

    monkeypatch.setattr(Text, "draw", draw)

    def texts(drawn):
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        drawn_texts.clear()
        canvas.draw()
        seen = {id(text): text for text in drawn_texts if text.get_visible()}.values()
        renderer = canvas.get_renderer()
        return [(t, t.get_window_extent(renderer)) for t in seen if t.get_text().strip()]

    return texts


def test_no_word_is_cut_or_lies_on_another_and_names_stand_as_they_are(bench, reading, texts_of):
    requests = everything(bench)
    store = reading()
    for name, where in requests.items():
        data = gathered(store, name, where=where)
        with styled():
            drawn = KINDS[name].steps.draw(data)
            found = texts_of(drawn)
        width, height = drawn.get_size_inches() * drawn.dpi
        for text, box in found:
            assert box.x0 >= -1, (name, text.get_text())
            assert box.y0 >= -1, (name, text.get_text())
            assert box.x1 <= width + 1, (name, text.get_text())
            assert box.y1 <= height + 1, (name, text.get_text())
        level = [(t.get_text(), box) for t, box in found if not t.get_rotation() % 90]
        for (one, a), (two, b) in itertools.combinations(level, 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            along = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 1.5 or along < 1.5, (name, one, two)
        whole = "".join("".join(text.get_text().split()) for text, _ in found)
        if name != "subjects":
            assert "".join(NASTY.split()) in whole, name
            assert "a-model-with-a-very-long-name-" * 3 in whole, name


def test_twenty_models_have_twenty_looks_that_differ_in_grey():
    looks = [look(i) for i in range(20)]
    assert len(set(looks)) == 20
    assert len({(each.marker, str(each.dash)) for each in looks[: len(MARKERS)]}) == len(MARKERS)
    for i in range(19):
        one, two = looks[i], looks[i + 1]
        assert one.marker != two.marker
        assert one.colour != two.colour
        assert str(one.dash) != str(two.dash)


def test_the_readers_own_settings_of_matplotlib_change_nothing(bench, reading):
    import matplotlib

    three(bench)
    store = reading()
    plain = figure(store, "learning-curves", Request(), "svg").data
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "none", "lines.linewidth": 9}):
        assert figure(store, "learning-curves", Request(), "svg").data == plain
        assert matplotlib.rcParams["font.size"] == 30


# ------------------------------------------------------------------ pictures of a page


def pictures(store, **where):
    (protocol,) = select_protocols(store, where).protocols
    evidence = load_evidence(store, protocol)
    rows = best_first(protocol, evidence, metric(protocol.primary_metric))
    return pictures_for(store, protocol, evidence, rows)


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


def test_the_reference_that_a_reader_asked_for_is_that_of_the_page(bench, reading):
    three(bench, sizes=(48,))
    store = reading()
    (protocol,) = select_protocols(store, {}).protocols
    evidence = load_evidence(store, protocol)
    rows = best_first(protocol, evidence, metric("mae"))
    words = pictures_for(store, protocol, evidence, rows, "bad")[0].alternative
    assert "good vs bad" in words
    assert "fair vs bad" in words
    assert "good vs fair" not in words
    assert "exploratory BH p" in words


def test_one_size_and_one_model_leave_out_what_they_cannot_show(bench, reading):
    bench.cohort()
    bench.grid([bench.arm("alone")], sizes=(48,))
    titles = [picture.title.partition(",")[0] for picture in pictures(reading())]
    assert titles == ["Predicted against true"]


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


# ------------------------------------------------------------------ what cannot be drawn


@pytest.mark.parametrize(
    ("name", "request_", "words"),
    [
        ("forest", {"metric": "mea"}, "--metric mea: .* did you mean 'mae'"),
        ("forest", {"size": 30}, "--size 30: .* it is one of 24, 48, 96"),
        ("forest", {"models": ("goood",)}, "--models goood: .* did you mean 'good'"),
        ("forest", {"where": {"dataset": "x"}}, "Nothing in this database has --where dataset=x"),
        ("roc", {}, "A figure of roc is for binary results, these are regression"),
        ("roc", {"metric": "auc"}, "--metric does not change a figure of roc"),
        ("pareto", {"size": 24}, "--size does not change a figure of pareto"),
        ("subjects", {"models": ("good",)}, "needs 2 models with a finished run at n=48"),
        ("subjects", {"models": ("good", "fair", "bad")}, "shows two models, and these are 3"),
        ("critical-difference", {}, r"5 cohorts or more .* has 1 \(cohort\)"),
        ("pareto", {}, "has recorded what it cost"),
        ("heatmap", {"models": ("good",)}, "needs 2 models .* there is 1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(bench, reading, name, request_, words):
    three(bench)
    with pytest.raises(UserError, match=words) as found:
        figure(reading(), name, Request(**request_))
    assert len(str(found.value).splitlines()) == 1


def test_two_protocols_of_one_command_must_be_chosen_from(bench, reading):
    arms = [bench.arm("m", bench.cohort(name=name)) for name in ("one", "two")]
    command = bench.ask(*arms)
    for arm, seed in itertools.product(arms, range(3)):
        bench.run(command, arm, 48, seed)
    store = reading()
    with pytest.raises(UserError, match="--where dataset=one or --where dataset=two"):
        figure(store, "learning-curves", Request())
    assert figure(store, "learning-curves", Request(where={"dataset": "two"})).data


def test_one_seed_and_undefined_scores_are_drawn_without_what_is_not_known(bench, reading):
    bench.cohort()
    arms = [bench.arm(name) for name in ("a", "b")]
    command = bench.ask(*arms, sizes=(24, 48), seeds=(0,))
    for arm, size in itertools.product(arms, (24, 48)):
        bench.run(command, arm, size, 0, values=np.full(40, 60.0 + (arm is arms[1])))
    store = reading()
    for name in ("learning-curves", "forest", "heatmap", "predicted-true", "subjects"):
        for metric_ in ("mae", "r") if "metric" in KINDS[name].takes else (None,):
            drawn = figure(store, name, Request(metric=metric_))
            assert drawn.data.startswith(b"%PDF-")
            assert "nan" not in drawn.words
    assert np.isnan(gathered(store, "forest").p).all()
    assert gathered(store, "learning-curves", metric="r").curves[0].scores == ()


def test_kinds_and_formats_are_checked_before_anything_is_read():
    with pytest.raises(UserError, match="did you mean 'forest'"):
        check("forrest", "pdf")
    with pytest.raises(UserError, match="pdf, svg, png, not as 'jpg'"):
        check("forest", "jpg")


# ------------------------------------------------------------------ the command


def plot(bench, tmp_path, *words):
    return subprocess.run(
        [sys.executable, "-m", "bench", "plot", *words, "--db", str(bench.store.file)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )


def test_the_command_writes_a_file_and_says_the_numbers(bench, tmp_path):
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
        (["forest", "--out", "nowhere/x.pdf"], "The folder nowhere does not exist"),
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
