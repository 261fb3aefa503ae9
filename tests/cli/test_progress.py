"""The progress of a long run in a log file."""

import os
import re
import time

import pytest

from bench.cli import progress
from bench.cli.progress import PlainProgress, Ticker, make_progress
from bench.expected import Durations, TimeLeft
from bench.spec import Arm, Component, TrialSpec
from registry.cards import Task

MINUTE = 0.2


@pytest.fixture(autouse=True)
def short_minutes(monkeypatch):
    monkeypatch.setattr(progress, "MINUTE", MINUTE)


def nothing_known(total):
    """Return the time left of a number of units that are like no others."""
    arm = Arm(
        *(Component("net", 1), None, "0" * 16, Task("age", "regression")),
        *({"epochs": 1}, {}, None, None, "fp32"),
    )
    return TimeLeft(Durations({}), [TrialSpec(arm, 16, seed, None) for seed in range(total)])


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_long_epochs_are_told_one_by_one(capsys):
    with PlainProgress(nothing_known(3), 1) as shown:
        shown.started("a", "cnn3d n=24 seed 0")
        shown.started("b", "cnn3d n=24 seed 1")
        for epoch in range(1, 4):
            shown.progressed("a", f"epoch {epoch}/3", epoch / 3)
            time.sleep(1.5 * MINUTE)
        shown.ended("a", "cnn3d n=24 seed 0", "done", 1.0, "")
    said = lines(capsys)
    assert [line for line in said if "epoch" in line] == [
        f"[0/3] running: cnn3d n=24 seed 0, epoch {epoch}/3" for epoch in range(1, 4)
    ]
    assert said[-1] == "[1/3] cnn3d n=24 seed 0 done in 1.0 s"


def test_units_side_by_side_share_one_line_a_minute(capsys):
    started = time.monotonic()
    with PlainProgress(nothing_known(2), 1) as shown:
        for key in "ab":
            shown.started(key, f"model {key}")
        for step in range(50):
            shown.progressed("ab"[step % 2], f"epoch {step}/50", step / 50)
            time.sleep(MINUTE / 10)
    minutes = (time.monotonic() - started) / MINUTE
    said = lines(capsys)
    assert 2 <= len(said) <= minutes
    assert all(
        re.fullmatch(r"\[0/2\] running: model a, epoch \d+/50; model b, epoch \d+/50", line)
        for line in said
    )


def test_a_unit_without_epochs_is_told_once_and_now_and_then_again(capsys, monkeypatch):
    monkeypatch.setattr(progress, "STILL", 3)
    with PlainProgress(nothing_known(1), 1) as shown:
        shown.started("a", "forest")
        shown.progressed("a", "starting", 0.0)
        time.sleep(5.5 * MINUTE)
    assert lines(capsys) == ["[0/1] running: forest, starting"] * 2


def test_nothing_is_told_of_units_that_wait_or_have_ended(capsys):
    with PlainProgress(nothing_known(2), 1) as shown:
        shown.started("a", "model a")
        shown.started("b", "model b")
        shown.progressed("a", "starting", 0.0)
        shown.ended("a", "model a", "done", 0.1, "")
        time.sleep(1.5 * MINUTE)
    assert lines(capsys) == ["[1/2] model a done in 0.1 s"]


def test_a_long_step_before_the_units_is_told_once_a_minute(capsys):
    tick = Ticker("reading scan")
    for done in range(1, 31):
        tick(done, 30)
        time.sleep(MINUTE / 10)
    said = lines(capsys)
    assert said[-1] == "reading scan 30"
    assert 1 <= len(said[:-1]) <= 3
    assert all(re.fullmatch(r"reading scan \d+/30", line) for line in said[:-1])


def test_a_dumb_terminal_gets_lines(monkeypatch):
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(make_progress(nothing_known(1), 1), PlainProgress)
        monkeypatch.setenv("TERM", "xterm")
        assert not isinstance(make_progress(nothing_known(1), 1), PlainProgress)
    os.close(ours)


def test_the_time_left_is_told_once_it_is_known(capsys):
    left = nothing_known(9)
    units = [unit.key for unit in left._units.values()]
    with PlainProgress(left, 2) as shown:
        for key in units[:2]:
            shown.started(key, f"unit {key}")
        shown.progressed(units[1], "epoch 1/2", 0.5)
        time.sleep(1.5 * MINUTE)
        shown.ended(units[0], f"unit {units[0]}", "done", 150.0, "")
        shown.progressed(units[1], "epoch 2/2", 1.0)
        time.sleep(1.5 * MINUTE)
    said = [line for line in lines(capsys) if "running" in line]
    assert said[0].endswith("epoch 1/2")
    # Eight units, two at a time.
    assert said[-1].endswith("epoch 2/2; about 10 min left")


def test_many_running_units_are_not_all_listed(capsys):
    with PlainProgress(nothing_known(30), 0) as shown:
        for number in range(30):
            shown.started(str(number), f"unit {number}")
            shown.progressed(str(number), "epoch 1/2", 0.5)
        time.sleep(1.5 * MINUTE)
    (line,) = [line for line in lines(capsys) if "running" in line]
    assert line.count("epoch 1/2") == progress.SHOWN
    assert line.endswith(f"and {30 - progress.SHOWN} more")
