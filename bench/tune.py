"""Optuna studies, which use validation subjects only and can be resumed after any trial."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState

from bench.disk import is_full
from bench.spec import dimension_from_plain
from bench.train.selection import Diverged
from bench.unit import Progress, TuningTrial, Unit
from registry.cards import Choice, Float, Value

logger = logging.getLogger(__name__)

HISTORY = "history.jsonl"
STARTUP_TRIALS = 5
"""Number of trials that are sampled at random and never pruned."""

Objective = Callable[[Mapping[str, Value], Callable[[int, int, float], None]], float]


@dataclass(frozen=True)
class Tuning:
    """The result of a study."""

    best: Mapping[str, Value]
    trials: Sequence[TuningTrial]
    error: str
    """Why some of the trials failed, empty if none did."""


class NoCompletedTrial(Exception):
    """Every trial of a study failed or was pruned, so that there are no tuned settings."""

    def __init__(self, message: str, trials: Sequence[TuningTrial]) -> None:
        super().__init__(message)
        self.trials = trials


def run_study(unit: Unit, objective: Objective, report: Progress) -> Tuning:
    """Run the trials of a study that are not in its history yet.

    Each finished trial is appended to the history and synced to disk before the next one starts.
    The sampler is created anew for each trial, with a seed derived from the key of the study and
    the number of the trial. Therefore, a study that was interrupted and resumed samples the same
    settings as one that was not.

    Parameters
    ----------
    unit : Unit
        A unit of kind ``"study"``.
    objective : callable
        Trains with given settings and returns the validation score (lower is better); reports
        (epoch, epochs, score) after each epoch.
    report : callable
        Called with the progress.

    Returns
    -------
    Tuning
        The best settings and all trials.

    Raises
    ------
    NoCompletedTrial
        If no trial completed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The option constant_liar of the sampler is marked as experimental.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    arm = unit.arm
    budget = arm.trials or 0
    space = {name: _distribution(values) for name, values in sorted(arm.space.items())}
    file = Path(unit.folder) / HISTORY
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.RandomSampler(0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
    )
    trials: list[TuningTrial] = []
    reasons: dict[int, str] = {}
    for done, reason in read_history(file):
        study.add_trial(frozen_trial(done))
        trials.append(done)
        if reason:
            reasons[done.number] = reason
    for number in range(len(study.trials), budget):
        report(f"tuning {number + 1}/{budget}", number / budget)
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP_TRIALS,
            constant_liar=False,
            seed=int(hashlib.sha256(f"{unit.key}/{number}".encode()).hexdigest()[:8], 16),
        )
        if number == 0:
            study.enqueue_trial({name: unit.params[name] for name in space})
        started = time.perf_counter()
        trial = study.ask(space)

        def on_epoch(
            epoch: int, epochs: int, value: float, trial: optuna.Trial = trial, number: int = number
        ) -> None:
            share = (number + epoch / epochs) / budget
            report(f"tuning {number + 1}/{budget} epoch {epoch}/{epochs}", share)
            _refuse_not_finite(value, f" in epoch {epoch}")
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            value = objective({**unit.params, **trial.params}, on_epoch)
            _refuse_not_finite(value)
        except optuna.TrialPruned:
            finished = study.tell(trial, state=TrialState.PRUNED)
        except Exception as error:
            if is_full(error):
                raise
            # Failed settings are recorded; they do not end the study.
            kind = "" if isinstance(error, Diverged) else f"{type(error).__name__}: "
            reasons[number] = f"{kind}{error}".split("\n")[0]
            logger.warning("tuning trial %d failed: %s", number, reasons[number])
            finished = study.tell(trial, state=TrialState.FAIL)
        else:
            finished = study.tell(trial, value)
        trials.append(tuning_trial(finished, time.perf_counter() - started))
        append_history(file, trials[-1], reasons.get(number, ""))
    why = _failures(reasons, budget)
    if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
        detail = f": {why}" if why else ""
        raise NoCompletedTrial(f"none of {budget} tuning trials completed{detail}", trials)
    return Tuning(dict(study.best_params), trials, why)


def _refuse_not_finite(value: float, where: str = "") -> None:
    if not math.isfinite(value):
        raise Diverged(f"diverged: the validation score is {value}{where}")


def _failures(reasons: Mapping[int, str], budget: int) -> str:
    """Return a sentence about which trials failed and why, grouped by reason."""
    numbers: dict[str, list[str]] = {}
    for number, reason in sorted(reasons.items()):
        numbers.setdefault(reason, []).append(str(number))
    each = [
        f"{reason} (trial{'s' * (len(which) > 1)} {', '.join(which)})"
        for reason, which in numbers.items()
    ]
    return f"{len(reasons)} of {budget} tuning trials failed: {'; '.join(each)}" if each else ""


def tuning_trial(trial: FrozenTrial, seconds: float) -> TuningTrial:
    """Return the record of a finished trial of Optuna that took some seconds."""
    return TuningTrial(
        number=trial.number,
        state=trial.state.name.lower(),
        params=dict(trial.params),
        distributions={k: distribution_to_json(d) for k, d in trial.distributions.items()},
        value=trial.value,
        intermediate={str(k): v for k, v in trial.intermediate_values.items()},
        seconds=seconds,
    )


def frozen_trial(trial: TuningTrial) -> FrozenTrial:
    """Return the finished trial of Optuna for its record; see `tuning_trial`."""
    return optuna.trial.create_trial(
        state=TrialState[trial.state.upper()],
        params=dict(trial.params),
        distributions={
            name: json_to_distribution(text) for name, text in trial.distributions.items()
        },
        value=trial.value,
        intermediate_values={int(k): v for k, v in trial.intermediate.items()},
    )


def read_history(file: Path) -> list[tuple[TuningTrial, str]]:
    """Return the finished trials of a study, with the reasons of failures.

    An incomplete last line is removed from the file.
    """
    if not file.exists():
        return []
    whole = file.read_bytes()
    complete = whole[: whole.rfind(b"\n") + 1]
    if complete != whole:
        with open(file, "rb+") as stream:
            stream.truncate(len(complete))
            os.fsync(stream.fileno())
    lines = [json.loads(line) for line in complete.splitlines()]
    reasons = [line.pop("error", "") for line in lines]
    return [(TuningTrial(**line), reason) for line, reason in zip(lines, reasons, strict=True)]


def append_history(file: Path, trial: TuningTrial, reason: str) -> None:
    """Append a finished trial, with the reason of a failure, and sync it to disk."""
    line = {**asdict(trial), "error": reason}
    with open(file, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _distribution(values: Mapping[str, Any]) -> BaseDistribution:
    dimension = dimension_from_plain(values)
    if isinstance(dimension, Choice):
        return CategoricalDistribution(list(dimension.values))
    kind = FloatDistribution if isinstance(dimension, Float) else IntDistribution
    return kind(dimension.low, dimension.high, log=dimension.log)
