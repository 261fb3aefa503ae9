"""Checklists are answered from the database; remaining questions are asked."""

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import update

from bench.report.checklists import CHECKLISTS, build_checklist
from bench.report.render import FORMATS, render
from bench.spec import Component
from bench.store import schema
from registry.errors import UserError
from tests.report.conftest import DISEASE, every_word
from tests.store.conftest import make_study

EXAMPLE = Path(__file__).parents[2] / "results.db"


def answers(bench, kind="comparison"):
    """Return (text, state) by item of the only table."""
    (section,) = build_checklist(bench.store, kind).sections
    (found,) = section.tables
    return {row[0].text: (row[2].text, row[2].values["state"]) for row in found.rows}


def two(bench, seeds=range(3), sizes=(24, 48), **changes):
    """Run a whole grid of two networks and return their arms."""
    fingerprint = bench.cohort(**changes)
    arms = [bench.arm("cnn3d", fingerprint), bench.arm("slice2d-own", fingerprint)]
    bench.grid(arms, sizes=sizes, seeds=seeds)
    return arms


@pytest.mark.parametrize("kind", CHECKLISTS)
@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_shows_every_item(bench, kind, format_):
    two(bench)
    report = build_checklist(bench.store, kind)
    text = render(report, format_)
    (table,) = report.tables
    assert [column.key for column in table.columns] == ["item", "question", "answer"]
    for row in table.rows:
        assert row[0].text.split()[0] in text
    states = {row[2].values["state"] for row in table.rows}
    assert states == {"answered", "partly", "open"}
    for row in table.rows:
        assert row[2].text
        assert ("To be answered" in row[2].text) == (row[2].values["state"] != "answered")


def test_tripod_has_its_52_items_and_names_its_source(bench):
    two(bench)
    found = answers(bench, "tripod-ai")
    assert len(found) == 52
    assert [int("".join(c for c in name.split()[0] if c.isdigit())) for name in found] == sorted(
        int("".join(c for c in name.split()[0] if c.isdigit())) for name in found
    )
    report = build_checklist(bench.store, "tripod-ai")
    assert "BMJ 2024;385:e078378" in every_word(report)


def test_claim_has_the_44_items_of_2024_in_order(bench):
    two(bench)
    report = build_checklist(bench.store, "claim")
    (found,) = report.tables
    assert [row[0].text.split()[0] for row in found.rows] == [str(i) for i in range(1, 45)]
    names = {row[0].text: row[2].text for row in found.rows}
    assert names["20 disjoint"].startswith("By subject")
    assert names["27 ensembles"] == "No."
    assert names["44 funding"].startswith("To be answered")
    assert "e240300" in every_word(report)
    own = every_word(build_checklist(bench.store, "comparison"))
    assert "not a published checklist" in own
    assert "CLAIM" not in own


def test_a_complete_grid_is_reported_as_complete(bench):
    two(bench)
    found = answers(bench)
    assert found["test set shared"] == ("Yes, the same 40 in 12 runs.", "answered")
    assert found["seeds"] == ("3 in each of 4 combinations.", "answered")
    assert found["failures"] == ("None failed.", "answered")
    assert found["missing cells"] == ("Yes.", "answered")
    assert found["training sizes"][0] == "24, 48, out of 96; primary 48."
    assert found["tuning"][0].startswith("No hyperparameters were tuned")
    assert found["margin"][1] == "open"
    assert "default rule" in found["declared"][0]


def test_failed_missing_and_unequal_runs_are_listed_and_asked_about(bench):
    arms = two(bench)
    number = bench.ask(*arms, sizes=(24, 48, 96), seeds=range(4))
    bench.run(number, arms[0], 24, 3, failed="diverged")
    found = answers(bench)
    assert found["failures"][0].startswith("1 run: cnn3d n=24 seed 3 (failed).")
    assert found["failures"][1] == "partly"
    assert "slice2d-own n=96: 4 seeds" in found["missing cells"][0]
    assert found["missing cells"][1] == "partly"
    assert found["seeds"][0].startswith("Unequal: 0 to 3.")
    assert found["what seeds vary"][0].startswith("The training subset at n=24, 48 (nested")


def test_one_seed_does_not_support_a_claim(bench):
    two(bench, seeds=[0])
    answer, state = answers(bench)["seeds"]
    assert state == "partly"
    assert "does not support a claim about an architecture" in answer


def test_baselines_are_asked_for_until_they_are_run(bench):
    arms = two(bench)
    assert answers(bench)["baselines"] == (
        "To be answered: what do linear-voxels and prior achieve on these data?",
        "open",
    )
    linear = bench.estimator("linear-voxels", fingerprint=arms[0].fingerprint)
    bench.grid([*arms, linear], sizes=(24, 48))
    assert answers(bench)["baselines"] == (
        "linear-voxels. To be answered: what does prior achieve on these data?",
        "partly",
    )
    prior = bench.estimator("prior", fingerprint=arms[0].fingerprint)
    bench.grid([*arms, linear, prior], sizes=(24, 48))
    assert answers(bench)["baselines"] == ("linear-voxels, prior.", "answered")


def test_different_test_sets_are_reported_and_not_an_error(bench):
    two(bench)
    table = schema.predictions
    with bench.store.engine.begin() as connection:
        first = connection.execute(table.select()).first()
        connection.execute(
            update(table)
            .where(table.c.trial == first.trial)
            .values(subjects=first.subjects[::-1][: len(first.subjects)])
        )
    found = answers(bench)
    assert found["test set shared"][0].startswith("No: 2 test sets.")
    assert found["other metrics"][1] == "open"
    assert answers(bench, "tripod-ai")["23a performance"][1] == "open"


def test_test_subjects_that_were_trained_on_are_counted(bench):
    two(bench)
    assert answers(bench)["leakage"][0].startswith("Every predicted subject belongs to the set")
    table = schema.subjects
    with bench.store.engine.begin() as connection:
        connection.execute(update(table).where(table.c.subject < 103).values(side="train"))
    assert answers(bench)["leakage"][0].startswith(
        "3 subjects predicted in a set to which they do not belong"
    )


def test_early_and_late_declarations_are_both_reported(bench):
    arms = two(bench)
    with bench.store.engine.begin() as connection:
        connection.execute(
            update(schema.commands).values(declared={"metric": "rmse", "margin": 0.5})
        )
    found = answers(bench)
    assert found["margin"] == ("0.5 years in RMSE.", "answered")
    assert found["declared"][0].startswith("RMSE at n=48")
    assert found["declared"][1] == "answered"
    bench.store.add_command(
        ["bench", "run"],
        [(arm, False) for arm in arms],
        sizes={arms[0].fingerprint: [24, 48]},
        seeds=[0, 1, 2],
        dropped=[],
        declared={"metric": "mae", "margin": 0.1},
    )
    assert answers(bench)["declared"][1] == "partly"


def test_tuning_is_reported_with_budget_and_mode(bench):
    fingerprint = bench.cohort()
    tuned = {"trials": 2, "tune": "shared", "space": {"lr": {"kind": "float"}}}
    arm = bench.arm("cnn3d", fingerprint, **tuned)
    bench.grid([arm], sizes=(24,))
    bench.store.add_study(make_study(arm))
    answer, state = answers(bench)["tuning"]
    assert answer.startswith("2 Optuna trials per study for each of 1 model, shared.")
    assert "change the ranking" in answer
    assert "the variance due to tuning is not included" in answers(bench)["estimand"][0]
    with bench.store.engine.begin() as connection:
        connection.execute(schema.tuning_trials.delete().where(schema.tuning_trials.c.number == 1))
    assert "a number of trials other than 2" in answers(bench)["tuning"][0]
    assert state == "partly"


def test_short_training_and_seen_cohorts_are_flagged(bench):
    fingerprint = bench.cohort()
    params = {**bench.arm("x").params, "epochs": 2}
    seen = Component("seen", 1, weights="f" * 64, overlap=True)
    arms = [
        bench.arm("slice2d-imagenet", fingerprint, params=params, encoder=seen),
        bench.arm("cnn3d", fingerprint, params=params),
    ]
    bench.grid(arms, sizes=(24,))
    found = answers(bench)
    assert "too short to rank" in found["training length"][0]
    assert "pretrained on the test cohort" in found["contamination"][0]
    assert found["contamination"][1] == "partly"


def test_pretraining_of_built_in_encoders_is_known_and_that_of_others_asked_for(bench):
    fingerprint = bench.cohort()
    ours = Component("efficientnet-lite0", 1, weights="f" * 64)
    arm = bench.arm("slice2d-imagenet", fingerprint, encoder=ours)
    bench.grid([arm], sizes=(24,))
    assert answers(bench)["contamination"] == (
        "Pretrained: efficientnet-lite0 (ImageNet-1k).",
        "answered",
    )
    theirs = Component("theirs", 1, plugin="a" * 64, weights="f" * 64)
    bench.grid([arm, bench.arm("slice2d-imagenet", fingerprint, encoder=theirs)], sizes=(24,))
    answer, state = answers(bench)["contamination"]
    assert "theirs (not recorded)" in answer
    assert state == "partly"


def test_people_classes_and_flow_are_those_of_the_store(bench):
    fingerprint = bench.cohort(
        task=DISEASE,
        n_test=20,
        flow=[["scans found", 23], ["left out: no label", 3], ["scans used", 20]],
    )
    arm = bench.arm("cnn3d", fingerprint, DISEASE)
    bench.grid([arm], sizes=(24,))
    with bench.store.engine.begin() as connection:
        table = schema.subjects
        connection.execute(update(table).values(age=70.0, sex="F", site="a"))
        connection.execute(update(table).where(table.c.subject < 105).values(age=80.0, site="b"))
    found = answers(bench, "tripod-ai")
    assert found["20a flow"][0] == "scans found: 23; left out: no label: 3; scans used: 20."
    assert found["21 numbers"][0] == "test 10 CN, 10 AD."
    assert found["6a setting"][0].startswith("2 sites.")
    assert found["20b people"][0].startswith("test 20, age 72.5 (sd 4.4), 20 F.")
    assert "left out: no label: 3" in found["11 missing data"][0]
    assert "AUC at n=24: cnn3d" in found["23a performance"][0]
    assert "fewer than 30" in answers(bench)["test set size"][0]


def test_each_protocol_has_its_own_table(bench):
    first, second = bench.cohort("one"), bench.cohort("two")
    arms = [bench.arm("cnn3d", first), bench.arm("cnn3d", second)]
    bench.grid(arms, sizes=(24,))
    report = build_checklist(bench.store, "claim")
    assert [table.name for table in report.tables] == ["checklist-claim-1", "checklist-claim-2"]
    alone = build_checklist(bench.store, "claim", {"dataset": "two"})
    assert [section.title for section in alone.sections] == ["two, age"]
    assert "dataset=one" in every_word(alone)


def test_a_cohort_without_finished_runs_has_open_questions(bench):
    first, second = bench.cohort("one"), bench.cohort("two")
    arms = [bench.arm("cnn3d", first), bench.arm("cnn3d", second)]
    number = bench.ask(*arms, sizes=(24,))
    bench.run(number, arms[0], 24, 0)
    for kind in CHECKLISTS:
        for section in build_checklist(bench.store, kind).sections:
            assert section.tables[0].rows


def test_an_unknown_checklist_and_an_empty_database_are_refused(bench):
    with pytest.raises(UserError, match="did you mean 'claim'"):
        build_checklist(bench.store, "clam")
    with pytest.raises(UserError, match="does not contain any runs"):
        build_checklist(bench.store, "claim")


def test_the_command_fills_it_for_the_example(tmp_path, environment):
    import subprocess
    import sys

    shutil.copy(EXAMPLE, tmp_path / "r.db")

    def report(*words):
        return subprocess.run(
            [sys.executable, "-m", "bench", "report", "--db", "r.db", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )

    found = report("--checklist", "comparison", "--format", "json")
    assert found.returncode == 0, found.stderr
    (section,) = json.loads(found.stdout)["sections"]
    rows = {row["item"]["text"]: row["answer"] for row in section["tables"][0]["rows"]}
    assert rows["test set shared"]["text"] == "Yes, the same 32 in 80 runs."
    assert rows["baselines"]["values"]["state"] == "answered"
    assert (
        report("--checklist", "tripod-ai", "--out", "t.md", "--format", "markdown").returncode == 0
    )
    assert "| 13 imbalance |" in (tmp_path / "t.md").read_text()
    for words in (["--checklist", "tripod"], ["--checklist", "claim", "--metric", "auc"]):
        found = report(*words)
        assert found.returncode == 2
        assert "Traceback" not in found.stderr
