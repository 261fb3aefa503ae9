"""What a figure is made of: one protocol of a store, the rows to show, a metric and a size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.report.evidence import Evidence, load_evidence
from bench.report.family import TestPlan, named, plan_tests
from bench.report.pairs import Pair, make_pairs, runs_at
from bench.report.select import Protocol, Row, select_protocols
from bench.report.table import Number
from bench.report.tables.leaderboard import best_first, score_cell
from bench.report.words import count, digits_of, interval, number
from bench.stats.inference import benjamini_hochberg, holm
from bench.stats.metric import Floats, Metric
from bench.stats.metrics import metric_of, metrics_for
from bench.store.store import Store
from registry.core import did_you_mean
from registry.errors import UserError


@dataclass(frozen=True)
class FigureRequest:
    """What a figure is asked to show; None and nothing leave it to the rules of the report."""

    metric: str | None = None
    size: int | None = None
    models: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MeanScore:
    """A mean over seeds with its t interval, as the report prints it."""

    mean: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class AdjustedPairs:
    """Pairs with their adjusted p-values, and how these were adjusted in words."""

    pairs: tuple[Pair, ...]
    p: tuple[float, ...]
    how: str


@dataclass(frozen=True)
class Source:
    """One protocol, and what of it a figure shows.

    Parameters
    ----------
    store : Store
        Open for reading.
    protocol, evidence
        As the report has them.
    everyone : tuple of Row
        All rows of the protocol in the order of the report: best first.
    rows : tuple of Row
        Those to show, in that order or that of the request.
    metric : Metric
    size : int
        The training size.
    chosen : bool
        Whether the reader named the rows.
    reference : str or None
        What the reader of the report wants all others compared with.
    max_points : int or None
        How many points a figure may have; None for all of them.
    """

    store: Store
    protocol: Protocol
    evidence: Evidence
    everyone: tuple[Row, ...]
    rows: tuple[Row, ...]
    metric: Metric
    size: int
    chosen: bool = False
    reference: str | None = None
    max_points: int | None = None

    @property
    def title(self) -> str:
        """Cohort, target and training size."""
        return f"{self.protocol.name}, {self.size_words(self.size)}"

    @property
    def axis(self) -> str:
        """The metric with its unit."""
        return self.metric.title

    @property
    def digits(self) -> int:
        """The decimals of the metric."""
        return digits_of(self.metric)

    @property
    def finished(self) -> tuple[Row, ...]:
        """The rows that have a finished run at this size."""
        return tuple(row for row in self.rows if self.protocol.at(row, self.size).keys)

    @property
    def primary(self) -> bool:
        """Whether metric and size are those of the primary family."""
        return (self.metric.name, self.size) == (
            self.protocol.primary_metric,
            self.protocol.primary_size,
        )

    @cached_property
    def test_plan(self) -> TestPlan:
        """The reference and the margin, as the report has them."""
        return plan_tests(self.protocol, self.everyone, self.reference)

    def size_words(self, size: int) -> str:
        """Return ``n=48``, with the dagger of the report where the training set hardly varies."""
        dagger = " †" if self.protocol.conditional(size) else ""
        return f"n={self.protocol.size_label(size)}{dagger}"

    def style_index(self, row: Row) -> int:
        """Return the number of a row's colour and marker: the same in every figure of a report."""
        return [each.key for each in self.protocol.rows].index(row.key)

    def score(self, row: Row, size: int | None = None) -> MeanScore:
        """Return a row's mean at a size, NaN where the report has none."""
        size = self.size if size is None else size
        cell = score_cell(self.protocol, self.evidence, row, size, self.metric)
        mean, low, high = (as_float(cell.values[name]) for name in ("mean", "low", "high"))
        text = f"{number(mean, self.digits)} {interval(low, high, self.digits)}"
        return MeanScore(mean, low, high, text)

    def predictions(self, row: Row) -> Floats:
        """Return the test predictions of a row's finished runs, one where all seeds are one fit."""
        runs = runs_at(self.protocol, self.evidence, row, self.size)
        if runs is None:
            raise ValueError(f"{row.label} has no finished run at n={self.size}")
        return runs.predictions

    def trouble(self, row: Row, sizes: Sequence[int]) -> str:
        """Return how many of a row's runs failed, in words, or nothing."""
        runs = [self.protocol.at(row, size) for size in sizes]
        failed = sum(len(each.failed) for each in runs)
        return f" ({failed} of {count(sum(r.asked for r in runs), 'run')} failed)" if failed else ""

    def family(self) -> AdjustedPairs:
        """Return the pairs of the report's family at this metric and size that are to be shown.

        Their p-values are adjusted within the whole family. Where the rows that were asked for
        have no pair in it, all their pairs are compared instead, which is exploratory.
        """
        whole = self._tested(self.everyone, self.test_plan.reference)
        return whole if whole.pairs else self._tested(self.rows, None)

    def all_pairs(self) -> AdjustedPairs:
        """Return all pairs of the rows that are to be shown."""
        return self._tested(self.everyone, None)

    def _tested(self, rows: Sequence[Row], reference: Row | None) -> AdjustedPairs:
        """Compare rows, and keep the pairs that are to be shown."""
        if not self.metric.tested:
            raise UserError(
                f"--metric {self.metric.name} is shown but never tested; choose another metric."
            )
        pairs = make_pairs(self.protocol, self.evidence, rows, self.metric, self.size, reference)
        everyone = len(rows) == len(self.everyone)
        planned = reference is self.test_plan.reference and everyone
        confirmatory = self.primary and planned and self.test_plan.confirmatory
        raw = [pair.p for pair in pairs]
        p = holm(raw) if confirmatory else benjamini_hochberg(raw)
        how = "Holm p" if confirmatory else "exploratory BH p"
        keys = {row.key for row in self.rows}
        shown = [i for i, pair in enumerate(pairs) if {pair.a.key, pair.b.key} <= keys]
        return AdjustedPairs(tuple(pairs[i] for i in shown), tuple(float(p[i]) for i in shown), how)


def as_float(value: Number) -> float:
    """Return a number of a cell; what is not there is NaN."""
    return np.nan if value is None else float(value)


def load_source(
    store: Store, kind: str, tasks: Sequence[str], request: FigureRequest, *, several: bool = False
) -> Source:
    """Find what a figure shows.

    Parameters
    ----------
    store : Store
        Open for reading.
    kind : str
        The figure, for messages.
    tasks : sequence of str
        The tasks that it can show.
    request : FigureRequest
    several : bool
        Whether the figure is of several cohorts: then any of them may stand for the others.

    Raises
    ------
    UserError
        When the request fits nothing, or more than one protocol unless `several`.
    """
    fitting = _fitting(store, kind, tasks, request.where)
    if len(fitting) > 1 and not several:
        raise UserError(
            f"The latest command ran {len(fitting)} protocols and a figure shows one; choose it "
            f"with {' or '.join(_selectors(fitting))}."
        )
    protocol = fitting[0]
    evidence = load_evidence(store, protocol)
    metric = _metric(protocol, request.metric)
    size = protocol.primary_size if request.size is None else request.size
    if size not in protocol.sizes:
        raise UserError(
            f"--size {size}: nothing was trained on so many subjects; it is one of "
            f"{', '.join(map(str, protocol.sizes))}."
        )
    everyone = tuple(best_first(protocol, evidence, metric_of(protocol.primary_metric)))
    rows = _rows(everyone, request.models)
    return Source(
        store, protocol, evidence, everyone, rows, metric, size, chosen=bool(request.models)
    )


def _fitting(
    store: Store, kind: str, tasks: Sequence[str], where: Mapping[str, str]
) -> list[Protocol]:
    selection = select_protocols(store, where)
    fitting = [each for each in selection.protocols if each.task in tasks]
    if not fitting:
        found = " and ".join(sorted({each.task for each in selection.protocols}))
        raise UserError(
            f"A figure of {kind} is for {' and '.join(tasks)} results, these are {found}; choose "
            "others with --where, `bench report` lists them."
        )
    return fitting


def _selectors(protocols: Sequence[Protocol]) -> list[str]:
    """Return what tells protocols apart: the first key in which all differ."""
    words = [{"dataset": p.dataset["name"], **p.values} for p in protocols]
    for name in words[0]:
        values = [str(each[name]) for each in words]
        if len(set(values)) == len(values):
            return [f"--where {name}={value}" for value in values]
    return [f"--where fingerprint={each['fingerprint']}" for each in words]


def _metric(protocol: Protocol, asked: str | None) -> Metric:
    known = metrics_for(protocol.kind, protocol.n_classes)
    name = protocol.primary_metric if asked is None else asked
    if name not in known:
        raise UserError(
            f"--metric {name} is not available for these results{did_you_mean(name, known)}; "
            f"choose one of {', '.join(known)}."
        )
    return metric_of(name)


def _rows(everyone: Sequence[Row], models: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows that were named, in the order of naming."""
    if not models:
        return tuple(everyone)
    found: dict[str, Row] = {}
    for name in models:
        rows = named(name, everyone)
        if not rows:
            known = {text for row in everyone for text in (row.label, row.arm.model.name)}
            labels = ", ".join(repr(row.label) for row in everyone)
            raise UserError(
                f"--models {name}: that was not run{did_you_mean(name, sorted(known))}; there "
                f"are {labels}."
            )
        found |= {row.key: row for row in rows}
    return tuple(found.values())


def need_finished(source: Source, least: int) -> tuple[Row, ...]:
    """Return the rows with a finished run.

    Raises
    ------
    UserError
        When there are fewer than `least`.
    """
    rows = source.finished
    if len(rows) < least:
        raise UserError(
            f"This figure needs {count(least, 'model')} with a finished run at "
            f"{source.size_words(source.size)}, and there {'is' if len(rows) == 1 else 'are'} "
            f"{len(rows) or 'none'}; `bench status` shows what is missing."
        )
    return rows


def spread_evenly(values: Floats, most: int | None) -> NDArray[np.int64]:
    """Return the indices of at most so many subjects, spread over the order of their values."""
    if most is None or len(values) <= most:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    places = np.linspace(0, len(values) - 1, max(most, 2)).round().astype(int)
    return np.sort(order[np.unique(places)])
