"""``bench plan``: planning a comparison that another machine runs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.comparison_options import ComparisonOptions
from bench.cli.help import OUTPUT
from bench.cli.options import DatasetOptions, Db, Plugins, expand_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.config import Config
    from bench.data.cohort import Cohort
    from bench.data.listing import CohortRequest
    from bench.expected import Durations
    from bench.plan import Plan, RunRequest
    from bench.store.store import Store


SHOWN = 20
"""Maximum number of seeds to list."""
PLACES = ("root", "table", "withdrawals")
"""Options of datasets that are paths, which are different on another machine."""
OWN = ("db", "work", "workers", "reuse")
"""Options that are not part of a stored plan."""


@expand_options
def plan(
    what: ComparisonOptions,
    dataset: DatasetOptions,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Directory to write; it is created if necessary.",
            rich_help_panel=OUTPUT,
        ),
    ],
    plugins: Plugins = None,
    db: Db = None,
) -> None:
    """Write a plan for other machines, which need only the data.

    Options are those of `bench run`. The directory also contains the plugins and pretrained
    weights. On another machine, `bench run --from DIR --shard 1/8` runs the first of eight parts;
    the data is found by --root, --table or bench.toml there. `bench ingest DIR` stores the results.
    """
    from bench.cli.catalogue import load_plugins
    from bench.config import load_config
    from bench.plan_file import write_plan
    from bench.store.database import find_database, has_content
    from bench.store.store import Store
    from registry.core import counted
    from registry.errors import UserError

    config = load_config()
    load_plugins(plugins, strict=True)
    request = what.request(config)
    if what.precision in (None, "auto"):
        raise UserError(
            "bench plan requires --precision fp32 or --precision bf16, because this machine does "
            "not know the hardware of the others."
        )
    cohorts = open_cohorts(what.cohorts(dataset, config), config)
    database = find_database(db or config.db)
    store = Store.for_reading(database) if has_content(database) else None
    try:
        plans = make_plans(request, cohorts, store)
        durations = find_durations(store, cohorts)
    finally:
        if store is not None:
            store.close()
    for each in plans:
        print_plan(each, request, durations)
    given = plain_options(what, dataset)
    options = {name: given[name] for name in given if name not in (*PLACES, "weights")}
    number = write_plan(out, plans, options, carried=True)
    print(f"{counted(number, 'trial')} to run written to {out}.")


def plain_options(*groups: Any) -> dict[str, Any]:
    """Return options as JSON types by the name of their parameter, without those not given."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(each) for each in value]
        return str(value) if isinstance(value, Path) else value

    return {
        field.name: plain(getattr(group, field.name))
        for group in groups
        for field in dataclasses.fields(group)
        if getattr(group, field.name) is not None and field.name not in OWN
    }


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


def find_durations(store: Store | None, cohorts: Sequence[Cohort]) -> Durations:
    """Return the durations of stored trials, from which those of trials on cohorts follow."""
    from bench.expected import Durations

    found = Durations.stored(store)
    for cohort in cohorts:
        found.know(cohort.fingerprint, math.prod(cohort.shape))
    return found


def print_plan(plan: Plan, request: RunRequest, durations: Durations) -> None:
    """Print the cohort, what is dropped, and the numbers of trials."""
    from bench.expected import TimeLeft, in_words
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
    seconds = TimeLeft(durations, plan.units).seconds(parallel=1)
    if seconds is not None:
        print(f"  expected duration: {in_words(seconds)} with one worker, based on stored trials")


def _balance_words(cohort: Cohort) -> str:
    """Describe how similar training, validation and test subjects are."""
    found = cohort.balance.drop_duplicates("what")
    tests = [
        f"{what} p = {p:.2f}" for what, p in zip(found["what"], found["p"], strict=True) if p == p
    ]
    if not tests:
        return "no variables for comparing training, validation and test subjects"
    return f"differences between training, validation and test subjects: {', '.join(tests)}"
