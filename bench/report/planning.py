"""Plan the number of seeds and test subjects from the variances of stored runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite

import numpy as np

from bench.report.evidence import load_evidence
from bench.report.family import plan_tests, two_named
from bench.report.pairs import Pair, make_pairs
from bench.report.select import Protocol, select_protocols
from bench.report.table import Cell, Column, Number, Report, Section, Table
from bench.report.tables.leaderboard import best_first
from bench.report.tables.pairs import pair_cell
from bench.report.tables.precision import FACTORS, SEEDS, grid
from bench.report.words import digits_of, number, one_line
from bench.stats.metrics import metric_of
from bench.stats.power import (
    Components,
    components_of,
    power,
    required_seeds,
    required_subjects,
    smallest_d_z,
    smallest_detectable,
)
from bench.store.store import Store
from registry.errors import UserError


def build_planning(
    store: Store,
    models: Sequence[str],
    where: Mapping[str, str],
    *,
    difference: float | None,
    wanted: float,
) -> Report:
    """Build the tables of detectable differences for other numbers of seeds and test subjects.

    Parameters
    ----------
    store : Store
        Open for reading.
    models : sequence of str
        Two rows; empty for all pairs of the primary family.
    where : mapping
        As for `bench.report.build.build_report`.
    difference : float, optional
        A true difference in the primary metric, in its units.
    wanted : float
        The requested power, between .05 and 1.

    Raises
    ------
    UserError
        If a model was not run, or a number is out of range.
    """
    if len(models) not in (0, 2):
        raise UserError("Give two models (`bench power A B`), or none for the whole family.")
    if difference is not None and not 0 < difference < np.inf:
        raise UserError(
            f"--difference must be a positive number in units of the metric, got {difference}."
        )
    if not 0.05 < wanted < 1:
        raise UserError(f"--power must be between 0.05 and 1, got {wanted}.")
    selection = select_protocols(store, where)
    return Report(
        title=f"slicebench: power, {one_line(store.name)}",
        sections=tuple(
            _section(store, protocol, models, difference, wanted)
            for protocol in selection.protocols
        ),
    )


def _section(
    store: Store,
    protocol: Protocol,
    models: Sequence[str],
    difference: float | None,
    wanted: float,
) -> Section:
    evidence = load_evidence(store, protocol)
    metric = metric_of(protocol.primary_metric)
    rows = best_first(protocol, evidence, metric)
    size = protocol.primary_size
    reference = plan_tests(protocol, rows, None).reference
    if models:
        rows = list(two_named(models[0], models[1], protocol.rows, "bench power"))
        reference = None
    pairs = make_pairs(protocol, evidence, rows, metric, size, reference)
    digits = digits_of(metric)
    make_table: Callable[..., Table] = _grid if models else _table
    tables = [
        make_table(
            pairs,
            "detectable",
            f"Smallest difference in {metric.title} detected with a power of {wanted:g}",
            lambda parts, seeds, subjects: smallest_detectable(parts, seeds, subjects, wanted),
            digits + 1,
        )
    ]
    if difference is not None:
        tables.append(
            make_table(
                pairs,
                "power",
                f"Power for a true difference of {difference:g} in {metric.title}",
                lambda parts, seeds, subjects: power(difference, parts, seeds, subjects),
                2,
            )
        )
        tables.append(_required(pairs, difference, wanted))
    return Section(
        title=protocol.name,
        tables=tuple(tables),
        caption=(
            f"For the two-sided headline test of a single pair at .05, at n="
            f"{protocol.size_label(size)}; S: number of seeds; N: the {evidence.n_subjects} "
            "present test subjects.",
            "The variances are estimated from the stored runs and are uncertain if these are few. "
            "Choose a difference that would matter in practice: the power for the observed "
            "difference only restates its p-value.",
        ),
        notes=(
            "For the paired t test over seeds alone, which takes the test set as fixed, the "
            f"smallest standardised difference d_z detected with a power of {wanted:g} is "
            + ", ".join(f"{smallest_d_z(n, wanted):.2f} with {n} seeds" for n in SEEDS)
            + ".",
        ),
    )


def _table(
    pairs: Sequence[Pair],
    name: str,
    title: str,
    of: Callable[[Components, int, int], float],
    digits: int,
) -> Table:
    rows = []
    for pair in pairs:
        parts = _components(pair)
        cells = [pair_cell(pair)]
        for seeds in SEEDS:
            for factor in FACTORS:
                if isinstance(parts, str) or pair.found is None:
                    cells.append(Cell("n/a", {"value": np.nan, "reason": str(parts)}))
                    continue
                value = of(parts, seeds, factor * pair.found.n_subjects)
                cells.append(Cell(number(value, digits), {"value": value}))
        rows.append(tuple(cells))
    return Table(
        name=name,
        title=title,
        columns=(
            Column("pair", "A vs B"),
            *(
                Column(f"s{seeds}x{factor}", f"S={seeds}, N x {factor}", numeric=True)
                for seeds in SEEDS
                for factor in FACTORS
            ),
        ),
        rows=tuple(rows),
    )


def _grid(
    pairs: Sequence[Pair],
    name: str,
    title: str,
    of: Callable[[Components, int, int], float],
    digits: int,
) -> Table:
    """Return the table of one pair."""
    (pair,) = pairs
    parts, found = _components(pair), pair.found
    if isinstance(parts, str) or found is None:
        return grid(name, title, lambda *_: np.nan, digits, [f"n/a: {parts}."])
    return grid(name, title, lambda s, factor: of(parts, s, factor * found.n_subjects), digits)


def _required(pairs: Sequence[Pair], difference: float, wanted: float) -> Table:
    rows = []
    for pair in pairs:
        parts = _components(pair)
        found = pair.found
        if isinstance(parts, str) or found is None:
            nothing: dict[str, Number] = {"value": np.nan, "reason": str(parts)}
            rows.append((pair_cell(pair), Cell("n/a", nothing), Cell("n/a", nothing)))
            continue
        seeds = required_seeds(difference, parts, found.n_subjects, wanted)
        subjects = required_subjects(difference, parts, found.n_seeds, wanted)
        rows.append((pair_cell(pair), _least(seeds), _least(subjects)))
    return Table(
        name="required",
        title=f"Numbers required to detect {difference:g} with a power of {wanted:g}",
        columns=(
            Column("pair", "A vs B"),
            Column("seeds", "seeds, with these test subjects", numeric=True),
            Column("subjects", "test subjects, with these seeds", numeric=True),
        ),
        rows=tuple(rows),
        notes=("none: no number is sufficient, because the other number limits the power.",),
    )


def _least(n: int | None) -> Cell:
    return Cell("none", {"value": None}) if n is None else Cell(str(n), {"value": n})


def _components(pair: Pair) -> Components | str:
    """Return the variance components of a pair, or why they are unknown."""
    if pair.found is None or not isfinite(pair.found.se):
        return "; ".join(pair.flags)
    try:
        return components_of(pair.found)
    except ValueError as refused:
        return str(refused)
