"""The comparison of two models on one page: a sentence and all supporting tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.report.claims import captions, changed_words
from bench.report.evidence import Evidence, load_covariates, load_evidence
from bench.report.family import one_named, plan_tests, two_named
from bench.report.methods import methods
from bench.report.pairs import Pair, make_pairs, n_tested, paired_values, runs_at
from bench.report.select import Protocol, Row, select_protocols
from bench.report.table import Cell, Column, Report, Section, Table
from bench.report.tables.efficiency import efficiency_table
from bench.report.tables.leaderboard import best_first, leaderboard
from bench.report.tables.pairs import exploratory_table, primary_table
from bench.report.tables.precision import pair_precision
from bench.report.tables.subgroups import interaction_table
from bench.report.words import NOT_AVAILABLE, digits_of, number, one_line, p_value
from bench.stats.checkpoints import checkpoint_tests
from bench.stats.classical import paired_t, sign_flip, superiority_interval, wilcoxon
from bench.stats.inference import holm
from bench.stats.metrics import metric_of, metrics_for
from bench.stats.power import gain_from_seeds
from bench.store.store import Store
from registry.core import counted
from registry.errors import UserError

LEVEL = 0.05
TESTED_SEED_BY_SEED = ("auc", "accuracy", "mae")
"""Metrics for which there is a test of two trained networks on new subjects."""


def build_comparison(store: Store, a: str, b: str, where: Mapping[str, str]) -> Report:
    """Build the page that compares two models.

    Parameters
    ----------
    store : Store
        Open for reading.
    a, b : str
        Labels of rows, or names of models that have only one row.
    where : mapping
        As for `bench.report.build.build_report`.

    Raises
    ------
    UserError
        If one of them was not run or matches several rows, if both are the same row, or if they
        were not run under the same protocol.
    """
    selection = select_protocols(store, where)
    known = [p for p in selection.protocols if _has(p, a) and _has(p, b)]
    if not known:
        rows = [row for protocol in selection.protocols for row in protocol.rows]
        for name in (a, b):
            one_named(name, rows, "bench compare")
        raise UserError(
            f"{a} and {b} were not run under the same protocol, so they cannot be compared; run "
            "both with the same command."
        )
    sections = []
    for protocol in known:
        sections.append(_section(store, protocol, *two_named(a, b, protocol.rows, "bench compare")))
    return Report(
        title=f"slicebench: {one_line(a)} and {one_line(b)}, {one_line(store.name)}",
        sections=tuple(sections),
    )


def sentence(pair: Pair, adjusted: float | None, n_family: int, protocol: Protocol) -> str:
    """Return the result of the comparison in one sentence.

    Parameters
    ----------
    pair : Pair
    adjusted : float or None
        Its p-value adjusted by Holm's method over the primary family; None if the pair is not in
        the family, in which case the test is exploratory.
    n_family : int
        Number of pairs of the family with a p-value.
    protocol : Protocol
        The protocol under which both were run.
    """
    a, b, metric, found = pair.a.label, pair.b.label, pair.metric, pair.found
    at = f"at n={protocol.size_label(pair.size)}"
    if found is None or not np.isfinite(found.p):
        return f"Nothing can be concluded about {a} and {b} {at}: {'; '.join(pair.flags)}."
    digits = digits_of(metric)
    unit = f"{metric.unit} {metric.label}" if metric.unit else metric.label
    low, high = found.improvement_interval
    gap, favour = found.improvement, ""
    if low > 0 or high < 0:
        first, second = (a, b) if low > 0 else (b, a)
        if high < 0:
            low, high, gap = -high, -low, -gap
        certain = adjusted is not None and adjusted < LEVEL
        said = (
            f"{first} {'outperforms' if certain else 'is nominally better than'} {second} {at} by"
        )
    else:
        favour = f" in favour of {a if gap > 0 else b}" if gap else ""
        if gap < 0:
            low, high, gap = -high, -low, -gap
        said = f"No significant difference between {a} and {b} {at}:"
    if adjusted is None:
        p = f"p {_is(found.p)}, exploratory"
    else:
        p = f"Holm p {_is(adjusted)} over {counted(n_family, 'pair')}"
    interval = f"95 % CI {number(low, digits)} to {number(high, digits)}"
    parts = [f"{interval}, {p}", f"{_runs(pair)} x {found.n_subjects} subjects"]
    # If the subject component is estimated as zero, the gain from more seeds cannot be stated.
    if found.paired and found.c > 0:
        share = f"{100 * gain_from_seeds(found):.0f} %"
        parts.append(f"more seeds could narrow the interval by at most {share}")
    return f"{said} {number(gap, digits)} {unit}{favour} ({'; '.join(parts)})."


# ---------------------------------------------------------------------------- the page


def _section(store: Store, protocol: Protocol, a: Row, b: Row) -> Section:
    evidence = load_evidence(store, protocol)
    primary = metric_of(protocol.primary_metric)
    size = protocol.primary_size
    rows = best_first(protocol, evidence, primary)
    test_plan = plan_tests(protocol, rows, None)
    (pair,) = make_pairs(protocol, evidence, (a, b), primary, size, None)
    family = make_pairs(protocol, evidence, rows, primary, size, test_plan.reference)
    adjusted = _adjusted(pair, family) if test_plan.confirmatory else None
    others = [
        each
        for name in metrics_for(protocol.kind, protocol.n_classes)
        if metric_of(name).tested
        for n in protocol.sizes
        if (name, n) != (primary.name, size)
        for each in make_pairs(protocol, evidence, (a, b), metric_of(name), n, None)
    ]
    covariates = load_covariates(store, protocol, evidence)
    if adjusted is None:
        tests = [exploratory_table(protocol, test_plan, [pair, *others], "", named=False)]
    else:
        tests = [
            primary_table(protocol, test_plan, [pair], np.array([adjusted]), ""),
            *([exploratory_table(protocol, test_plan, others, "", named=False)] if others else []),
        ]
    tables = [
        leaderboard(protocol, evidence, (a, b), primary, "values"),
        *tests,
        pair_precision(pair, "precision"),
        _seed_values(protocol, evidence, pair),
        _beside(protocol, evidence, pair),
        efficiency_table(protocol, evidence, primary, [pair], "efficiency"),
        interaction_table(protocol, evidence, covariates, (a, b), primary, "interactions"),
    ]
    return Section(
        title=f"{a.label} and {b.label}, {protocol.name}",
        tables=tuple(table for table in tables if table is not None),
        caption=(
            sentence(pair, adjusted, n_tested(family), protocol),
            *captions(protocol, evidence, [primary]),
        ),
        notes=(*test_plan.notes, *changed_words(protocol)),
        methods=tuple(methods(protocol, test_plan, family)),
    )


def _adjusted(pair: Pair, family: Sequence[Pair]) -> float | None:
    """Return the pair's p-value adjusted over the whole family; None if it is not in it."""
    wanted = {pair.a.key, pair.b.key}
    place = [i for i, each in enumerate(family) if {each.a.key, each.b.key} == wanted]
    return float(holm([each.p for each in family])[place[0]]) if place else None


def _seed_values(protocol: Protocol, evidence: Evidence, pair: Pair) -> Table | None:
    seeds, first, second = paired_values(protocol, evidence, pair)
    if not seeds:
        return None
    digits = digits_of(pair.metric)
    sign = 1.0 if pair.metric.higher_is_better else -1.0
    stacks = [_stack(protocol, evidence, row, pair.size, seeds) for row in (pair.a, pair.b)]
    tests = {}
    if pair.metric.name in TESTED_SEED_BY_SEED:
        tests = checkpoint_tests(pair.metric.name, evidence.truth, stacks[0], stacks[1], seeds)
    rows = []
    for seed, one, two in zip(seeds, first, second, strict=True):
        cells = [Cell(str(seed), {"value": seed})]
        cells += [Cell(number(v, digits), {"value": v}) for v in (one, two, sign * (one - two))]
        if tests:
            p = tests[seed].p
            cells.append(Cell(p_value(p), {"value": p, "reason": tests[seed].note}))
        rows.append(tuple(cells))
    test = next(iter(tests.values()), None)
    return Table(
        name="seeds",
        title=f"Seed by seed at n={protocol.size_label(pair.size)}, {pair.metric.label}",
        columns=(
            Column("seed", "seed", numeric=True),
            Column("a", "A", numeric=True),
            Column("b", "B", numeric=True),
            Column("difference", "A - B", numeric=True),
            *([Column("p", f"{test.name} p", numeric=True)] if test else []),
        ),
        rows=tuple(rows),
        notes=(
            "p: for new subjects and these two trained networks only; one p-value per seed, "
            "neither adjusted nor combined.",
        )
        if test
        else (),
    )


def _beside(protocol: Protocol, evidence: Evidence, pair: Pair) -> Table | None:
    seeds, first, second = paired_values(protocol, evidence, pair)
    if len(seeds) < 2:
        return None
    tests = [test(first, second) for test in (paired_t, sign_flip, wilcoxon)]
    notes = [
        "These tests vary only the seeds and take the test set as fixed, so no claim about "
        "models is based on them. The p-values are not adjusted."
    ]
    share = pair.found.p_superior if pair.found is not None else np.nan
    if np.isfinite(share):
        low, high = superiority_interval(share, len(seeds))
        notes.append(
            f"A is better in a proportion of {number(share, 2)} of the "
            f"{counted(len(seeds), 'pair')} of runs (95 % CI {number(low, 2)} to "
            f"{number(high, 2)}, on this test set)."
        )
    return Table(
        name="beside",
        title="Tests over seeds alone",
        columns=(
            Column("test", "test"),
            Column("n", "seeds", numeric=True),
            Column("p", "p", numeric=True),
            Column("floor", "smallest possible p", numeric=True),
            Column("note", "note"),
        ),
        rows=tuple(
            (
                Cell(test.name),
                Cell(str(test.n), {"value": test.n}),
                Cell(p_value(test.p), {"value": test.p}),
                Cell(p_value(test.floor) if test.floor else "0", {"value": test.floor}),
                Cell(
                    test.note or ("" if test.can_reject() else "cannot be significant with this n")
                ),
            )
            for test in tests
        ),
        notes=tuple(notes),
    )


def _stack(
    protocol: Protocol, evidence: Evidence, row: Row, size: int, seeds: Sequence[int]
) -> NDArray[np.float64]:
    """Return a row's test predictions for these seeds; a single fit is repeated for each seed."""
    runs = runs_at(protocol, evidence, row, size)
    assert runs is not None
    if protocol.one_fit(row, size):
        return runs.predictions[[0] * len(seeds)]
    return runs.predictions[[runs.seeds.index(seed) for seed in seeds]]


def _runs(pair: Pair) -> str:
    """Return how many runs were compared with how many."""
    found = pair.found
    assert found is not None
    if found.one_fit_a and found.one_fit_b:
        return "a single fit each"
    if found.one_fit_a or found.one_fit_b:
        fit, other = (pair.a, pair.b) if found.one_fit_a else (pair.b, pair.a)
        return f"a single fit of {fit.label} and {counted(found.n_seeds, 'seed')} of {other.label}"
    if found.paired:
        return counted(found.n_seeds, "shared seed" if found.dropped else "seed")
    a, b = (counted(n, "seed") for n in (found.n_seeds_a, found.n_seeds_b))
    return f"{a} of {pair.a.label} and {b} of {pair.b.label}, unpaired,"


def _is(p: float) -> str:
    words = p_value(p)
    return words if words.startswith("<") or words == NOT_AVAILABLE else f"= {words}"


def _has(protocol: Protocol, name: str) -> bool:
    return any(name in (row.label, row.arm.model.name) for row in protocol.rows)
