"""Mean ranks over cohorts, and bars over the arms that these do not tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.report.evidence import load_evidence
from bench.report.plots.source import Source, as_float
from bench.report.plots.style import GREY, PAGE, canvas, fold
from bench.report.select import Protocol, Row, select_protocols
from bench.report.tables.leaderboard import score_cell
from bench.report.words import count, number, one_line, p_value
from bench.stats.ranks import FEWEST_COHORTS, RankTable, rank_arms
from registry.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CriticalDifference:
    """The ranks, on which metric, and the arms that could not be ranked."""

    title: str
    axis: str
    table: RankTable
    left_out: tuple[str, ...]


def gather(source: Source) -> CriticalDifference:
    """Take every arm's mean over seeds at each cohort's primary size."""
    protocols = _cohorts(source)
    names = [one_line(each.dataset["name"]) for each in protocols]
    if len(protocols) < FEWEST_COHORTS:
        raise UserError(
            f"Mean ranks need {FEWEST_COHORTS} cohorts or more that were run alike, and this "
            f"database has {len(protocols)} ({', '.join(names)}); seeds and training sizes are no "
            "cohorts."
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
            f"({', '.join(names)}), and there {'is one' if common else 'is none'}; `bench status` "
            "shows what is missing."
        )
    table = rank_arms(
        [[each[label] for label in common] for each in values],
        names,
        common,
        source.metric.higher_is_better,
    )
    return CriticalDifference(
        title=f"{count(len(names), 'cohort')}, {one_line(source.protocol.dataset['target'])}",
        axis=source.metric.title,
        table=table,
        left_out=tuple(sorted(seen - set(common))),
    )


def draw(data: CriticalDifference) -> Figure:
    """Draw the arms on a line of ranks, the better half to the left."""
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
    axes.set_xlabel(f"mean rank by {data.axis}, 1 is best; a bar joins models not told apart")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "top")
    return figure


def describe(data: CriticalDifference) -> str:
    """Return the mean ranks, the test over all and the groups."""
    table = data.table
    ranks = ", ".join(
        f"{arm} {number(float(rank), 2)}"
        for arm, rank in zip(table.arms, table.mean_ranks, strict=True)
    )
    groups = "; ".join(", ".join(group) for group in table.groups) or "none"
    lost = f" Not in every cohort, and left out: {', '.join(data.left_out)}." * bool(data.left_out)
    return (
        f"Mean ranks by {data.axis} over {len(table.cohorts)} cohorts "
        f"({', '.join(table.cohorts)}), 1 is best: {ranks}. {_test(table)}. Not told apart by "
        f"Wilcoxon's signed ranks with Holm's adjustment: {groups}.{lost}"
    )


def _test(table: RankTable) -> str:
    text = table.reason or f"Friedman χ² {number(table.statistic, 1)}, p {_p(table.p)}"
    if table.floor > table.alpha:
        text += f"; too few cohorts to tell any two of {len(table.arms)} models apart"
    return text


def _p(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def _cohorts(source: Source) -> list[Protocol]:
    """Return the protocols that differ from the shown one in nothing but the cohort.

    A cohort is its name: a newer version of it stands for the older ones, with which it shares
    subjects.
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
    """Return the mean of every arm at the primary size, NaN where it has none or is not one."""
    evidence = load_evidence(source.store, protocol)
    found: dict[str, float] = {}
    for row in protocol.rows:
        cell = score_cell(protocol, evidence, row, protocol.primary_size, source.metric)
        # Two settings of one model cannot be told from each other across cohorts.
        twice = _label(row) in found
        found[_label(row)] = np.nan if twice else as_float(cell.values["mean"])
    return found


def _label(row: Row) -> str:
    encoder = row.arm.encoder
    return one_line(row.arm.model.name + (f" [{encoder.name}]" if encoder is not None else ""))
