"""The primary analysis, declared before the runs: metric, training size, reference and margin."""

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
    """The primary family of tests and the margin; the default rule applies to what is None.

    Parameters
    ----------
    metric : str, optional
        The primary metric.
    size : int or "all", optional
        The primary training size, in subjects.
    reference : str, optional
        The model that all others are compared with, instead of comparing all pairs.
    margin : float, optional
        The largest difference in the primary metric, in its units, that does not matter in
        practice.
    """

    metric: str | None = None
    size: int | str | None = None
    reference: str | None = None
    margin: float | None = None

    @property
    def family(self) -> PrimaryAnalysis:
        """The part that determines the family of tests: everything but the margin."""
        return replace(self, margin=None)

    def plain(self) -> dict[str, Any]:
        """Return what was declared as a JSON-ready mapping, empty if nothing was."""
        return {name: value for name, value in asdict(self).items() if value is not None}


DEFAULT_ANALYSIS = PrimaryAnalysis()
"""Nothing is declared, so that the default rule applies to everything."""


def analysis_from_plain(stored: Mapping[str, Any] | None) -> PrimaryAnalysis:
    """Invert `PrimaryAnalysis.plain`; commands of the first release stored None."""
    return PrimaryAnalysis(**(stored or {}))


def check_analysis(
    declared: PrimaryAnalysis,
    task: Task,
    cohort: str,
    models: Sequence[str],
    sizes: Sequence[int],
    pool: int,
) -> None:
    """Check that a declared analysis can be carried out on a cohort.

    Parameters
    ----------
    declared : PrimaryAnalysis
        The declared analysis.
    task : Task
        The task of the cohort.
    cohort : str
        The name of the cohort, for messages.
    models : sequence of str
        The name of the model of every arm.
    sizes : sequence of int
        The training sizes.
    pool : int
        The number of subjects that ``all`` stands for.

    Raises
    ------
    UserError
        If the metric cannot be ranked and tested for this task, the size is not one of the
        training sizes, the reference does not match exactly one arm, or the margin is not
        positive.
    """
    if declared.metric is not None:
        names = metrics_for(task.kind, len(task.classes))
        known = [name for name in names if metric_of(name).ranked and metric_of(name).tested]
        if declared.metric not in known:
            raise UserError(
                f"--metric {declared.metric} cannot be the primary metric on {cohort}"
                f"{did_you_mean(declared.metric, known)}; choose from {', '.join(known)}."
            )
    size = pool if declared.size == "all" else declared.size
    if size is not None and size not in sizes:
        raise UserError(
            f"--primary-size must be one of the training sizes of {cohort} "
            f"({', '.join(map(str, sizes))}), got {declared.size}."
        )
    if declared.reference is not None:
        arms = list(models).count(declared.reference)
        if not arms:
            raise UserError(
                f"--reference {declared.reference} is not one of the models that run on {cohort}"
                f"{did_you_mean(declared.reference, models)}; choose from "
                f"{', '.join(dict.fromkeys(models))}."
            )
        if arms > 1:
            raise UserError(
                f"--reference {declared.reference} is ambiguous, because this model runs with "
                f"{arms} encoders. Choose a model that runs with one encoder."
            )
    if declared.margin is not None and not 0 < declared.margin < float("inf"):
        raise UserError(
            f"--margin must be a positive number, in units of the metric, got {declared.margin}."
        )
