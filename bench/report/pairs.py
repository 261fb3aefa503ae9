"""Pairs of rows, compared by the headline test and flagged with everything that limits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.report.claims import CONDITIONAL, COVERS, SEEN, changed_settings
from bench.report.evidence import Evidence
from bench.report.select import Protocol, Row
from bench.stats.inference import Comparison, compare
from bench.stats.measured import MeasuredRuns, RunPredictions, measure_runs
from bench.stats.metric import Metric


@dataclass(frozen=True)
class Pair:
    """The comparison of row A with row B by one metric at one training size."""

    a: Row
    b: Row
    metric: Metric
    size: int
    found: Comparison | None
    """None if one of them has no finished run."""
    flags: tuple[str, ...]

    @property
    def p(self) -> float:
        """The p-value; NaN if there is no test."""
        return self.found.p if self.found is not None else np.nan


def make_pairs(
    protocol: Protocol,
    evidence: Evidence,
    rows: Sequence[Row],
    metric: Metric,
    size: int,
    reference: Row | None,
) -> list[Pair]:
    """Compare all pairs of rows, or every row with the reference.

    Parameters
    ----------
    rows : sequence of Row
        The earlier row of a pair is A; the reference is always B.
    """
    measured = {row.key: measured_at(protocol, evidence, row, metric, size) for row in rows}
    if reference is None:
        chosen = list(combinations(rows, 2))
    else:
        chosen = [(row, reference) for row in rows if row.key != reference.key]
    pairs = []
    for a, b in chosen:
        one, two = measured[a.key], measured[b.key]
        found = compare(one, two) if one is not None and two is not None else None
        flags = _flags(protocol, a, b, size, found)
        pairs.append(Pair(a, b, metric, size, found, flags))
    return pairs


def n_tested(pairs: Sequence[Pair]) -> int:
    """Return the number of pairs with a p-value, for which Holm's method adjusts."""
    return sum(bool(np.isfinite(pair.p)) for pair in pairs)


def measured_at(
    protocol: Protocol, evidence: Evidence, row: Row, metric: Metric, size: int
) -> MeasuredRuns | None:
    """Return the (cached) measurements of a row at one training size; None without a run."""
    cell = (row.key, size, metric.name)
    if cell not in evidence.measured:
        runs = runs_at(protocol, evidence, row, size)
        found = None if runs is None else measure_runs(metric.name, evidence.truth, runs)
        evidence.measured[cell] = found
    return evidence.measured[cell]


def runs_at(protocol: Protocol, evidence: Evidence, row: Row, size: int) -> RunPredictions | None:
    """Return the test predictions of a row at one training size; None without a finished run."""
    runs = protocol.at(row, size)
    if not runs.keys:
        return None
    predictions, seeds = evidence.stack(runs), runs.seeds
    one_fit = protocol.one_fit(row, size)
    if one_fit:
        predictions, seeds = predictions[:1], seeds[:1]
    # A single run of a deterministic estimator on a random subset does not stand for all subsets.
    fixed = one_fit or (row.deterministic and len(seeds) > 1)
    return RunPredictions(predictions, seeds, fixed)


def paired_values(
    protocol: Protocol, evidence: Evidence, pair: Pair
) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]]:
    """Return the seeds that A and B share, and their scores.

    A single fit is paired with every seed of the other model; two single fits are one pair.
    """
    found = []
    for row in (pair.a, pair.b):
        runs = protocol.at(row, pair.size)
        found.append(dict(zip(runs.seeds, evidence.values(runs, pair.metric.name), strict=True)))
    a, b = found
    if not a or not b:
        return [], np.empty(0), np.empty(0)
    if protocol.one_fit(pair.a, pair.size) and protocol.one_fit(pair.b, pair.size):
        seed = min(a)
        return [seed], np.array([a[seed]]), np.array([next(iter(b.values()))])
    if protocol.one_fit(pair.a, pair.size):
        a = dict.fromkeys(b, next(iter(a.values())))
    if protocol.one_fit(pair.b, pair.size):
        b = dict.fromkeys(a, next(iter(b.values())))
    shared = sorted(set(a) & set(b))
    return shared, np.array([a[seed] for seed in shared]), np.array([b[seed] for seed in shared])


def _flags(
    protocol: Protocol, a: Row, b: Row, size: int, found: Comparison | None
) -> tuple[str, ...]:
    """Return the flags of a pair; the first one says which settings the claim covers."""
    mode = next((row.arm.tune for row in (a, b) if row.arm.tune is not None), None)
    flags = [COVERS[mode]]
    if mode is None and changed_settings((a, b)):
        flags = [f"{COVERS[mode]} except those listed in the notes"]
    if protocol.conditional(size):
        flags.append(CONDITIONAL)
    for letter, row in (("A", a), ("B", b)):
        runs = protocol.at(row, size)
        if runs.failed:
            flags.append(
                f"{letter}: {len(runs.failed)} of {runs.asked} runs failed and are excluded"
            )
        if not runs.keys:
            flags.append(f"{letter}: no finished run")
    for letter, row in (("A", a), ("B", b)):
        if row.arm.encoder is not None and row.arm.encoder.overlap:
            flags.append(f"{letter}: {SEEN}")
    return (*flags, *(found.flags if found is not None else ()))
