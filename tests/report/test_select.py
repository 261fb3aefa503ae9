from dataclasses import replace

import pytest

from bench.report.build import build_report
from bench.report.select import label_rows, select_protocols
from bench.spec import Component
from registry.errors import UserError
from tests.report.conftest import DISEASE, every_word, table

RESNET, LITE = Component("resnet18", 1), Component("efficientnet-lite0", 1)


def labels(*arms):
    return [row.label for row in label_rows([(arm, False) for arm in arms])]


def params(bench, **changes):
    return {**bench.arm("any").params, **changes}


def rows(report, section=0):
    return [row[0].text for row in report.sections[section].tables[0].rows]


# ------------------------------------------------------------------ labels


def test_a_label_is_the_model_if_nothing_else_differs(bench):
    one, two = bench.arm("a", encoder=LITE), bench.arm("b", encoder=LITE)
    assert labels(one, two, bench.arm("c")) == ["a", "b", "c"]


def test_the_encoder_is_named_where_encoders_differ(bench):
    arms = [bench.arm("a", encoder=LITE), bench.arm("a", encoder=RESNET), bench.arm("c")]
    assert labels(*arms) == ["a [efficientnet-lite0]", "a [resnet18]", "c"]


def test_a_setting_is_named_only_where_two_arms_of_a_model_differ_in_it(bench):
    one = bench.arm("a", params=params(bench, pool="mean", norm=True))
    two = bench.arm("a", params=params(bench, pool="max", norm=True))
    other = bench.arm("b", params=params(bench, pool="attention", norm=False))
    assert labels(one, two, other) == ["a pool=mean", "a pool=max", "b"]


def test_edited_plugins_and_other_weights_have_separate_rows(bench):
    one = bench.arm("a")
    two = replace(one, model=Component("a", 1, plugin="0123456789"))
    assert labels(one, two) == ["a plugin=none", "a plugin=012345"]
    one = bench.arm("a", encoder=Component("e", 1, weights="aaaaaaaaaa"))
    two = bench.arm("a", encoder=Component("e", 1, weights="bbbbbbbbbb"))
    assert labels(one, two) == ["a encoder-weights=aaaaaa", "a encoder-weights=bbbbbb"]


def test_tuned_arms_and_arms_with_fixed_settings_have_different_labels(bench):
    one = bench.arm("a", space={"lr": {}, "dropout": {}}, trials=5, tune="shared")
    two = bench.arm("a", space={"dropout": {}}, trials=5, tune="shared")
    # The lr of 1e-4 in the tuned arm is the card's default, with which it was not run.
    assert labels(one, two) == ["a lr=tuned", "a lr=0.0001"]
    params = {**one.params, "lr": 1e-3}
    assert labels(replace(one, params=params), two) == ["a lr=tuned", "a lr=0.0001"]


def test_arms_that_differ_in_no_field_still_have_different_labels(bench):
    one = bench.arm("a", space={"lr": {"low": 0.1}}, trials=5, tune="shared")
    two = bench.arm("a", space={"lr": {"low": 0.2}}, trials=5, tune="shared")
    first, second = labels(one, two)
    assert first == f"a #{one.key[:6]}"
    assert second == f"a #{two.key[:6]}"


def test_control_characters_of_a_name_never_reach_a_table(bench):
    assert labels(bench.arm("evil\x1b[31m\nname")) == ["evil [31m name"]


# ------------------------------------------------------------------ protocols


def test_two_protocols_never_share_a_table_and_the_other_is_named(bench):
    bench.cohort()
    short = bench.arm("net", params=params(bench, epochs=2))
    long = bench.arm("net", params=params(bench, epochs=50))
    bench.grid([short, bench.arm("other", params=params(bench, epochs=2))], sizes=(48,))
    bench.grid([long], sizes=(48,))
    report = build_report(bench.store)
    assert len(report.sections) == 1
    assert rows(report) == ["net"]
    assert "Networks were trained for 50 epochs." in every_word(report)
    assert report.notes == (
        "Not shown, because it is not comparable with these results: bench report --where epochs=2",
    )
    report = build_report(bench.store, where={"epochs": "2"})
    assert sorted(rows(report)) == ["net", "other"]
    assert "--where epochs=50" in every_word(report)


def test_the_options_given_for_another_protocol_select_it(bench):
    bench.cohort()
    bench.cohort("its name", DISEASE)
    grids = [
        [bench.arm("a", precision="fp32")],
        [bench.arm("a", precision="bf16")],
        [bench.arm("a", precision="bf16", params=params(bench, epochs=1))],
        [bench.arm("a", "1".zfill(16), DISEASE)],
    ]
    for arms in grids:
        bench.grid(arms, sizes=(48,))
    found = select_protocols(bench.store, {})
    assert len(found.protocols) == 1
    assert len(found.others) == 3
    reached = set()
    for words in found.others:
        where = dict(part.strip("'").split("=", 1) for part in words.split("--where ")[1:])
        where = {key: value.strip().strip("'") for key, value in where.items()}
        (protocol,) = select_protocols(bench.store, where).protocols
        reached.add(protocol.rows[0].key)
    assert reached == {arms[0].key for arms in grids[:3]}


def test_an_arm_that_matches_several_protocols_is_in_each_of_them(bench):
    bench.cohort()
    prior = bench.estimator("prior")
    bench.grid([prior, bench.arm("net", precision="fp32")], sizes=(48,))
    bench.grid([bench.arm("net", precision="bf16")], sizes=(48,))
    assert sorted(rows(build_report(bench.store))) == ["net", "prior"]
    report = build_report(bench.store, where={"precision": "fp32"})
    assert len(report.sections) == 1
    assert sorted(rows(report)) == ["net", "prior"]


def test_arms_that_differ_are_not_grouped_because_of_a_third_one(bench):
    bench.cohort()
    tuned = bench.estimator("linear", space={"c": {}}, trials=20, tune="shared")
    other = bench.estimator("linear2", space={"c": {}}, trials=5, tune="shared")
    bench.grid([bench.arm("net"), tuned], sizes=(48,))
    bench.grid([other], sizes=(48,))
    assert sorted(rows(build_report(bench.store))) == ["linear2", "net"]
    assert sorted(rows(build_report(bench.store, where={"trials": "20"}))) == ["linear", "net"]


def test_one_command_on_two_cohorts_gives_two_sections(bench):
    one = bench.cohort("first")
    two = bench.cohort("second", n_test=50)
    arms = [bench.arm("a", one), bench.arm("a", two)]
    bench.grid(arms, sizes=(48,))
    report = build_report(bench.store)
    assert [section.title for section in report.sections] == ["first, age", "second, age"]
    assert len({each.name for each in report.tables}) == len(report.tables)
    report = build_report(bench.store, where={"dataset": "second"})
    assert [section.title for section in report.sections] == ["second, age"]


def test_a_metric_of_one_task_shows_the_cohorts_that_have_it(bench):
    bench.cohort("age")
    other = bench.cohort("ad", DISEASE)
    bench.grid([bench.arm("a"), bench.arm("a", other, DISEASE)], sizes=(48,))
    report = build_report(bench.store, metric="auc")
    assert [section.title for section in report.sections] == ["ad, diagnosis"]


def test_a_command_without_results_does_not_hide_earlier_ones(bench):
    bench.cohort()
    bench.grid([bench.arm("done")], sizes=(48,))
    bench.ask(bench.arm("waiting", precision="bf16"))
    assert rows(build_report(bench.store)) == ["done"]


def test_unknown_keys_and_values_are_refused(bench):
    bench.cohort()
    bench.grid([bench.arm("a")], sizes=(48,))
    with pytest.raises(UserError, match=r"did you mean 'precision'"):
        build_report(bench.store, where={"precison": "fp32"})
    with pytest.raises(UserError, match=r"precision=bf16; .* precision: fp32\."):
        build_report(bench.store, where={"precision": "bf16"})


def test_earlier_arms_of_the_same_protocol_are_in_the_same_table(bench):
    bench.cohort()
    bench.grid([bench.arm("first")], sizes=(24, 48))
    bench.grid([bench.arm("second")], sizes=(48,))
    report = build_report(bench.store)
    assert sorted(rows(report)) == ["first", "second"]
    board = table(report, "leaderboard-mae")
    (second,) = [row for row in board.rows if row[0].text == "second"]
    assert second[1].text == "not requested"
