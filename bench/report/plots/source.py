"""The source of a figure: a protocol, the rows to show, a metric and a training size."""

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
from bench.report.words import digits_of, interval, number
from bench.stats.inference import benjamini_hochberg, holm
from bench.stats.metric import Floats, Metric
from bench.stats.metrics import metric_of, metrics_for
from bench.store.store import Store
from registry.core import counted, did_you_mean
from registry.errors import UserError


@dataclass(frozen=True)
class FigureRequest:
    """The options of a figure; those that are None or empty are chosen as in the report."""

    metric: str | None = None
    size: int | None = None
    models: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MeanScore:
    """A mean over seeds with its t interval; `text` is as printed in the report."""

    mean: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class AdjustedPairs:
    """Pairs with their adjusted p-values, and the method of adjustment."""

    pairs: tuple[Pair, ...]
    p: tuple[float, ...]
    how: str


@dataclass(frozen=True)
class Source:
    """One protocol, and which of its results a figure shows.

    Parameters
    ----------
    store : Store
        Open for reading.
    protocol, evidence
        As in the report.
    everyone : tuple of Row
        All rows of the protocol, best first as in the report.
    rows : tuple of Row
        The rows to show, in the same order or in that of the request.
    metric : Metric
    size : int
        The training size.
    chosen : bool
        Whether the rows were given by the user.
    reference : str or None
        The row with which the user wants all others compared.
    max_points : int or None
        The maximum number of points of the figure; None for no limit.
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
        """The rows with a finished run at this size."""
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
        """The reference and the margin, as in the report."""
        return plan_tests(self.protocol, self.everyone, self.reference)

    def size_words(self, size: int) -> str:
        """Return ``n=48``, with a dagger (as in the report) if training sets hardly vary."""
        dagger = " †" if self.protocol.conditional(size) else ""
        return f"n={self.protocol.size_label(size)}{dagger}"

    def style_index(self, row: Row) -> int:
        """Return the index of a row's colour and marker, the same in all figures of a report."""
        return [each.key for each in self.protocol.rows].index(row.key)

    def score(self, row: Row, size: int | None = None) -> MeanScore:
        """Return a row's mean at a size; NaN if the report shows none."""
        size = self.size if size is None else size
        cell = score_cell(self.protocol, self.evidence, row, size, self.metric)
        mean, low, high = (as_float(cell.values[name]) for name in ("mean", "low", "high"))
        text = f"{number(mean, self.digits)} {interval(low, high, self.digits)}"
        return MeanScore(mean, low, high, text)

    def predictions(self, row: Row) -> Floats:
        """Return the test predictions of a row's runs; of one run if all are the same fit."""
        runs = runs_at(self.protocol, self.evidence, row, self.size)
        if runs is None:
            raise ValueError(f"{row.label} has no finished run at n={self.size}")
        return runs.predictions

    def trouble(self, row: Row, sizes: Sequence[int]) -> str:
        """Return how many of a row's runs failed, such as `` (1 of 5 runs failed)``; else empty."""
        runs = [self.protocol.at(row, size) for size in sizes]
        failed = sum(len(each.failed) for each in runs)
        return (
            f" ({failed} of {counted(sum(r.asked for r in runs), 'run')} failed)" if failed else ""
        )

    def family(self) -> AdjustedPairs:
        """Return the pairs to show from the report's family at this metric and size.

        Their p-values are adjusted within the whole family. If it contains no pair of the
        requested rows, all pairs of these rows are compared instead, which is exploratory.
        """
        whole = self._tested(self.everyone, self.test_plan.reference)
        return whole if whole.pairs else self._tested(self.rows, None)

    def all_pairs(self) -> AdjustedPairs:
        """Return all pairs of the rows to show."""
        return self._tested(self.everyone, None)

    def _tested(self, rows: Sequence[Row], reference: Row | None) -> AdjustedPairs:
        """Compare rows, and return the pairs to show."""
        if not self.metric.tested:
            raise UserError(
                f"Differences in {self.metric.name} are not tested; choose another --metric."
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
    """Return a number of a cell as float; NaN if it is missing."""
    return np.nan if value is None else float(value)


def load_source(
    store: Store, kind: str, tasks: Sequence[str], request: FigureRequest, *, several: bool = False
) -> Source:
    """Find the results that a figure shows.

    Parameters
    ----------
    store : Store
        Open for reading.
    kind : str
        The name of the figure, for messages.
    tasks : sequence of str
        The tasks that the figure supports.
    request : FigureRequest
    several : bool
        Whether the figure shows several cohorts, so that any of them may be selected.

    Raises
    ------
    UserError
        If the request matches nothing or, unless `several`, more than one protocol.
    """
    fitting = _fitting(store, kind, tasks, request.where)
    if len(fitting) > 1 and not several:
        raise UserError(
            f"The latest command ran {len(fitting)} protocols, but a figure shows only one; choose "
            f"it with {' or '.join(_selectors(fitting))}."
        )
    protocol = fitting[0]
    evidence = load_evidence(store, protocol)
    metric = _metric(protocol, request.metric)
    size = protocol.primary_size if request.size is None else request.size
    if size not in protocol.sizes:
        raise UserError(
            f"--size {size}: no model was trained on {size} subjects; choose one of "
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
            f"The figure {kind} shows {' and '.join(tasks)} results, but these are {found}; select "
            "other results with --where (`bench report` lists them)."
        )
    return fitting


def _selectors(protocols: Sequence[Protocol]) -> list[str]:
    """Return options that select each protocol, using the first key in which all differ."""
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
    """Return the requested rows, in the order in which they were given."""
    if not models:
        return tuple(everyone)
    found: dict[str, Row] = {}
    for name in models:
        rows = named(name, everyone)
        if not rows:
            known = {text for row in everyone for text in (row.label, row.arm.model.name)}
            labels = ", ".join(repr(row.label) for row in everyone)
            raise UserError(
                f"--models {name}: this model was not run{did_you_mean(name, sorted(known))}; "
                f"choose from {labels}."
            )
        found |= {row.key: row for row in rows}
    return tuple(found.values())


def need_finished(source: Source, least: int) -> tuple[Row, ...]:
    """Return the rows with a finished run.

    Raises
    ------
    UserError
        If there are fewer than `least`.
    """
    rows = source.finished
    if len(rows) < least:
        raise UserError(
            f"This figure needs at least {counted(least, 'model')} with a finished run at "
            f"{source.size_words(source.size)}, but there {'is' if len(rows) == 1 else 'are'} "
            f"{'only ' if rows else ''}{len(rows) or 'none'}; `bench status` shows the missing "
            "runs."
        )
    return rows


def spread_evenly(values: Floats, most: int | None) -> NDArray[np.int64]:
    """Return the indices of at most `most` subjects, evenly spread over their sorted values."""
    if most is None or len(values) <= most:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    places = np.linspace(0, len(values) - 1, max(most, 2)).round().astype(int)
    return np.sort(order[np.unique(places)])
