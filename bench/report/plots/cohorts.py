"""Critical-difference diagram: mean ranks over cohorts, with bars over similar models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.report.evidence import load_evidence
from bench.report.plots.source import Source, as_float
from bench.report.plots.style import GREY, PAGE, canvas, fold
from bench.report.select import Protocol, Row, select_protocols
from bench.report.tables.leaderboard import score_cell
from bench.report.words import number, one_line, p_value
from bench.stats.ranks import FEWEST_COHORTS, RankTable, rank_arms
from registry.core import counted
from registry.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CriticalDifference:
    """The ranks by one metric, and the models that could not be ranked."""

    title: str
    axis: str
    table: RankTable
    left_out: tuple[str, ...]


def gather(source: Source) -> CriticalDifference:
    """Rank the models by their means over seeds at each cohort's primary size."""
    protocols = _cohorts(source)
    names = [one_line(each.dataset["name"]) for each in protocols]
    if len(protocols) < FEWEST_COHORTS:
        raise UserError(
            f"Mean ranks need at least {FEWEST_COHORTS} cohorts that were run with the same "
            f"settings, but this database has {len(protocols)} ({', '.join(names)}); seeds and "
            "training sizes do not count as cohorts."
        )
    values = [_values(source, each) for each in protocols]
    chosen = {_label(row) for row in source.rows} if source.chosen else None
    seen = {label for each in values for label in each if chosen is None or label in chosen}
    common = sorted(
        label for label in seen if all(np.isfinite(each.get(label, np.nan)) for each in values)
    )
    if len(common) < 2:
        raise UserError(
            f"Mean ranks need two models with a result in each of the {len(names)} cohorts "
            f"({', '.join(names)}), but there is {'only one' if common else 'none'}; `bench "
            "status` shows the missing runs."
        )
    table = rank_arms(
        [[each[label] for label in common] for each in values],
        names,
        common,
        source.metric.higher_is_better,
    )
    return CriticalDifference(
        title=f"{counted(len(names), 'cohort')}, {one_line(source.protocol.dataset['target'])}",
        axis=source.metric.title,
        table=table,
        left_out=tuple(sorted(seen - set(common))),
    )


def draw(data: CriticalDifference) -> Figure:
    """Draw the models on an axis of ranks, the better half on the left."""
    table = data.table
    n = len(table.arms)
    half = (n + 1) // 2
    bars = 0.5 * len(table.groups)
    deep = 0.6 + bars + half
    figure = canvas(PAGE, 0.75 + 0.17 * deep, f"{data.title}: {_test(table)}")
    axes = figure.subplots()
    for place, (arm, rank) in enumerate(zip(table.arms, table.mean_ranks, strict=True)):
        left = place < half
        depth = 0.6 + bars + (place if left else n - 1 - place)
        end = 1 - 0.01 * n if left else n + 0.01 * n
        axes.plot([rank, rank, end], [0, depth, depth], color="black", linewidth=0.7)
        axes.plot(rank, 0, "o", color="black", markersize=3, clip_on=False)
        text = f"{fold(arm, 34)} ({number(float(rank), 2)})"
        side = "right" if left else "left"
        axes.text(end, depth, f" {text} ", ha=side, va="center", fontsize=6.5)
    places = dict(zip(table.arms, table.mean_ranks, strict=True))
    for number_, group in enumerate(table.groups):
        ranks = [places[arm] for arm in group]
        depth = 0.45 + 0.5 * number_
        axes.plot(
            [min(ranks) - 0.01 * n, max(ranks) + 0.01 * n], [depth, depth], color=GREY, linewidth=3
        )
    axes.set_xlim(1 - 0.01 * n, n + 0.01 * n)
    axes.set_ylim(deep, 0)
    axes.set_yticks([])
    axes.set_xticks(range(1, n + 1))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(
        f"mean rank by {data.axis}, 1 is best; bars join models without significant differences"
    )
    for side, spine in axes.spines.items():
        spine.set_visible(side == "top")
    return figure


def describe(data: CriticalDifference) -> str:
    """Return the mean ranks, the test of all models, and the groups."""
    table = data.table
    ranks = ", ".join(
        f"{arm} {number(float(rank), 2)}"
        for arm, rank in zip(table.arms, table.mean_ranks, strict=True)
    )
    groups = "; ".join(", ".join(group) for group in table.groups) or "none"
    lost = f" Excluded because they are missing in a cohort: {', '.join(data.left_out)}." * bool(
        data.left_out
    )
    return (
        f"Mean ranks by {data.axis} over {len(table.cohorts)} cohorts "
        f"({', '.join(table.cohorts)}), 1 is best: {ranks}. {_test(table)}. Not significantly "
        f"different by Wilcoxon's signed-rank test with Holm's adjustment: {groups}.{lost}"
    )


def _test(table: RankTable) -> str:
    text = table.reason or f"Friedman χ² {number(table.statistic, 1)}, p {_p(table.p)}"
    if table.floor > table.alpha:
        text += f"; too few cohorts for significant differences between {len(table.arms)} models"
    return text


def _p(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def _cohorts(source: Source) -> list[Protocol]:
    """Return the protocols that differ from the shown one in their cohort only.

    Cohorts are identified by their names. Only the newest version of a cohort is used, because
    versions share subjects.
    """
    wanted = {k: v for k, v in source.protocol.values.items() if k != "fingerprint"}
    found: dict[str, Protocol] = {}
    for each in select_protocols(source.store, {}, planned=True).protocols:
        alike = all(
            value is None or each.values[key] is None or each.values[key] == value
            for key, value in wanted.items()
        )
        if alike and each.trials and each.task == source.protocol.task:
            found.setdefault(str(each.dataset["name"]), each)
    return list(found.values())


def _values(source: Source, protocol: Protocol) -> dict[str, float]:
    """Return the mean of every model at the primary size; NaN if it is missing or ambiguous."""
    evidence = load_evidence(source.store, protocol)
    found: dict[str, float] = {}
    for row in protocol.rows:
        cell = score_cell(protocol, evidence, row, protocol.primary_size, source.metric)
        # Two settings of one model cannot be matched across cohorts.
        twice = _label(row) in found
        found[_label(row)] = np.nan if twice else as_float(cell.values["mean"])
    return found


def _label(row: Row) -> str:
    encoder = row.arm.encoder
    return one_line(row.arm.model.name + (f" [{encoder.name}]" if encoder is not None else ""))
