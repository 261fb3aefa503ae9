"""The data from which all tables and figures of a section are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.report.evidence import Evidence, load_covariates, load_evidence
from bench.report.family import TestPlan, plan_tests
from bench.report.pairs import Pair, make_pairs
from bench.report.select import Protocol, Row
from bench.report.tables.failures import Failure, find_failures
from bench.report.tables.leaderboard import best_first
from bench.report.tables.provenance import environments_of
from bench.report.words import one_line
from bench.stats.metric import Metric
from bench.stats.metrics import metric_of, metrics_for
from bench.store.store import Store


@dataclass(frozen=True)
class SectionData:
    """One protocol, and everything that is read and computed once for all its tables.

    Parameters
    ----------
    store : Store
        Open for reading.
    protocol : Protocol
        The runs that can be compared in one table.
    evidence : Evidence
        Their scores and test predictions.
    metrics : sequence of Metric
        The requested metrics.
    primary : Metric
        The primary metric.
    rows : sequence of Row
        The models, best first by the primary metric.
    test_plan : TestPlan
        Which pairs are tested, and whether the tests are confirmatory.
    family, others : sequence of Pair
        The tested pairs at the primary metric and training size, and all other pairs.
    failures : tuple of Failure
        Runs without a result.
    reference : str or None
        The row with which the user wants all others compared.
    prefix : str
        Makes the names of this section's tables unique in its report.
    """

    store: Store
    protocol: Protocol
    evidence: Evidence
    metrics: Sequence[Metric]
    primary: Metric
    rows: Sequence[Row]
    test_plan: TestPlan
    family: Sequence[Pair]
    others: Sequence[Pair]
    failures: tuple[Failure, ...]
    reference: str | None
    prefix: str

    def name(self, table: str) -> str:
        """Return the name of one of the section's tables, unique within the report."""
        return f"{self.prefix}{table}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all metrics of the task."""
        return metrics_for(self.protocol.kind, self.protocol.n_classes)

    @property
    def sides(self) -> dict[str, int]:
        """The numbers of subjects in the training pool, the validation set and the test set."""
        data = self.protocol.dataset
        return {side: int(data[f"n_{side}"]) for side in ("pool", "validation", "test")}

    @property
    def is_whole(self) -> bool:
        """Whether every requested run has a result."""
        return all(not runs.failed and not runs.missing for runs in self.protocol.runs.values())

    @cached_property
    def covariates(self) -> Mapping[str, Sequence[Any]]:
        """Age, sex and site of the test subjects."""
        return load_covariates(self.store, self.protocol, self.evidence)

    @cached_property
    def environments(self) -> Sequence[Mapping[str, Any]]:
        """The machines and software versions of the runs."""
        return environments_of(self.store, self.protocol)


def section_data(
    store: Store,
    protocol: Protocol,
    metrics: Sequence[Metric],
    reference: str | None,
    place: int | None,
) -> SectionData:
    """Read and compute the data of the section of one protocol.

    Parameters
    ----------
    store, protocol, metrics, reference
        As in `SectionData`.
    place : int or None
        The number of the section, from 1; None if there is only one.
    """
    evidence = load_evidence(store, protocol)
    primary = metric_of(protocol.primary_metric)
    rows = best_first(protocol, evidence, primary)
    test_plan = plan_tests(protocol, rows, reference)
    family, others = _pairs(protocol, evidence, rows, metrics, test_plan)
    return SectionData(
        store=store,
        protocol=protocol,
        evidence=evidence,
        metrics=metrics,
        primary=primary,
        rows=rows,
        test_plan=test_plan,
        family=family,
        others=others,
        failures=find_failures(store, protocol),
        reference=reference,
        prefix="" if place is None else f"{one_line(protocol.dataset['name'])}-{place}-",
    )


def _pairs(
    protocol: Protocol,
    evidence: Evidence,
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    test_plan: TestPlan,
) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs at the primary metric and training size, and all other pairs."""
    family: list[Pair] = []
    others: list[Pair] = []
    for metric in metrics:
        if not metric.tested:
            continue
        # The primary size comes first; the others follow in ascending order.
        for size in sorted(protocol.sizes, key=lambda n: (n != protocol.primary_size, n)):
            primary = (metric.name, size) == (protocol.primary_metric, protocol.primary_size)
            pairs = make_pairs(protocol, evidence, rows, metric, size, test_plan.reference)
            (family if primary else others).extend(pairs)
    return family, others
