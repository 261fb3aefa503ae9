import pytest

from bench.report.build import build_report
from bench.report.render import render
from bench.report.status import build_status
from bench.spec import StudySpec, TrialSpec
from bench.store.store import StudyResult
from registry.errors import UserError
from tests.report.conftest import cell, every_word


def test_every_run_is_counted_once(bench):
    bench.cohort()
    arm, other = bench.arm("net"), bench.arm("other")
    command = bench.ask(arm, other, sizes=(24, 48), seeds=range(4), argv=("bench", "run", "--x"))
    bench.run(command, arm, 24, 0)
    bench.run(command, arm, 24, 1)
    bench.run(command, arm, 24, 2, failed="diverged")
    bench.kill(TrialSpec(arm, 24, 3, None).key, log="loading\nKilled")
    found = build_status(bench.store)
    board = found.tables[0]
    assert cell(board, "net", "n24").text == "2 done, 1 failed, 1 killed"
    assert cell(board, "net", "n48").text == "4 planned"
    assert cell(board, "other", "n24").values["planned"] == 4
    assert "bench run --x" in found.notes[0]
    states = {row[3].text: row[5].text for row in found.tables[1].rows}
    assert states == {"killed": "Killed", "failed": ""}


def test_a_killed_run_that_was_done_later_is_not_counted_as_killed(bench):
    bench.cohort()
    arm = bench.arm("net")
    command = bench.ask(arm, seeds=[0])
    bench.kill(TrialSpec(arm, 48, 0, None).key)
    bench.run(command, arm, 48, 0)
    found = build_status(bench.store)
    assert cell(found.tables[0], "net", "n48").text == "1 done"
    assert len(found.tables) == 1


def test_runs_of_a_killed_study_are_killed(bench):
    bench.cohort()
    arm = bench.arm("net", space={"lr": {}}, trials=3, tune="shared")
    bench.ask(arm, seeds=range(2))
    bench.kill(StudySpec(arm, 48, None).key, log="tuning\nKilled")
    found = build_status(bench.store)
    assert cell(found.tables[0], "net", "n48").text == "2 killed"


def test_studies_are_counted_by_state(bench):
    bench.cohort()
    arm = bench.arm("net", space={"lr": {}}, trials=3, tune="shared")
    bench.ask(arm, sizes=(24, 48))
    for size, state in ((24, "done"), (48, "failed")):
        spec = StudySpec(arm, size, None)
        bench.store.add_study(StudyResult(spec, state, {"lr": 0.1}, "", [], 1.0, {}))
    assert "2 studies stored: 1 done, 1 failed" in every_word(build_status(bench.store))


def test_unfinished_runs_have_a_status_and_an_empty_database_is_refused(bench):
    with pytest.raises(UserError, match="does not contain any runs"):
        build_status(bench.store)
    bench.cohort()
    bench.ask(bench.arm("net"))
    assert "3 planned" in render(build_status(bench.store), "terminal")
    with pytest.raises(UserError, match="bench status"):
        build_report(bench.store)


def test_every_protocol_is_in_the_status(bench):
    bench.cohort()
    bench.grid([bench.arm("net", precision="fp32")], sizes=(48,))
    bench.grid([bench.arm("net", precision="bf16")], sizes=(48,))
    captions = [section.caption[0] for section in build_status(bench.store).sections]
    assert len(captions) == 2
    assert "precision bf16" in captions[0]
