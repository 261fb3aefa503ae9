"""Opening cohorts and planning a comparison, for ``bench run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.config import Config
    from bench.data.cohort import Cohort
    from bench.data.listing import CohortRequest
    from bench.plan import Plan, RunRequest
    from bench.store.store import Store


SHOWN = 20
"""Maximum number of seeds to list."""


def open_cohorts(requests: Sequence[CohortRequest], config: Config) -> list[Cohort]:
    """Open cohorts, preparing their scans if necessary."""
    from bench.cli.progress import Ticker, stoppable
    from bench.data.cohort import open_cohort

    found = []
    for request in requests:
        with stoppable():
            ticker = Ticker(f"{request.name}: preparing scan")
            found.append(open_cohort(request, config.cache, ticker))
    return found


def make_plans(request: RunRequest, cohorts: Sequence[Cohort], store: Store | None) -> list[Plan]:
    """Return the plan of each cohort."""
    from bench.plan import make_plan

    def announce(words: str) -> None:
        print(f"{words} ...", flush=True)

    return [make_plan(request, cohort, store, announce) for cohort in cohorts]


def print_plan(plan: Plan, request: RunRequest) -> None:
    """Print the cohort, what is dropped, and the numbers of trials."""
    from registry.core import counted

    cohort = plan.cohort
    parts = f"{cohort.n_pool} training, {cohort.n_validation} validation, {cohort.n_test} test"
    print(f"{cohort.name}: {cohort.task.target} of {cohort.n_subjects} subjects ({parts})")
    for reason, count in cohort.flow:
        print(f"  {reason}: {count}")
    for warning in cohort.warnings:
        print(f"  warning: {warning}")
    print(f"  split: {_balance_words(cohort)}")
    for what, why in plan.dropped:
        print(f"  not run: {what}: {why}")
    sizes = ", ".join(map(str, plan.sizes))
    seeds = ", ".join(map(str, request.seeds[:SHOWN]))
    if len(request.seeds) > SHOWN:
        seeds += f", ... ({len(request.seeds)} seeds)"
    print(f"  {counted(len(plan.arms), 'model')} at training sizes {sizes}, seeds {seeds}")
    words = {
        "run": "to run",
        "reuse": "already stored",
        "failed": "failed before (use --reuse retry-failed to run them again)",
        "missing": "not stored",
    }
    counts = [
        f"{plan.count(action)} {text}" for action, text in words.items() if plan.count(action)
    ]
    print(f"  trials: {', '.join(counts)}; studies to run: {len(plan.studies)}")
    if plan.seconds is not None:
        hours = plan.seconds / 3600
        print(f"  expected duration: {hours:.2f} hours with one worker, based on stored trials")


def _balance_words(cohort: Cohort) -> str:
    """Describe how similar training, validation and test subjects are."""
    found = cohort.balance.drop_duplicates("what")
    tests = [
        f"{what} p = {p:.2f}" for what, p in zip(found["what"], found["p"], strict=True) if p == p
    ]
    if not tests:
        return "no variables for comparing training, validation and test subjects"
    return f"differences between training, validation and test subjects: {', '.join(tests)}"
