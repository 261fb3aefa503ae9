"""Scores and test predictions of the runs of one protocol, from which tables are computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from bench.report.select import Protocol, Runs
from bench.stats.measured import MeasuredRuns
from bench.stats.metrics import compute
from bench.store import schema
from bench.store.store import Predictions, Store
from registry.errors import UserError


@dataclass(frozen=True)
class Evidence:
    """Scores and predictions on the test set.

    Parameters
    ----------
    subjects : ndarray, shape (n_subjects,)
        Indices of the test subjects in the manifest.
    truth : ndarray, shape (n_subjects,)
        Age in years, or the index of the class.
    predictions : dict
        Trial key to an array (n_subjects,) or, with more than two classes, (n_subjects,
        n_classes), with subjects in the order of `truth`.
    scores : dict
        (trial key, metric) to the stored value, NaN if it is undefined.
    reasons : dict
        Metric to the reason why it is undefined for some run.
    metrics : tuple of str
        The stored metrics in alphabetical order.
    """

    subjects: NDArray[np.int32]
    truth: NDArray[np.float64]
    predictions: dict[str, NDArray[np.float64]]
    scores: dict[tuple[str, str], float]
    reasons: dict[str, str]
    metrics: tuple[str, ...]
    measured: dict[tuple[str, int, str], MeasuredRuns | None] = field(
        default_factory=dict, repr=False
    )
    """Cache of `bench.report.pairs.measured_at`, by arm, training size and metric."""

    @property
    def n_subjects(self) -> int:
        """The number of test subjects."""
        return len(self.truth)

    def values(self, runs: Runs, metric: str) -> NDArray[np.float64]:
        """Return the scores of the finished runs, in the order of their seeds, shape (S,).

        A metric that was added after a run was stored is computed from its predictions.
        """
        for key in runs.keys:
            if (key, metric) not in self.scores:
                score = compute(metric, self.truth, self.predictions[key])
                self.scores[key, metric] = score.value
                if score.reason:
                    self.reasons[metric] = score.reason
        return np.array([self.scores[key, metric] for key in runs.keys])

    def stack(self, runs: Runs) -> NDArray[np.float64]:
        """Return the predictions of the finished runs, shape (S, n_subjects[, n_classes])."""
        return np.stack([self.predictions[key] for key in runs.keys])


def load_evidence(store: Store, protocol: Protocol) -> Evidence:
    """Read the scores and test predictions of a protocol.

    Raises
    ------
    UserError
        If runs were tested on different subjects, so that they cannot be compared.
    """
    wanted = {key for runs in protocol.runs.values() for key in runs.keys}
    predictions = store.predictions(wanted, "test")
    subjects = _one_test_set(store, predictions.values())
    truth = _truth(store, str(protocol.dataset["fingerprint"]), subjects)
    table = schema.metrics.c
    scores: dict[tuple[str, str], float] = {}
    reasons: dict[str, str] = {}
    query = select(table.trial, table.metric, table.value, table.reason)
    with store.engine.connect() as connection:
        for key, metric, value, reason in connection.execute(query.where(table.split == "test")):
            if key in wanted:
                scores[key, metric] = np.nan if value is None else value
                if reason:
                    reasons[metric] = reason
    return Evidence(
        subjects=subjects,
        truth=truth,
        predictions={
            key: found.values[:, 0] if found.values.shape[1] == 1 else found.values
            for key, found in predictions.items()
        },
        scores=scores,
        reasons=reasons,
        metrics=tuple(sorted({metric for _, metric in scores})),
    )


def load_validation(
    store: Store, protocol: Protocol, runs: Runs
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return (truth, predictions) of every finished run on its validation subjects.

    Validation subjects differ between seeds and training sizes. The arrays of a run without
    stored validation predictions are empty.
    """
    found = store.predictions(runs.keys, "validation")
    sides = {key: (np.empty(0), np.empty(0)) for key in runs.keys}
    if found:
        subjects = [each.subjects for each in found.values()]
        # The subjects of the runs overlap, so the true values are read once for all of them.
        truth = _truth(store, str(protocol.dataset["fingerprint"]), np.concatenate(subjects))
        parts = np.split(truth, np.cumsum([len(each) for each in subjects])[:-1])
        for (key, each), part in zip(found.items(), parts, strict=True):
            values = each.values
            sides[key] = (part, values[:, 0] if values.shape[1] == 1 else values)
    return [sides[key] for key in runs.keys]


def load_covariates(store: Store, protocol: Protocol, evidence: Evidence) -> dict[str, list[Any]]:
    """Return age, sex and site of the test subjects, in their order; None if unknown."""
    table = schema.subjects.c
    query = select(table.subject, table.age, table.sex, table.site).where(
        table.fingerprint == str(protocol.dataset["fingerprint"])
    )
    with store.engine.connect() as connection:
        rows = {row.subject: row for row in connection.execute(query)}
    chosen = [rows[subject] for subject in evidence.subjects.tolist()]
    return {name: [getattr(row, name) for row in chosen] for name in ("sex", "age", "site")}


def _one_test_set(store: Store, found: Iterable[Predictions]) -> NDArray[np.int32]:
    subjects: NDArray[np.int32] | None = None
    for prediction in found:
        if subjects is None:
            subjects = prediction.subjects
        elif not np.array_equal(subjects, prediction.subjects):
            raise UserError(
                f"Runs of one cohort in {store.database} were tested on different subjects, so "
                "they cannot be compared. The database must have been edited; restore it from a "
                "backup."
            )
    return np.array([], np.int32) if subjects is None else subjects


def _truth(store: Store, fingerprint: str, subjects: NDArray[np.int32]) -> NDArray[np.float64]:
    table = schema.subjects.c
    query = select(table.subject, table.truth).where(table.fingerprint == fingerprint)
    with store.engine.connect() as connection:
        truth = {row.subject: row.truth for row in connection.execute(query)}
    lost = [subject for subject in subjects.tolist() if subject not in truth]
    if lost:
        raise UserError(
            f"{store.database} does not contain the true values of {len(lost)} test subjects "
            "(perhaps because it was exported without them), so models cannot be compared; use "
            "the original database."
        )
    return np.array([truth[subject] for subject in subjects.tolist()], dtype=np.float64)
