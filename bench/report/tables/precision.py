"""Variance components of intervals, and their width with more seeds or subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.report.pairs import Pair
from bench.report.table import Cell, Column, Table
from bench.report.tables.pairs import pair_cell
from bench.report.words import digits_of, number
from bench.stats.inference import Comparison
from bench.stats.power import projection_table

SEEDS = (3, 5, 10, 20)
FACTORS = (1, 2, 4)


def precision_table(pairs: Sequence[Pair], title: str, name: str) -> Table | None:
    """Return the variance components of each pair, its floor, and projected half-widths.

    Parameters
    ----------
    pairs : sequence of Pair
        Pairs compared by one metric at one training size.
    title, name : str
        The title and name of the table.

    Returns
    -------
    Table or None
        None if no pair has a test.
    """
    tested = [(pair, pair.found) for pair in pairs if pair.found is not None and pair.p == pair.p]
    if not tested:
        return None
    return Table(
        name=name,
        title=title,
        columns=(
            Column("pair", "A vs B"),
            Column("seeds", "seeds %", numeric=True),
            Column("subjects", "subjects %", numeric=True),
            Column("residual", "both %", numeric=True),
            Column("half", "half-width", numeric=True),
            Column("floor", "floor of the SE", numeric=True),
            *(
                Column(f"s{s}x{factor}", f"S={s}, N x {factor}", numeric=True)
                for s in SEEDS
                for factor in FACTORS
            ),
        ),
        rows=tuple(_row(pair, found) for pair, found in tested),
        notes=(
            "Shares of the squared standard error: the part for seeds decreases with more seeds, "
            "the part for subjects with more test subjects, the part for both with either. "
            "Half-width: of the present 95 % interval and as expected with S seeds and N x 1, 2 "
            "or 4 test subjects. Floor of the SE: the standard error that remains with any "
            "number of seeds.",
        ),
    )


def grid(
    name: str, title: str, of: Callable[[int, int], float], digits: int, notes: Sequence[str] = ()
) -> Table:
    """Return a table of seeds x multiples of the test subjects, with values ``of(S, factor)``."""
    return Table(
        name=name,
        title=title,
        columns=(
            Column("seeds", "seeds", numeric=True),
            *(Column(f"x{factor}", f"N x {factor}", numeric=True) for factor in FACTORS),
        ),
        rows=tuple(
            (
                Cell(str(s), {"value": s}),
                *(
                    Cell(number(value, digits), {"value": value})
                    for value in (of(s, factor) for factor in FACTORS)
                ),
            )
            for s in SEEDS
        ),
        notes=tuple(notes),
    )


def pair_precision(pair: Pair, name: str) -> Table | None:
    """Return the projected half-widths of one pair; None if it has no test."""
    found = pair.found
    if found is None or pair.p != pair.p:
        return None
    try:
        expected = projection_table(found, SEEDS, FACTORS)
    except ValueError:
        return None
    digits = _digits(pair)
    seeds, subjects, residual = (f"{100 * share:.0f} %" for share in found.shares)
    half = number((found.high - found.low) / 2, digits)
    return grid(
        name,
        f"Half-width of the 95 % interval of A - B, now {half}, with other numbers of seeds and "
        "subjects",
        lambda s, factor: expected[SEEDS.index(s)][FACTORS.index(factor)].half_width,
        digits,
        (
            f"Of the squared standard error, {seeds} decreases with more seeds, {subjects} with "
            f"more test subjects (N: the present {found.n_subjects}) and {residual} with either.",
        ),
    )


def _row(pair: Pair, found: Comparison) -> tuple[Cell, ...]:
    digits = _digits(pair)
    shares = found.shares
    half = (found.high - found.low) / 2
    floor = max(found.c, 0.0) ** 0.5
    cells = [
        pair_cell(pair),
        *(Cell(number(100 * share, 0), {"value": share}) for share in shares),
        Cell(number(half, digits), {"value": half}),
        Cell(number(floor, digits), {"value": floor}),
    ]
    try:
        expected = [each for line in projection_table(found, SEEDS, FACTORS) for each in line]
    except ValueError as refused:
        reason = {"value": None, "reason": str(refused)}
        return (*cells, *(Cell("n/a", reason) for _ in range(len(SEEDS) * len(FACTORS))))
    cells += [Cell(number(e.half_width, digits), {"value": e.half_width}) for e in expected]
    return tuple(cells)


def _digits(pair: Pair) -> int:
    return digits_of(pair.metric) + 1
