"""Execution of a unit of work (a study or a trial) in its own process.

A unit reads its description and the memory map of the cohort. It writes its outcome into a
temporary directory, which is renamed when it is complete. It has no access to the database or the
labels of the test set.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.disk import is_full
from bench.processes import import_as_usual
from bench.spec import Component, seed_for
from bench.train.selection import Diverged, selection_score
from bench.unit import Environment, FitResult, Fitter, Outcome, Progress, Unit
from registry.cards import Card, ModelCard, Value
from registry.core import catalogue, plugin_digest, resolve
from registry.errors import UserError
from registry.models import complete_params

OUTCOME = "outcome"
TIME_LIMIT_EXIT = 75
"""Exit code of a worker that reached its time limit."""
DISK_FULL_EXIT = 74
"""Exit code of a worker that encountered a full disk."""
CODE_CHANGED_EXIT = 76
"""Exit code of a worker that found that a plugin was edited."""


STATUS = Path("/proc/self/status")
"""The file in which Linux describes this process."""


class CodeChanged(Exception):
    """A plugin was edited after the run was planned, so that its results have different keys."""


def work(text: str, attempt: str, pipe: Connection, gpu: str | None = None) -> None:
    """Run a unit in this process and publish its outcome.

    Parameters
    ----------
    text : str
        The unit as JSON, from `Unit.to_json`.
    attempt : str
        A unique name of this attempt.
    pipe : Connection
        Connection to the driver for reporting progress; the worker ends when it is closed.
    gpu : str, optional
        The GPU to use, as in ``CUDA_VISIBLE_DEVICES``.
    """
    # Ctrl-C is sent to the whole process group, but only the driver handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_as_usual()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    unit = Unit.from_json(text)
    try:
        _work(unit, attempt, pipe)
    except CodeChanged as error:
        print(error, flush=True)
        os._exit(CODE_CHANGED_EXIT)
    except OSError as error:
        if not is_full(error):
            raise
        with suppress(OSError):  # The log may be on the same disk.
            print(error, flush=True)
        os._exit(DISK_FULL_EXIT)
    sys.stdout.flush()
    # Skips the shutdown of the interpreter, which takes a second if torch was imported.
    os._exit(0)


def _work(unit: Unit, attempt: str, pipe: Connection) -> None:
    folder = Path(unit.folder) / f"attempt-{attempt}"
    folder.mkdir(parents=True)
    log = os.open(folder / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    threading.Thread(target=_end_with_driver, args=(pipe,), daemon=True).start()
    if unit.time_limit is not None:
        limit = threading.Timer(unit.time_limit, os._exit, (TIME_LIMIT_EXIT,))
        limit.daemon = True
        limit.start()

    def report(words: str, share: float) -> None:
        try:
            pipe.send((words, share))
        except OSError:
            os._exit(1)

    replace(run(unit, folder, report), attempt=attempt).write(folder)
    publish(folder)


def run(unit: Unit, folder: Path, report: Progress) -> Outcome:
    """Run a unit and return its outcome; saved weights are written to `folder`.

    Other exceptions than those listed below result in a failed outcome and a traceback in the log.

    Raises
    ------
    CodeChanged
        If a plugin was edited after the run was planned.
    OSError
        If a disk is full.
    """
    begun = time.perf_counter()
    outcome = Outcome(unit.kind, unit.key, time.time(), 0.0, Environment(unit.threads))
    try:
        load_plugins(unit)
        loaded = set(sys.modules)
        card = catalogue.model(unit.arm.model.name)
        # The limit only applies to libraries that have been loaded.
        resolve(card.target)
        _limit_threads(unit.threads, network=card.kind == "network")
        fitter = _fitter(unit, card)
        outcome = replace(outcome, environment=fitter.environment(), notes=fitter.notes)
        if unit.kind == "study":
            found = _tune(unit, fitter, report, outcome)
        else:
            found = _fit(fitter, folder, report, outcome)
            found = replace(found, timings={**found.timings, "start": fitter.ready - begun})
        refuse_late_edits(unit, loaded)
        outcome = replace(found, environment=fitter.environment())
    except CodeChanged:
        raise
    except Diverged as error:
        outcome = replace(outcome, state="failed", error=str(error))
    except Exception as error:
        if is_full(error):
            raise
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}".split("\n")[0]
        outcome = replace(outcome, state="failed", error=why)
    return replace(outcome, finished=time.time(), timings={**outcome.timings, **_peaks()})


def _peaks() -> dict[str, float]:
    """Return the peak memory of this process in MB, with and without pages of files."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    files = 0.0
    with suppress(OSError):
        found = re.search(r"^RssFile:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
        # Pages of libraries and of the cohort's memory map accumulate, so this is their peak, too.
        files = int(found[1]) / 1024 if found else 0.0
    return {"peak_rss_mb": round(peak), "peak_anon_mb": round(peak - files)}


def _tune(unit: Unit, fitter: Fitter, report: Progress, outcome: Outcome) -> Outcome:
    from bench.tune import NoCompletedTrial, run_study

    try:
        found = run_study(unit, fitter.score, report)
    except NoCompletedTrial as error:
        return replace(outcome, state="failed", error=str(error), trials=error.trials)
    return replace(outcome, best=found.best, trials=found.trials, error=found.error)


def _fit(fitter: Fitter, folder: Path, report: Progress, outcome: Outcome) -> Outcome:
    found = fitter.trial(folder, report)
    for side, values in found.predictions.items():
        # A model that predicts NaN counts as failed.
        if not np.isfinite(values).all():
            raise ValueError(f"a {side} prediction is not finite")
    return replace(outcome, **{f.name: getattr(found, f.name) for f in fields(found)})


def load_plugins(unit: Unit) -> None:
    """Load the plugins of a unit, and check that those of its model and encoder are unchanged.

    Nothing is loaded if both are built in.

    Raises
    ------
    CodeChanged
        If a plugin of the model or encoder is missing, broken or was edited.
    """
    if unit.arm.model.name in catalogue.models and not _components(unit):
        return
    catalogue.load_entry_points()
    for plugin in unit.plugins:
        try:
            catalogue.load_file(plugin)
        except UserError as error:
            # A plugin that this unit does not need may be broken.
            catalogue.broken[plugin] = str(error)
    for kind, component, lookup in _components(unit):
        try:
            digest = plugin_digest(lookup(component.name))
        except UserError as error:
            raise CodeChanged(
                f"the plugin of the {kind} was edited during the run: {error}"
            ) from None
        if digest != component.plugin:
            raise CodeChanged(
                f"the plugin of the {kind} {component.name} was edited during the run: "
                f"{lookup(component.name).plugin}"
            )


def refuse_late_edits(unit: Unit, loaded: set[str]) -> None:
    """Check that modules of plugins that were imported during the run are unchanged.

    Parameters
    ----------
    unit : Unit
        The unit that ran.
    loaded : set of str
        Names of the modules that were imported before the run.

    Raises
    ------
    CodeChanged
        If a file was edited before it was imported.
    """
    for kind, component, lookup in _components(unit):
        file = catalogue.code[lookup(component.name).plugin].edited(set(sys.modules) - loaded)
        if file is not None:
            raise CodeChanged(
                f"the plugin of the {kind} {component.name} was edited during the run: {file}"
            )


def _components(unit: Unit) -> list[tuple[str, Component, Callable[[str], Card]]]:
    """Return the model and encoder of a unit if they are plugins, with functions to get cards."""
    found: list[tuple[str, Component | None, Callable[[str], Card]]] = [
        ("model", unit.arm.model, catalogue.model),
        ("encoder", unit.arm.encoder, catalogue.encoder),
    ]
    return [(kind, part, lookup) for kind, part, lookup in found if part and part.plugin]


def _fitter(unit: Unit, card: ModelCard) -> Fitter:
    if card.kind == "estimator":
        return EstimatorFitter(unit, card)
    from bench.train.network import NetworkFitter

    return NetworkFitter(unit, card)


class EstimatorFitter:
    """Fits an estimator with the interface of scikit-learn; does not import torch."""

    def __init__(self, unit: Unit, card: ModelCard) -> None:
        self.unit = unit
        self.card = card
        self.volumes = np.load(unit.data.volumes, mmap_mode="r")
        self.ready = 0.0
        self.notes: list[str] = []

    def environment(self) -> Environment:
        """Return the hardware and software in use."""
        import platform

        import sklearn

        versions = {"scikit-learn": sklearn.__version__}
        return Environment(self.unit.threads, "cpu", platform.machine(), versions)

    def _fit(self, params: Mapping[str, Value]) -> Any:
        data, task = self.unit.data, self.unit.arm.task
        params = complete_params(self.card, params)
        estimator = resolve(self.card.target)(params, task, self.volumes.shape[1:])
        targets = np.asarray(data.train_targets, dtype=np.float64)
        if task.kind == "classification":
            targets = targets.astype(np.int64)
        # Estimators that use random numbers take them from numpy's global state.
        np.random.seed(seed_for("init", self.unit.random_stream) % 2**32)  # noqa: NPY002
        volumes = self._read(data.train_rows)
        self.ready = time.perf_counter()
        return estimator.fit(volumes, targets)

    def _read(self, rows: list[int]) -> NDArray[np.float32]:
        return np.asarray(self.volumes[rows], dtype=np.float32)

    def _predict(self, estimator: Any, rows: list[int]) -> NDArray[np.float64]:
        task = self.unit.arm.task
        if task.kind == "regression":
            predictions = np.asarray(estimator.predict(self._read(rows)), dtype=np.float64)
            return predictions.reshape(len(rows), 1)
        probabilities = np.asarray(estimator.predict_proba(self._read(rows)), dtype=np.float64)
        if probabilities.shape != (len(rows), len(task.classes)):
            raise ValueError(
                f"predict_proba must return the shape {(len(rows), len(task.classes))} for "
                f"{len(task.classes)} classes, but returned {probabilities.shape}"
            )
        return probabilities[:, 1:] if len(task.classes) == 2 else probabilities

    def score(
        self, params: Mapping[str, Value], on_epoch: Callable[[int, int, float], None]
    ) -> float:
        """Fit with some settings and return the validation score."""
        data = self.unit.data
        predictions = self._predict(self._fit(params), data.validation_rows)
        if not np.isfinite(predictions).all():
            raise Diverged("diverged: a validation prediction is not finite")
        targets = np.asarray(data.validation_targets, dtype=np.float64)
        return selection_score(self.unit.arm.task, targets, predictions, str(params["select"]))

    def trial(self, folder: Path, report: Progress) -> FitResult:
        """Fit the model, and predict validation and test set."""
        started = time.perf_counter()
        estimator = self._fit(self.unit.params)
        fitted = time.perf_counter()
        data = self.unit.data
        validation = self._predict(estimator, data.validation_rows)
        test = self._predict(estimator, data.test_rows)
        return FitResult(
            predictions={"validation": validation, "test": test},
            timings={"train": fitted - started, "predict": time.perf_counter() - fitted},
        )


def publish(folder: Path) -> None:
    """Rename a complete attempt to its final name; delete it if there already is an outcome."""
    try:
        folder.rename(folder.parent / OUTCOME)
    except OSError:
        shutil.rmtree(folder)


def _end_with_driver(pipe: Connection) -> None:
    """End this process when the driver has ended."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


def _limit_threads(threads: int, *, network: bool) -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    if network:
        import torch

        torch.set_num_threads(threads)
