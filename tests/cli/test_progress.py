"""The progress of a long run in a log file."""

import os
import re
import time

import pytest

from bench.cli import progress
from bench.cli.progress import PlainProgress, Ticker, make_progress

MINUTE = 0.2


@pytest.fixture(autouse=True)
def short_minutes(monkeypatch):
    monkeypatch.setattr(progress, "MINUTE", MINUTE)


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_long_epochs_are_told_one_by_one(capsys):
    with PlainProgress(3) as shown:
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
    with PlainProgress(2) as shown:
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
    with PlainProgress(1) as shown:
        shown.started("a", "forest")
        shown.progressed("a", "starting", 0.0)
        time.sleep(5.5 * MINUTE)
    assert lines(capsys) == ["[0/1] running: forest, starting"] * 2


def test_nothing_is_told_of_units_that_wait_or_have_ended(capsys):
    with PlainProgress(2) as shown:
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
        assert isinstance(make_progress(1), PlainProgress)
        monkeypatch.setenv("TERM", "xterm")
        assert not isinstance(make_progress(1), PlainProgress)
    os.close(ours)
