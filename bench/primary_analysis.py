"""What a command declares before it runs: which test will carry its claim, and by what margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.stats.metrics import metric_of, metrics_for
from registry.cards import Task
from registry.core import did_you_mean
from registry.errors import UserError


@dataclass(frozen=True)
class PrimaryAnalysis:
    """The primary family and the margin; None leaves a part to the fixed rule of the reports.

    Parameters
    ----------
    metric : str, optional
        The primary metric.
    size : int or "all", optional
        The primary training size, in subjects.
    reference : str, optional
        The model that all others are compared with, instead of all with all.
    margin : float, optional
        The difference in the primary metric, in its units, below which two models are the same
        for practical purposes.
    """

    metric: str | None = None
    size: int | str | None = None
    reference: str | None = None
    margin: float | None = None

    @property
    def family(self) -> PrimaryAnalysis:
        """What decides which p-values belong together: all but the margin."""
        return replace(self, margin=None)

    def plain(self) -> dict[str, Any]:
        """Return what was declared, as it is stored; empty when nothing was."""
        return {name: value for name, value in asdict(self).items() if value is not None}


DEFAULT_ANALYSIS = PrimaryAnalysis()
"""All is left to the rule."""


def analysis_from_plain(stored: Mapping[str, Any] | None) -> PrimaryAnalysis:
    """Return what `PrimaryAnalysis.plain` made; older commands stored nothing."""
    return PrimaryAnalysis(**(stored or {}))


def check_analysis(
    declared: PrimaryAnalysis,
    task: Task,
    cohort: str,
    models: Sequence[str],
    sizes: Sequence[int],
    pool: int,
) -> None:
    """Refuse a declaration that the command cannot keep on a cohort.

    Parameters
    ----------
    declared : PrimaryAnalysis
        What was asked for.
    task : Task
        Of the cohort.
    cohort : str
        Its name, for messages.
    models : sequence of str
        The model of every arm that will run.
    sizes : sequence of int
        The training sizes.
    pool : int
        The size that ``all`` is.

    Raises
    ------
    UserError
        When the metric is not one of the task that ranks and tests, the size is not among those
        asked for, the reference is not exactly one arm, or the margin is not positive.
    """
    if declared.metric is not None:
        names = metrics_for(task.kind, len(task.classes))
        known = [name for name in names if metric_of(name).ranked and metric_of(name).tested]
        if declared.metric not in known:
            raise UserError(
                f"--metric {declared.metric}: {cohort} cannot be judged by it"
                f"{did_you_mean(declared.metric, known)}; choose one of {', '.join(known)}."
            )
    size = pool if declared.size == "all" else declared.size
    if size is not None and size not in sizes:
        raise UserError(
            f"--primary-size {declared.size}: {cohort} is not trained at that size; it is one of "
            f"{', '.join(map(str, sizes))}."
        )
    if declared.reference is not None:
        arms = list(models).count(declared.reference)
        if not arms:
            raise UserError(
                f"--reference {declared.reference}: that is none of the models that will run on "
                f"{cohort}{did_you_mean(declared.reference, models)}."
            )
        if arms > 1:
            raise UserError(
                f"--reference {declared.reference}: {arms} rows will have that model; name a model "
                "that runs with one encoder."
            )
    if declared.margin is not None and not 0 < declared.margin < float("inf"):
        raise UserError(
            f"--margin {declared.margin}: it is a positive number in units of the metric."
        )
