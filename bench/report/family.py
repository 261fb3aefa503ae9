"""The tests of a report, and whether they were fixed before the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.select import Protocol, Row
from bench.stats.metrics import metric_of
from registry.core import did_you_mean
from registry.errors import UserError

MANY = 8
"""From this number of rows on, models are compared with a reference instead of in all pairs."""
BASELINES = ("linear-voxels", "prior")
"""The default references in order of preference; without any of them it is the best model."""


@dataclass(frozen=True)
class TestPlan:
    """Which pairs of a section are tested, and whether these tests are confirmatory.

    Parameters
    ----------
    reference : Row or None
        The row with which every other row is compared; None for all pairs.
    confirmatory : bool
        Whether the primary family was fixed before the runs, by declaration or by rule.
    margin : float or None
        The declared margin.
    description : str
        The primary family, such as ``AUC at n=48, all pairs``.
    origin : str
        How the family was chosen, such as ``declared before the runs: metric auc``.
    notes : tuple of str
        Notes on the choice for readers of the report.
    """

    reference: Row | None
    confirmatory: bool
    margin: float | None
    description: str
    origin: str
    notes: tuple[str, ...]


def plan_tests(protocol: Protocol, rows: Sequence[Row], asked: str | None) -> TestPlan:
    """Choose the reference, and determine whether the family was fixed before the runs.

    Parameters
    ----------
    protocol : Protocol
        The runs, with the analysis that their latest command declared.
    rows : sequence of Row
        The models, best first.
    asked : str, optional
        The reference given with ``bench report --reference``.
    """
    declared = protocol.declared
    label = metric_of(protocol.primary_metric).label
    notes = []
    confirmatory = protocol.declared_in_time
    if declared == declared.family == type(declared)():
        origin = "default rule, none was declared"
    else:
        parts = ", ".join(f"{name} {value}" for name, value in declared.plain().items())
        origin = f"declared before the runs: {parts}"
        if protocol.n_before:
            origin = (
                f"declared after {protocol.n_before} of {len(protocol.trials)} runs had finished: "
                f"{parts}"
            )
    if not confirmatory:
        notes.append(
            "The primary family was declared after results were available, so all tests are "
            "exploratory."
        )
    if protocol.declared.margin is not None and protocol.n_before:
        notes.append(
            "The margin was set after results were available, so its verdicts are exploratory."
        )
    default = _default_reference(protocol, rows)
    reference = default
    if asked is not None:
        found = named(asked, rows)
        reference = found[0] if found else None
        if not found:
            notes.append(f"{asked} was not run under this protocol, so all pairs are compared.")
        if reference != default:
            confirmatory = False
            origin = "chosen after the runs by `bench report --reference`"
            notes.append(
                "The reference was chosen after the runs, so all tests are exploratory; declare "
                "it with `bench run --reference`."
            )
    elif default is not None and declared.reference is None:
        notes.append(
            f"The {len(rows)} models are compared with {default.label} only; choose another with "
            "--reference."
        )
    versus = "all pairs" if reference is None else f"each model against {reference.label}"
    return TestPlan(
        reference=reference,
        confirmatory=confirmatory,
        margin=declared.margin,
        description=f"{label} at n={protocol.size_label(protocol.primary_size)}, {versus}",
        origin=origin,
        notes=tuple(notes),
    )


def check_reference(reference: str, protocols: Sequence[Protocol]) -> None:
    """Check that a reference is a row of some section and unambiguous in each.

    Raises
    ------
    UserError
        If it matches no row, or several rows of a section; the message lists the rows.
    """
    found = [named(reference, protocol.rows) for protocol in protocols]
    for protocol, rows in zip(protocols, found, strict=True):
        if rows:
            one_named(reference, protocol.rows, "--reference")
    if not any(found):
        every = [row for protocol in protocols for row in protocol.rows]
        one_named(reference, every, "--reference")


def one_named(name: str, rows: Sequence[Row], where: str) -> Row:
    """Return the only row with this label or model.

    Parameters
    ----------
    name : str
        A label or the name of a model.
    rows : sequence of Row
    where : str
        The option or command with which the name was given, for messages.

    Raises
    ------
    UserError
        If no row or several rows match.
    """
    found = {row.key: row for row in named(name, rows)}
    if len(found) > 1:
        raise UserError(
            f"{where} {name}: this matches {len(found)} rows; choose one of "
            f"{_quoted(tuple(found.values()))}."
        )
    if not found:
        known = [each for row in rows for each in (row.label, row.arm.model.name)]
        raise UserError(
            f"{where} {name}: this model was not run{did_you_mean(name, known)}; choose one of "
            f"{_quoted(rows)}."
        )
    return next(iter(found.values()))


def two_named(a: str, b: str, rows: Sequence[Row], where: str) -> tuple[Row, Row]:
    """Return two different rows, each as `one_named` does.

    Raises
    ------
    UserError
        As for `one_named`, and if both are the same row.
    """
    first, second = (one_named(name, rows, where) for name in (a, b))
    if first.key == second.key:
        raise UserError(f"{where}: {a} and {b} are the same row; choose two different rows.")
    return first, second


def named(name: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with this label or, if there are none, those of this model."""
    by_label = [row for row in rows if row.label == name]
    return by_label or [row for row in rows if row.arm.model.name == name]


def _quoted(rows: Sequence[Row]) -> str:
    return ", ".join(repr(label) for label in sorted({row.label for row in rows}))


def _default_reference(protocol: Protocol, rows: Sequence[Row]) -> Row | None:
    """Return the declared reference, or a baseline if there are `MANY` rows; None for all pairs."""
    if protocol.declared.reference is not None:
        return next(iter(named(protocol.declared.reference, rows)), None)
    if len(rows) < MANY:
        return None
    for name in BASELINES:
        if found := named(name, rows):
            return found[0]
    return rows[0]
