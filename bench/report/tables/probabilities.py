"""Calibration and operating points of the predicted probabilities of two classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.report.evidence import Evidence, load_validation
from bench.report.select import Protocol, Row
from bench.report.table import Cell, Column, Table
from bench.report.words import number
from bench.stats.calibration import calibration_line
from bench.stats.operating import choose_threshold, operating_point
from bench.store.store import Store


def calibration_table(
    protocol: Protocol, evidence: Evidence, rows: Sequence[Row], name: str
) -> Table | None:
    """Return the calibration at the primary size as means over seeds; None unless binary.

    If a run is undefined, so is the mean.
    """
    if protocol.n_classes != 2 or not evidence.n_subjects:
        return None
    size = protocol.primary_size
    return Table(
        name=name,
        title=f"Calibration at n={protocol.size_label(size)}, {protocol.name}",
        columns=(
            Column("arm", "model"),
            Column("brier", "Brier score", numeric=True),
            Column("ece", "ECE", numeric=True),
            Column("slope", "calibration slope", numeric=True),
            Column("in_the_large", "calibration in the large", numeric=True),
        ),
        rows=tuple((Cell(row.label), *_calibration(protocol, evidence, row, size)) for row in rows),
        notes=(
            "Means across seeds. ECE: expected calibration error with 15 bins of equal width. "
            "Well-calibrated probabilities have a slope of 1 and a calibration in the large of "
            "0; a slope below 1 means that they are too extreme.",
        ),
    )


def operating_table(
    store: Store, protocol: Protocol, evidence: Evidence, rows: Sequence[Row], name: str
) -> Table | None:
    """Return every run at the threshold chosen on its validation subjects; None unless binary."""
    if protocol.n_classes != 2 or not evidence.n_subjects:
        return None
    size = protocol.primary_size
    lines = []
    for row in rows:
        runs = protocol.at(row, size)
        sides = load_validation(store, protocol, runs)
        for seed, key, (truth, scores) in zip(runs.seeds, runs.keys, sides, strict=True):
            lines.append(
                (
                    Cell(row.label),
                    Cell(str(seed), {"value": seed}),
                    *_point(truth, scores, evidence.truth, evidence.predictions[key]),
                )
            )
    return Table(
        name=name,
        title=f"Operating points at n={protocol.size_label(size)}, {protocol.name}",
        columns=(
            Column("arm", "model"),
            Column("seed", "seed", numeric=True),
            Column("threshold", "threshold", numeric=True),
            Column("sensitivity", "sensitivity", numeric=True),
            Column("specificity", "specificity", numeric=True),
            Column("ppv", "PPV", numeric=True),
            Column("npv", "NPV", numeric=True),
        ),
        rows=tuple(lines),
        notes=(
            "Threshold: maximises the sum of sensitivity and specificity on the validation "
            "subjects of the same run; 95 % Wilson intervals over test subjects. PPV and NPV "
            "apply to populations with the class frequencies of this test set.",
        ),
        lead=2,
    )


def _calibration(protocol: Protocol, evidence: Evidence, row: Row, size: int) -> list[Cell]:
    runs = protocol.at(row, size)
    if not runs.keys:
        return [Cell("n/a", {"value": np.nan}) for _ in range(4)]
    lines = [calibration_line(evidence.truth, p) for p in evidence.stack(runs)]
    reason = "; ".join(dict.fromkeys(line.reason for line in lines if line.reason))
    means = (
        (float(np.mean(evidence.values(runs, "brier"))), ""),
        (float(np.mean(evidence.values(runs, "ece"))), ""),
        (float(np.mean([line.slope.value for line in lines])), reason),
        (float(np.mean([line.in_the_large.value for line in lines])), reason),
    )
    return [Cell(number(mean, 3), {"value": mean, "reason": why}) for mean, why in means]


def _point(
    truth: np.ndarray, scores: np.ndarray, test: np.ndarray, predictions: np.ndarray
) -> list[Cell]:
    chosen = choose_threshold(truth, scores) if len(truth) else None
    if chosen is None or chosen.reason:
        reason = chosen.reason if chosen else "no stored predictions of the validation subjects"
        return [Cell("n/a", {"value": np.nan, "reason": reason}) for _ in range(5)]
    point = operating_point(test, predictions, chosen.value)
    cells = [Cell(number(chosen.value, 3), {"value": chosen.value})]
    for share in (point.sensitivity, point.specificity, point.ppv, point.npv):
        text = f"{number(share.value, 3)} [{number(share.low, 3)}, {number(share.high, 3)}]"
        cells.append(
            Cell(
                "n/a" if share.reason else text,
                {"value": share.value, "low": share.low, "high": share.high},
            )
        )
    return cells
