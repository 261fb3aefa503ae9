"""Subgroups by sex, site and age band, and tests of interactions with these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.report.evidence import Evidence
from bench.report.pairs import runs_at
from bench.report.select import Protocol, Row
from bench.report.table import Cell, Column, Number, Table
from bench.report.words import digits_of, interval, number, one_line, p_value
from bench.stats.inference import benjamini_hochberg
from bench.stats.metric import Metric
from bench.stats.subgroups import (
    age_bands,
    interactions,
    levels_of,
    masks_of,
    measure_levels,
    subgroup_table,
)


def groupings(covariates: Mapping[str, Sequence[Any]]) -> dict[str, tuple[str, ...]]:
    """Return the level of every test subject by covariate, for covariates with several levels."""
    found = {
        name: age_bands(values) if name == "age" else tuple(map(one_line, levels_of(values)))
        for name, values in covariates.items()
    }
    return {name: levels for name, levels in found.items() if len(set(levels)) > 1}


def subgroups(
    protocol: Protocol,
    evidence: Evidence,
    covariates: Mapping[str, Sequence[Any]],
    rows: Sequence[Row],
    metric: Metric,
    name: str,
) -> Table | None:
    """Return means over seeds by row and level at the primary size; None without levels."""
    size = protocol.primary_size
    levels = groupings(covariates)
    counts = [
        (covariate, level, int(mask.sum()))
        for covariate, of_subject in levels.items()
        for level, mask in masks_of(of_subject).items()
    ]
    if not counts or not metric.tested:
        return None
    lines = []
    for row in rows:
        runs = runs_at(protocol, evidence, row, size)
        cells = [Cell(row.label)]
        for of_subject in levels.values():
            if runs is None:
                cells += [Cell("n/a", {"value": np.nan}) for _ in set(of_subject)]
                continue
            for group in subgroup_table(
                measure_levels(metric.name, evidence.truth, runs, of_subject)
            ):
                mean = group.over_seeds.mean
                values: dict[str, Number] = {
                    "value": mean,
                    "n": group.n_subjects,
                    "reason": group.reason,
                }
                cells.append(Cell(number(mean, digits_of(metric)), values))
        lines.append(tuple(cells))
    return Table(
        name=name,
        title=f"Subgroups: {metric.label} at n={protocol.size_label(size)}, {protocol.name}",
        columns=(
            Column("arm", "model"),
            *(Column(f"{c}-{level}", f"{c} {level} ({n})", numeric=True) for c, level, n in counts),
        ),
        rows=tuple(lines),
        notes=(
            "Means across seeds for the test subjects of each level (number of subjects in "
            "parentheses). A difference between levels is not a difference between models: "
            "`bench compare A B` tests whether the difference between two models depends on the "
            "level.",
        ),
    )


def interaction_table(
    protocol: Protocol,
    evidence: Evidence,
    covariates: Mapping[str, Sequence[Any]],
    pair: tuple[Row, Row],
    metric: Metric,
    name: str,
) -> Table | None:
    """Return tests of whether A - B depends on sex, site or age; None if there are none."""
    size = protocol.primary_size
    arms = [runs_at(protocol, evidence, row, size) for row in pair]
    if arms[0] is None or arms[1] is None:
        return None
    found = [
        (covariate, each)
        for covariate, levels in groupings(covariates).items()
        for each in interactions(metric.name, evidence.truth, (arms[0], arms[1]), levels)
    ]
    if not found:
        return None
    adjusted = benjamini_hochberg([each.comparison.p for _, each in found])
    digits = digits_of(metric)
    lines = []
    for (covariate, each), p in zip(found, adjusted, strict=True):
        test = each.comparison
        low, high = test.improvement_interval
        lines.append(
            (
                Cell(f"{covariate} {each.level} against {each.against}"),
                Cell(number(test.improvement, digits), {"value": test.improvement}),
                Cell(interval(low, high, digits), {"low": low, "high": high}),
                Cell(p_value(test.p), {"value": test.p}),
                Cell(p_value(float(p)), {"value": float(p)}),
                Cell(str(test.n_smallest), {"value": test.n_smallest}),
            )
        )
    return Table(
        name=name,
        title=f"Interactions: does A - B in {metric.label} depend on the subject?",
        columns=(
            Column("levels", "levels"),
            Column("difference", "A - B, first minus second", numeric=True),
            Column("ci", "95 % CI", numeric=True),
            Column("p", "p", numeric=True),
            Column("p_bh", "BH p", numeric=True),
            Column("n_smallest", "smallest group", numeric=True),
        ),
        rows=tuple(lines),
        notes=("Exploratory: the headline test of the difference of differences.",),
    )
