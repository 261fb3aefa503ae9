"""Copies of finished trials for TensorBoard and MLflow.

Trackers are given what the database holds: no participant ids, paths or predictions.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import select

from bench.spec import TrialSpec, arm_from_plain, label_of
from bench.store import schema
from bench.store.postgres import without_password
from bench.store.store import DONE, Store
from registry.cards import Value
from registry.errors import UserError


@dataclass(frozen=True)
class TrackedTrial:
    """A finished trial, as trackers show it."""

    key: str
    label: str
    experiment: str
    """The cohort and the target."""
    params: dict[str, Value]
    """Settings of the model, its name, training size and seed."""
    metrics: dict[str, float]
    """By the set and the name of the metric, such as ``test/auc``; also the duration."""
    best_epoch: int
    """The epoch to which the metrics belong, 0 for an estimator."""
    history: list[tuple[int, dict[str, float]]]
    """(epoch, values) in ascending order."""
    finished: datetime


class Tracker(Protocol):
    """Keeps copies of trials."""

    def add(self, trial: TrackedTrial) -> None:
        """Copy a trial, replacing an older copy with the same key; may raise anything."""


def open_tracker(text: str) -> Tracker:
    """Return the tracker for a value of ``--track``: ``tensorboard=DIR`` or ``mlflow=URI``.

    Raises
    ------
    UserError
        If the value is invalid, a package is missing, or the place cannot be used.
    """
    name, _, place = text.partition("=")
    if name not in TRACKERS or not place:
        raise UserError(f"--track must be tensorboard=DIR or mlflow=URI, got {text!r}.")
    if find_spec(name) is None:
        raise UserError(
            f"--track {name} requires a package; install it with "
            "`pip install 'slicebench[tracking]'`."
        )
    try:
        return TRACKERS[name](place)
    except Exception as error:
        # Both libraries raise many types of errors.
        remedy = (
            "choose another directory"
            if name == "tensorboard"
            else "use sqlite:///FILE or the URL of a server that is running"
        )
        raise UserError(
            f"--track {without_password(text)} cannot be used ({_first_line(error)}); {remedy}."
        ) from None


def track(store: Store, key: str, trackers: list[Tracker]) -> list[str]:
    """Copy a finished trial to trackers.

    A tracker that fails is removed from the list, because waiting for a server that does not answer
    would delay the run.

    Returns
    -------
    list of str
        A warning for each tracker that failed.
    """
    problems = []
    for tracker in tuple(trackers):
        try:
            tracker.add(_read(store, key))
        except Exception as error:
            # The trial is already stored in the database.
            trackers.remove(tracker)
            problems.append(
                f"trial {key} is stored, but it could not be copied to {tracker} "
                f"({_first_line(error)}), and no more will be; copy all later with `bench db "
                "mirror --track`"
            )
    return problems


def track_all(store: Store, trackers: list[Tracker]) -> list[str]:
    """Copy all finished trials to trackers, and return the warnings."""
    done = store.frame(select(schema.trials.c.key).where(schema.trials.c.state == DONE))
    return [problem for key in done["key"] for problem in track(store, key, trackers)]


class TensorBoard:
    """A directory with one run per trial.

    Parameters
    ----------
    place : str
        The directory, which is created if necessary.
    """

    def __init__(self, place: str) -> None:
        self._folder = Path(place).expanduser()
        self._folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self._folder, os.W_OK):
            raise PermissionError(f"{place} cannot be written to")

    def __str__(self) -> str:
        return f"TensorBoard's directory {self._folder}"

    def add(self, trial: TrackedTrial) -> None:
        """Write the files of a run."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self._folder / re.sub(r"[^\w .=+\[\]-]", "-", f"{trial.label} {trial.key}")
        shutil.rmtree(folder, ignore_errors=True)
        when = trial.finished.timestamp()
        params = {"key": trial.key, **trial.params}
        plain = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in params.items()}
        writer = EventFileWriter(str(folder))
        try:
            start = hparams_pb(plain, trial_id=trial.key, start_time_secs=when)
            writer.add_event(Event(wall_time=when, summary=start))
            for step, values in _steps(trial):
                found = [Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
                writer.add_event(Event(wall_time=when, step=step, summary=Summary(value=found)))
        finally:
            writer.close()


class MLflow:
    """A tracking server or database of MLflow, with one experiment per cohort and target.

    Parameters
    ----------
    place : str
        The URI.
    """

    def __init__(self, place: str) -> None:
        # MLflow reports its use to its developers, and waits minutes for a server.
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
        ):
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        # Both announce that they create tables.
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self._place = without_password(place)
        self._client = MlflowClient(tracking_uri=place)
        self._client.search_experiments(max_results=1)

    def __str__(self) -> str:
        return f"MLflow at {self._place}"

    def add(self, trial: TrackedTrial) -> None:
        """Create a run, deleting an earlier one with the same key."""
        from mlflow.entities import Metric, Param

        client = self._client
        known = client.get_experiment_by_name(trial.experiment)
        experiment = known.experiment_id if known else client.create_experiment(trial.experiment)
        for older in client.search_runs([experiment], f"tags.bench_key = '{trial.key}'"):
            client.delete_run(older.info.run_id)
        end = int(1000 * trial.finished.timestamp())
        start = end - int(1000 * trial.metrics["seconds"])
        run = client.create_run(experiment, start, {"bench_key": trial.key}, trial.label)
        metrics = [
            Metric(name, value, end, step)
            for step, values in _steps(trial)
            for name, value in values.items()
        ]
        params = [Param(name, str(value)) for name, value in trial.params.items()]
        for number in range(0, max(len(metrics), len(params)), 100):
            part = slice(number, number + 100)
            client.log_batch(run.info.run_id, metrics[part], params[part])
        client.set_terminated(run.info.run_id, end_time=end)


TRACKERS: dict[str, type[TensorBoard | MLflow]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def _steps(trial: TrackedTrial) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (epoch, values) of the history, and then of the metrics."""
    for epoch, values in trial.history:
        yield epoch, {f"history/{name}": value for name, value in values.items()}
    yield trial.best_epoch, trial.metrics


def _read(store: Store, key: str) -> TrackedTrial:
    arms, datasets, trials = schema.arms.c, schema.datasets.c, schema.trials.c
    query = (
        select(schema.trials, arms.spec, datasets.name, datasets.target)
        .join_from(schema.trials, schema.arms, trials.arm == arms.key)
        .join(schema.datasets, datasets.fingerprint == arms.fingerprint)
        .where(trials.key == key)
    )
    metrics, history = schema.metrics, schema.history
    with store.snapshot() as connection:
        row = connection.execute(query).one()
        scores = connection.execute(select(metrics).where(metrics.c.trial == key)).all()
        steps = select(history).where(history.c.trial == key).order_by(history.c.epoch)
        epochs = [dict(epoch) for epoch in connection.execute(steps).mappings()]
    arm = arm_from_plain(row.spec)
    about: dict[str, Any] = {
        "model": arm.model.name,
        "encoder": arm.encoder.name if arm.encoder else None,
        "n_train": row.n_train,
        "seed": row.seed,
        "precision": arm.precision,
        "tuned": bool(row.study),
    }
    return TrackedTrial(
        key=key,
        label=label_of(TrialSpec(arm, row.n_train, row.seed, row.study)),
        experiment=f"{row.name}, {row.target}",
        params={k: v for k, v in {**about, **row.params}.items() if v is not None},
        metrics={
            **_finite({f"{score.split}/{score.metric}": score.value for score in scores}),
            "seconds": row.seconds or 0.0,
        },
        best_epoch=row.best_epoch or 0,
        history=[
            (
                epoch["epoch"],
                _finite({k: v for k, v in epoch.items() if k not in ("trial", "epoch")}),
            )
            for epoch in epochs
        ],
        finished=row.finished,
    )


def _finite(values: dict[str, float | None]) -> dict[str, float]:
    return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}


def _first_line(error: Exception) -> str:
    lines = without_password(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
