"""The tables of tests: the primary family with Holm's adjustment, and exploratory tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

from bench.report.claims import CONDITIONAL
from bench.report.evidence import Evidence
from bench.report.family import TestPlan
from bench.report.pairs import Pair, paired_values
from bench.report.select import Protocol
from bench.report.table import Cell, Column, Number, Table
from bench.report.words import digits_of, interval, number, p_value
from bench.stats.classical import SeedTest, paired_t, sign_flip
from bench.stats.equivalence import equivalence, verdict
from bench.stats.inference import benjamini_hochberg, holm
from bench.stats.metric import Floats

FEW = "few subjects"
"""The flag of `bench.stats.inference` for pairs with a second df and p-value."""

DROPPED = "seeds dropped: "
"""The beginning of the flag of `bench.stats.inference` for seeds that are not shared."""


def pair_tables(
    protocol: Protocol,
    test_plan: TestPlan,
    family: Sequence[Pair],
    others: Sequence[Pair],
    prefix: str,
) -> list[Table]:
    """Return the tables of the primary family and of exploratory pairs, if there are any.

    If the family was not fixed before the runs, all pairs are exploratory.
    """
    if not test_plan.confirmatory:
        family, others = (), [*family, *others]
    tables = []
    if family:
        adjusted = holm([pair.p for pair in family])
        tables.append(primary_table(protocol, test_plan, family, adjusted, prefix))
    if others:
        tables.append(exploratory_table(protocol, test_plan, others, prefix))
    return tables


def primary_table(
    protocol: Protocol, test_plan: TestPlan, pairs: Sequence[Pair], adjusted: Floats, prefix: str
) -> Table:
    """Return the table of pairs of the primary family, with Holm-adjusted p-values."""
    first = pairs[0]
    label = f"{first.metric.title} at n={protocol.size_label(first.size)}"
    if protocol.conditional(first.size):
        label += f", {CONDITIONAL}"
    return _table(
        f"{prefix}pairs-primary",
        f"Primary family: differences in {label}, {protocol.name}",
        pairs,
        _Adjusted("Holm p", "p_holm", adjusted),
        leading=[_PAIRED],
        margin=test_plan.margin,
        primary=protocol.primary_metric,
    )


def exploratory_table(
    protocol: Protocol,
    test_plan: TestPlan,
    pairs: Sequence[Pair],
    prefix: str,
    *,
    named: bool = True,
) -> Table:
    """Return the table of exploratory pairs, with Benjamini-Hochberg adjusted p-values.

    Parameters
    ----------
    protocol : Protocol
    test_plan : TestPlan
    pairs : sequence of Pair
    prefix : str
        The beginning of the table's name.
    named : bool
        Whether rows name the two models; False if all pairs are of the same two models.
    """
    several = len({pair.metric.name for pair in pairs}) > 1 or not named
    leading = [*([_PAIRED] if named else []), *([_METRIC] if several else []), _SIZE]
    title = "differences at other training sizes and in other metrics"
    if not several:
        title = f"differences in {pairs[0].metric.title}"
    return _table(
        f"{prefix}pairs-exploratory",
        f"Exploratory: {title}, {protocol.name}",
        pairs,
        _Adjusted("BH p", "p_bh", benjamini_hochberg([pair.p for pair in pairs])),
        leading,
        test_plan.margin,
        protocol.primary_metric,
    )


def seed_table(
    protocol: Protocol, evidence: Evidence, family: Sequence[Pair], prefix: str
) -> Table | None:
    """Return the tests over seeds alone of the primary family; None if no runs are paired."""
    tests, left_out = [], []
    for pair in family:
        seeds, *values = paired_values(protocol, evidence, pair)
        if pair.found is not None and pair.found.paired and len(seeds) > 1:
            tests.append((pair, paired_t(*values), sign_flip(*values)))
        else:
            left_out.append(f"{pair.a.label} vs {pair.b.label}")
    if not tests:
        return None
    adjusted = [benjamini_hochberg([test[kind].p for test in tests]) for kind in (1, 2)]
    return Table(
        name=f"{prefix}pairs-seeds",
        title=f"Exploratory: tests over seeds alone, {protocol.name}",
        columns=(
            _PAIR,
            Column("n_seeds", "seeds", numeric=True),
            Column("p_paired_t", "paired t p", numeric=True),
            Column("bh_paired_t", "BH p", numeric=True),
            Column("p_sign_flip", "sign-flip p", numeric=True),
            Column("bh_sign_flip", "BH p", numeric=True),
        ),
        rows=tuple(
            (
                pair_cell(pair),
                Cell(str(one.n), {"value": one.n}),
                Cell(p_value(one.p), {"value": one.p}),
                Cell(p_value(float(bh_one)), {"value": float(bh_one)}),
                Cell(_reachable(two), {"value": two.p, "floor": two.floor}),
                Cell(p_value(float(bh_two)), {"value": float(bh_two)}),
            )
            for (pair, one, two), bh_one, bh_two in zip(tests, *adjusted, strict=True)
        ),
        notes=(
            "These tests vary only the seeds and take the test set as fixed: for new subjects "
            "they reject far too often, so no claim about models is based on them.",
            *([f"Fewer than two pairs of runs: {', '.join(left_out)}."] if left_out else []),
        ),
    )


def _reachable(test: SeedTest) -> str:
    """Return a p-value, with a note if it cannot be significant with so few seeds."""
    return (
        p_value(test.p)
        if test.can_reject()
        else f"{p_value(test.p)}, cannot be significant with this n"
    )


@dataclass(frozen=True)
class _Adjusted:
    title: str
    key: str
    values: Floats


@dataclass(frozen=True)
class _Leading:
    column: Column
    cell: Callable[[Pair], Cell]


_PAIR = Column("pair", "A vs B")
_PAIRED = _Leading(_PAIR, lambda pair: pair_cell(pair))
_METRIC = _Leading(
    Column("metric", "metric"),
    lambda pair: Cell(pair.metric.title, {"name": pair.metric.name}),
)
_SIZE = _Leading(
    Column("n_train", "train n", numeric=True),
    lambda pair: Cell(str(pair.size), {"value": pair.size}),
)


def _table(
    name: str,
    title: str,
    pairs: Sequence[Pair],
    adjusted: _Adjusted,
    leading: Sequence[_Leading],
    margin: float | None,
    primary: str,
) -> Table:
    verdicts = [_verdict(pair, margin if pair.metric.name == primary else None) for pair in pairs]
    judged = any(cell.text for cell in verdicts)
    letters: dict[str, str] = {}
    for pair in pairs:
        for flag in pair.flags:
            letters.setdefault(flag, _letter(len(letters)))
    return Table(
        name=name,
        title=title,
        columns=(
            *(each.column for each in leading),
            Column("difference", "A - B", numeric=True),
            Column("ci", "95 % CI", numeric=True),
            Column("t", "t (df)", numeric=True, minor=3),
            Column("p", "p", numeric=True),
            Column(adjusted.key, adjusted.title, numeric=True),
            Column("d_z", "d_z", numeric=True, minor=4),
            Column("p_superior", "P(A>B)", numeric=True, minor=2),
            Column("n", "n", numeric=True, minor=1),
            *([Column("verdict", f"margin {margin:g}")] if judged else []),
            Column("flags", "flags"),
        ),
        rows=tuple(
            (
                *(each.cell(pair) for each in leading),
                *_numbers(pair, float(p)),
                *([judgement] if judged else []),
                Cell(
                    ", ".join(letters[flag] for flag in pair.flags),
                    {"words": "; ".join(pair.flags)},
                ),
            )
            for pair, p, judgement in zip(pairs, adjusted.values, verdicts, strict=True)
        ),
        notes=(
            _columns_words(pairs),
            *([_margin_words(margin)] if judged else []),
            *(f"{letter}: {_explained(flag)}" for flag, letter in letters.items()),
        ),
        lead=len(leading),
    )


def _numbers(pair: Pair, adjusted: float) -> list[Cell]:
    found = pair.found
    if found is None:
        empty: dict[str, Number] = {"value": np.nan}
        return [Cell("n/a", empty) for _ in range(8)]
    digits = digits_of(pair.metric)
    sign = 1.0 if pair.metric.higher_is_better else -1.0
    low, high = found.improvement_interval
    few = found.few_subjects
    df, p = _df(found.df), p_value(found.p)
    cautious: dict[str, Number] = {}
    if few is not None:
        df, p = f"{df}; {_df(few.df)}", f"{p} ({p_value(few.p)})"
        bounds = (few.low, few.high) if sign > 0 else (-few.high, -few.low)
        cautious = {
            "few_df": few.df,
            "few_p": few.p,
            "few_low": bounds[0],
            "few_high": bounds[1],
        }
    seeds = str(found.n_seeds)
    if found.one_fit_a and found.one_fit_b:
        seeds = "1"
    elif found.one_fit_a or found.one_fit_b:
        seeds = f"(1, {seeds})" if found.one_fit_a else f"({seeds}, 1)"
    elif not found.paired:
        seeds = f"({found.n_seeds_a}, {found.n_seeds_b})"
    return [
        Cell(
            number(found.improvement, digits),
            {
                "value": found.improvement,
                "se": found.se,
                "v_seed": found.v_seed,
                "c": found.c,
                "share_seeds": found.shares.seeds,
                "share_subjects": found.shares.subjects,
                "share_residual": found.shares.residual,
            },
        ),
        Cell(
            interval(low, high, digits),
            {"low": low, "high": high, "level": found.level, **cautious},
        ),
        Cell(
            f"{number(sign * found.t, 2)} ({df})" if np.isfinite(found.t) else "n/a",
            {"value": sign * found.t, "df": found.df},
        ),
        Cell(p, {"value": found.p}),
        Cell(p_value(adjusted), {"value": adjusted}),
        Cell(number(sign * found.d_z, 2), {"value": sign * found.d_z, "g_z": sign * found.g_z}),
        Cell(number(found.p_superior, 2), {"value": found.p_superior}),
        Cell(
            f"{seeds} x {found.n_subjects}",
            {
                "seeds": found.n_seeds,
                "seeds_a": found.n_seeds_a,
                "seeds_b": found.n_seeds_b,
                "subjects": found.n_subjects,
                "subjects_smallest_group": found.n_smallest,
            },
        ),
    ]


def _columns_words(pairs: Sequence[Pair]) -> str:
    """Return the note that explains the columns."""
    found = [pair.found for pair in pairs if pair.found is not None]
    unpaired = any(not each.paired for each in found)
    apart = unpaired or any(each.one_fit_a or each.one_fit_b for each in found)
    runs = "proportion of pairs of runs in which A is better (ties count one half)"
    if unpaired:
        runs += ", unpaired: every run of A with every run of B"
    seeds = "seeds" + (" (of A and B; a single fit counts as 1)" if apart else "")
    return f"A - B: positive values favour A; P(A>B): {runs}; n: {seeds} x test subjects."


def pair_cell(pair: Pair) -> Cell:
    """Return the cell that names the two rows."""
    a, b = pair.a, pair.b
    return Cell(
        f"{a.label} vs {b.label}", {"a": a.label, "a_key": a.key, "b": b.label, "b_key": b.key}
    )


def _verdict(pair: Pair, margin: float | None) -> Cell:
    if margin is None or pair.found is None:
        return Cell("")
    found = equivalence(pair.found, margin)
    return Cell(
        verdict(pair.found, margin),
        {"margin": margin, "p_tost": found.p, "p_inside": found.p_inside},
    )


def _margin_words(margin: float | None) -> str:
    return (
        f"margin {margin:g}: smaller differences are considered negligible; verdicts follow from "
        "the 95 % interval and two one-sided tests (TOST) at .05, not adjusted over pairs."
    )


def _df(df: float) -> str:
    return "> 999" if df > 999 else number(df, 1)


def _explained(flag: str) -> str:
    if flag == FEW:
        return (
            f"{FEW}: the second df and the p in parentheses also account for the uncertainty over "
            "subjects"
        )
    if flag.startswith(DROPPED):
        return (
            "seeds excluded because only one of the two models has them: "
            f"{flag.removeprefix(DROPPED)}"
        )
    return flag


def _letter(index: int) -> str:
    """Return a, b, .. z, aa, ab, .."""
    first, last = divmod(index, 26)
    return (ascii_lowercase[first - 1] if first else "") + ascii_lowercase[last]
