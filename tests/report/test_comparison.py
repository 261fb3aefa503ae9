"""The page that compares two models: its sentence and the supporting tables."""

import numpy as np
import pytest

from bench.report.build import build_report
from bench.report.comparison import build_comparison
from bench.stats.power import gain_from_seeds
from bench.store.store import Store
from registry.errors import UserError
from tests.report.conftest import DISEASE, cells, table


def page(bench, a, b, where=None):
    store = Store.for_reading(bench.store.database)
    try:
        return build_comparison(store, a, b, where or {})
    finally:
        store.close()


def whole(bench, **options):
    store = Store.for_reading(bench.store.database)
    try:
        return build_report(store, **options)
    finally:
        store.close()


def said(report):
    (section,) = report.sections
    return section.caption[0]


def planted(bench, errors, **rest):
    bench.cohort(n_test=120)
    arms = [bench.arm(name) for name in ("good", "fair", "bad")[: len(errors)]]
    bench.grid(arms, seeds=range(5), errors=errors, **rest)
    return arms


def test_a_planted_difference_is_reported_with_its_size_interval_and_adjusted_p(bench):
    planted(bench, (4.0, 4.4, 8.0))
    pairs = table(whole(bench), "pairs-primary")
    row = [c.text for c in cells(pairs, "pair")].index("good vs bad")
    difference, p = (cells(pairs, key)[row].text for key in ("difference", "p_holm"))
    low, high = (cells(pairs, "ci")[row].values[key] for key in ("low", "high"))
    words = said(page(bench, "good", "bad"))
    assert words.startswith(f"good outperforms bad at n=48 by {difference} years MAE (95 % CI ")
    assert f"{low:.2f} to {high:.2f}" in words
    assert f"Holm p {p}" in words or f"Holm p = {p}" in words
    assert "over 3 pairs; 5 seeds x 120 subjects; more seeds could narrow" in words


def test_the_winner_comes_first_whichever_was_named_first(bench):
    planted(bench, (4.0, 4.4, 8.0))
    one, other = said(page(bench, "good", "bad")), said(page(bench, "bad", "good"))
    assert one == other


def test_without_significance_there_is_no_winner(bench):
    planted(bench, (4.0, 4.0))
    words = said(page(bench, "good", "fair"))
    assert "outperforms" not in words
    assert "better" not in words


def test_outside_of_the_family_no_model_outperforms_another(bench):
    planted(bench, (4.0, 4.4, 8.0), declared={"reference": "fair"})
    words = said(page(bench, "good", "bad"))
    assert words.startswith("good is nominally better than bad")
    assert "exploratory" in words
    assert "pairs-primary" not in [each.name for each in page(bench, "good", "bad").tables]


def test_the_primary_p_is_holms_over_the_whole_family(bench):
    planted(bench, (4.0, 4.1, 4.2))
    report = whole(bench)
    rows = {
        c.text: p.values["value"]
        for c, p in zip(
            cells(table(report, "pairs-primary"), "pair"),
            cells(table(report, "pairs-primary"), "p_holm"),
            strict=True,
        )
    }
    found = table(page(bench, "good", "bad"), "pairs-primary")
    (name,) = [name for name in rows if {"good", "bad"} == set(name.split(" vs "))]
    assert cells(found, "p_holm")[0].values["value"] == pytest.approx(rows[name], rel=1e-12)


def test_one_seed_does_not_support_a_claim(bench):
    bench.cohort()
    arms = [bench.arm("a"), bench.arm("b")]
    bench.grid(arms, seeds=[0])
    words = said(page(bench, "a", "b"))
    assert words.startswith("Nothing can be concluded about a and b")
    assert "one seed" in words


def test_a_model_without_a_result_does_not_support_a_claim(bench):
    bench.cohort()
    a, b = bench.arm("a"), bench.arm("b")
    command = bench.ask(a, b)
    for seed in range(3):
        bench.run(command, a, 48, seed)
        bench.run(command, b, 48, seed, failed="diverged")
    found = page(bench, "a", "b")
    assert "B: no finished run" in said(found)


def test_seed_by_seed_shows_values_and_a_test_of_two_checkpoints(bench):
    arms = planted(bench, (4.0, 8.0))
    found = table(page(bench, "good", "fair"), "seeds")
    assert [c.values["value"] for c in cells(found, "seed")] == [0, 1, 2, 3, 4]
    truth = bench.truth[arms[0].fingerprint]
    scale = 1 + 12 / 48
    errors = [
        np.abs(bench.predict(arms[0].task, truth, spread * scale, 2) - truth).mean()
        for spread in (4.0, 8.0)
    ]
    assert cells(found, "a")[2].values["value"] == pytest.approx(errors[0])
    assert cells(found, "difference")[2].values["value"] == pytest.approx(errors[1] - errors[0])
    assert all(0 < c.values["value"] < 1 for c in cells(found, "p"))


def test_two_classes_have_delongs_test_and_subgroups(bench):
    bench.cohort("ad", DISEASE, n_test=60)
    with bench.store.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE bench_subjects SET sex = CASE WHEN subject % 3 = 0 THEN 'F' ELSE 'M' END"
        )
    arms = [bench.arm(name, task=DISEASE) for name in ("good", "bad")]
    bench.grid(arms, errors=(2.0, 6.0))
    found = page(bench, "good", "bad")
    assert "DeLong" in table(found, "seeds").columns[-1].title
    levels = [c.text for c in cells(table(found, "interactions"), "levels")]
    assert levels == ["sex F against M"]
    assert [c.title for c in table(whole(bench, appendix=True), "subgroups").columns[1:]] == [
        "sex F (20)",
        "sex M (40)",
    ]


def test_the_gain_from_more_seeds_is_that_of_the_comparison(bench):
    from bench.report.evidence import load_evidence
    from bench.report.pairs import make_pairs
    from bench.report.select import select_protocols
    from bench.stats.metrics import metric_of

    planted(bench, (4.0, 8.0))
    store = Store.for_reading(bench.store.database)
    (protocol,) = select_protocols(store, {}).protocols
    evidence = load_evidence(store, protocol)
    (pair,) = make_pairs(protocol, evidence, protocol.rows, metric_of("mae"), 48, None)
    store.close()
    words = said(page(bench, "good", "fair"))
    assert f"by at most {100 * gain_from_seeds(pair.found):.0f} %" in words


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("good", "good"), "are the same row"),
        (("good", "badd"), "did you mean 'bad'"),
        (("", "bad"), "was not run"),
    ],
)
def test_wrong_names_are_refused(bench, names, words):
    planted(bench, (4.0, 4.4, 8.0))
    with pytest.raises(UserError, match=words):
        page(bench, *names)
