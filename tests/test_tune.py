import json
import math
from dataclasses import replace

import optuna
import pytest

from bench.spec import Arm, Component, dimension_to_plain
from bench.tune import HISTORY, NoCompletedTrial, read_history, run_study
from bench.unit import Unit, UnitData
from registry.cards import Choice, Float, Int, Task

BUDGET = 9
SPACE = {
    "lr": Float(1e-5, 1e-1, log=True),
    "width": Int(1, 64, log=True),
    "pool": Choice(("mean", "max")),
}
DEFAULTS = {"lr": 1e-3, "width": 8, "pool": "mean", "fixed": 7}


class Killed(BaseException):
    """Simulates a signal, which the study must not catch."""


def unit(folder, budget=BUDGET):
    arm = Arm(
        model=Component("m", 1),
        encoder=None,
        fingerprint="f" * 16,
        task=Task("age", "regression"),
        params=DEFAULTS,
        space={name: dimension_to_plain(dimension) for name, dimension in SPACE.items()},
        trials=budget,
        tune="shared",
        precision="fp32",
    )
    data = UnitData("", 4, 4, [], [], [], [], [])
    key = "0123456789abcdef"
    return Unit("study", key, "tune", arm, DEFAULTS, data, "cpu", 1, True, "", [], str(folder), "")


def objective(params, on_epoch):
    """A smooth objective with epochs, so that sampler and pruner have an effect."""
    assert params["fixed"] == 7
    goal = (math.log10(params["lr"]) + 2) ** 2 + abs(params["width"] - 20) / 20
    goal += params["pool"] == "mean"
    for epoch in range(1, 5):
        on_epoch(epoch, 4, goal + 4 / epoch)
    return goal


def lines(folder):
    found = read_history(folder / HISTORY)
    return [(replace(trial, seconds=0.0), reason) for trial, reason in found]


def silent(words, share):
    assert 0 <= share <= 1


def test_the_first_trial_is_the_cards_settings_and_the_budget_counts_every_trial(tmp_path):
    result = run_study(unit(tmp_path), objective, silent)
    assert len(result.trials) == BUDGET
    first = result.trials[0]
    assert first.params == {name: DEFAULTS[name] for name in SPACE}
    assert {trial.state for trial in result.trials} == {"complete", "pruned"}
    values = [trial.value for trial in result.trials if trial.state == "complete"]
    best = next(trial for trial in result.trials if trial.value == min(values))
    assert result.best == best.params


@pytest.mark.parametrize("at", range(BUDGET))
def test_a_study_killed_at_any_trial_resumes_to_the_same_trials(tmp_path, at):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    wanted = run_study(unit(whole), objective, silent)
    count = 0

    def dies(params, on_epoch):
        nonlocal count
        if count == at:
            on_epoch(1, 4, 1.0)
            raise Killed
        count += 1
        return objective(params, on_epoch)

    with pytest.raises(Killed):
        run_study(unit(broken), dies, silent)
    assert len(lines(broken)) == at
    resumed = run_study(unit(broken), objective, silent)
    assert lines(broken) == lines(whole)
    assert resumed.best == wanted.best


def test_a_line_cut_short_by_a_kill_is_dropped_and_its_trial_run_again(tmp_path):
    run_study(unit(tmp_path), objective, silent)
    wanted = lines(tmp_path)
    file = tmp_path / HISTORY
    text = file.read_bytes()
    file.write_bytes(text[:-20])
    run_study(unit(tmp_path), objective, silent)
    assert lines(tmp_path) == wanted


def test_a_finished_study_runs_nothing_again(tmp_path):
    first = run_study(unit(tmp_path), objective, silent)

    def never(params, on_epoch):
        raise AssertionError("ran again")

    again = run_study(unit(tmp_path), never, silent)
    assert again == first


def test_a_setting_that_fails_is_a_failed_trial_and_the_study_goes_on(tmp_path):
    def fails_sometimes(params, on_epoch):
        if params["pool"] == "mean":
            raise FloatingPointError("diverged")
        return objective(params, on_epoch)

    result = run_study(unit(tmp_path), fails_sometimes, silent)
    states = [trial.state for trial in result.trials]
    assert states[0] == "fail"
    assert len(states) == BUDGET
    assert result.best["pool"] == "max"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("when", ["in epoch 2", "at the end"])
def test_a_score_that_is_no_number_fails_its_trial_and_says_why(tmp_path, value, when):
    def overflows_sometimes(params, on_epoch):
        score = objective(params, on_epoch)
        if params["pool"] == "max":
            return score
        if when == "in epoch 2":
            on_epoch(2, 4, value)
        return value

    result = run_study(unit(tmp_path), overflows_sometimes, silent)
    failed = [trial.number for trial in result.trials if trial.state == "fail"]
    assert failed[0] == 0
    assert all(trial.value is None for trial in result.trials if trial.number in failed)
    assert result.best["pool"] == "max"
    epoch = " in epoch 2" if when == "in epoch 2" else ""
    assert result.error.startswith(
        f"{len(failed)} of 9 tuning trials failed: diverged: the validation score is {value}{epoch}"
    )
    assert f"(trial{'s' * (len(failed) > 1)} {', '.join(map(str, failed))})" in result.error
    again = run_study(unit(tmp_path), overflows_sometimes, silent)
    assert again.error == result.error


def test_a_study_without_a_completed_trial_fails(tmp_path):
    def fails(params, on_epoch):
        raise FloatingPointError("diverged")

    with pytest.raises(NoCompletedTrial, match="none of 9") as error:
        run_study(unit(tmp_path), fails, silent)
    assert "FloatingPointError: diverged (trials 0, 1, 2" in str(error.value)
    assert [trial.state for trial in error.value.trials] == ["fail"] * BUDGET
    assert [trial.state for trial, _ in lines(tmp_path)] == ["fail"] * BUDGET


def test_the_history_is_plain_json_that_optuna_reads_back(tmp_path):
    run_study(unit(tmp_path), objective, silent)
    line = json.loads((tmp_path / HISTORY).read_text().splitlines()[0])
    distribution = optuna.distributions.json_to_distribution(line["distributions"]["lr"])
    assert distribution == optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)
