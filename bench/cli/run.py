"""``bench run``: tuning and training models, and storing the results."""

from __future__ import annotations

import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.comparison_options import ComparisonOptions
from bench.cli.execution_options import ExecutionOptions
from bench.cli.help import EXECUTION
from bench.cli.options import DatasetOptions, expand_options
from bench.cli.parsing import parse_shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cli.execution_options import Resources
    from bench.cli.progress import BarProgress, PlainProgress
    from bench.execute.driver import RunSummary
    from bench.execute.settings import ExecutionSettings
    from bench.plan import Plan
    from bench.store.database import Database
    from bench.store.store import Store
    from bench.store.tracking import Tracker
    from registry.cards import ExecutorCard

SHOWN = 20
"""Maximum number of failed trials to list."""
EXAMPLES = """
Examples:

\b
  A first comparison on a synthetic cohort:
    bench run --model slice2d-imagenet,cnn3d,prior --data synthetic-ad-4mm

\b
  Print the plan for three training sizes of ADNI and five seeds:
    bench run --model slice2d-imagenet,cnn3d --data adni --root /data/ADNI \\
        --train-sizes 50,100,all --seeds 5 --dry-run

\b
  Use fixed settings instead of tuning, and four processes:
    bench run --model cnn3d --data ukbb --root /data/ukb --target age \\
        --trials 0 --set lr=1e-4 --epochs 50 --workers 4
"""


def _read_plan(context: typer.Context, folder: Path | None) -> Any:
    """Read a plan, whose options become the defaults of this command."""
    if folder is None:
        return None
    from bench.plan_file import read_plan

    plan = read_plan(folder)
    context.default_map = dict(plan.options)
    return plan


@expand_options
def run(
    what: ComparisonOptions,
    dataset: DatasetOptions,
    how: ExecutionOptions,
    planned: Annotated[
        Any,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Run the plan that `bench plan` has written into a directory.",
            parser=Path,
            is_eager=True,
            callback=_read_plan,
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Run only part I of N of the plan given by --from.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Submit the jobs and return; `bench ingest` stores what they have finished.",
            rich_help_panel=EXECUTION,
        ),
    ] = False,
    # Hidden, because it is `bench ingest`.
    collect: Annotated[bool, typer.Option("--collect", hidden=True)] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan without running it.", rich_help_panel=EXECUTION
        ),
    ] = False,
) -> None:
    """Tune and train models at one or several training sizes.

    Trials that are already stored are not run again.

    Options with NAME,... or KEY=VALUE can be repeated.
    """
    from bench.cli.catalogue import load_plugins
    from bench.cli.plan import (
        find_durations,
        make_plans,
        open_cohorts,
        plain_options,
        print_plan,
    )
    from bench.cli.progress import make_progress
    from bench.config import load_config
    from bench.execute.driver import Driver, record
    from bench.execute.provenance import refuse_tracked_file
    from bench.execute.settings import work_folder
    from bench.expected import TimeLeft
    from bench.plan_file import forget_plans, keep_plan, restricted
    from bench.store.database import find_database, write_errors
    from bench.store.postgres import without_password
    from registry.errors import UserError

    config = load_config()
    load_plugins(how.plugins, strict=True)
    request = what.request(config, device=how.device, reuse=how.reuse)
    how.check(what.precision, detach=detach)
    looking = dry_run or how.reuse == "only"
    if not (looking or collect):
        how.check_hardware(config)
    cohort_requests = what.cohorts(dataset, config)
    part = None if shard is None else parse_shard(shard)
    if part and planned is None:
        raise UserError("--shard requires --from, the directory of a plan.")
    own = config.db if planned is None or collect else str(planned.database(part))
    database = find_database(how.db or own)
    if not looking:
        work_folder(database, how.work)
        if isinstance(database, Path) and not all(item.card.synthetic for item in cohort_requests):
            # Checked before the file is opened, because opening it for writing changes it.
            refuse_tracked_file(database)
    with write_errors(database), ExitStack() as stack:
        store = _open_store(database, dry_run=looking, stack=stack)
        cohorts = open_cohorts(cohort_requests, config)
        plans = make_plans(request, cohorts, store)
        durations = find_durations(store, cohorts)
        if planned is not None:
            planned.check(plans)
            keys = planned.shard(*part) if part else planned.keys
            plans = [restricted(plan, keys) for plan in plans]
        for plan in plans:
            print_plan(plan, request, durations)
        todo = sum(plan.count("run") for plan in plans)
        if dry_run and todo and how.card.detachable:
            for title, script in how.batch_scripts(plans, config):
                print(f"\n{title}:\n\n{script.strip()}")
        if looking:
            return
        assert store is not None
        argv = ["bench", *map(without_password, sys.argv[1:])]
        # Stored even if there is nothing to run, because reports show the latest request.
        command = record(store, plans, request.seeds, argv, request.declared)
        if not todo:
            _finish_without_work(plans, database)
            return
        resources = how.resources(plans, config, store)
        settings = how.settings(store.database, request.cache, command, argv, resources, todo)
        kept = None
        if how.card.detachable and not collect:
            # For `bench ingest` and `bench status`, even if this process is killed.
            kept = keep_plan(settings.work, plans, plain_options(what, dataset, how))
        left = TimeLeft(durations, [unit for plan in plans for unit in plan.units])
        trackers = how.trackers()
        with make_progress(left, resources.workers) as progress:
            if collect:
                driver = Driver(store, None, settings, progress, lambda: False, trackers)
                summary = driver.run(plans)
            else:
                summary = _execute(
                    store, plans, how, settings, resources, progress, trackers, detach=detach
                )
        ended = not (summary.left or summary.stopped)
        forget_plans(settings.work, store, kept if ended else None)
    if summary.left:
        _say_what_is_left(summary, todo, database, how, collect=collect)
    else:
        _close(summary, todo, database)


def _open_store(database: Database, *, dry_run: bool, stack: ExitStack) -> Store | None:
    from bench.cli.progress import stoppable
    from bench.execute.lock import driver_lock
    from bench.store.database import check_writable, has_content
    from bench.store.engine import network_warning
    from bench.store.store import Store

    if dry_run:
        # An empty file is treated like a missing one, because `bench run` would fill it.
        store = Store.for_reading(database) if has_content(database) else None
        if store is not None:
            stack.callback(store.close)
        return store
    check_writable(database)
    with stoppable():
        stack.enter_context(driver_lock(database, lambda words: print(words, flush=True)))
    words = network_warning(database) if isinstance(database, Path) else ""
    if words:
        print(f"warning: {words}")
    store = Store.for_writing(database)
    stack.callback(store.close, leave_wal=True)
    return store


def _finish_without_work(plans: Sequence[Plan], database: Database) -> None:
    failed = sum(plan.count("failed") for plan in plans)
    if failed:
        print(
            f"Nothing to run: {failed} trials failed before. To run them again:\n"
            f"  {_command()} --reuse retry-failed"
        )
        raise typer.Exit(1)
    print(f"Nothing to run: all requested trials are already stored in {database}.")


def _execute(
    store: Store,
    plans: Sequence[Plan],
    how: ExecutionOptions,
    settings: ExecutionSettings,
    resources: Resources,
    progress: PlainProgress | BarProgress,
    trackers: Sequence[Tracker],
    *,
    detach: bool,
) -> RunSummary:
    from bench.cli.progress import stoppable
    from bench.execute.driver import Driver

    with stoppable():
        executor = how.start(resources, settings, progress.progressed, progress.say)
    stop = _Stop(executor, progress, how.card)
    try:
        with stop:
            driver = Driver(store, executor, settings, progress, stop, trackers)
            return driver.run(plans, replace=how.reuse == "no", detach=detach)
    finally:
        executor.shutdown()


class _Stop:
    """Handles Ctrl-C: the first lets running units finish, the second stops them.

    On a terminal, the first asks what to do about units that can continue without the command.
    """

    def __init__(self, executor: Any, progress: Any, card: ExecutorCard) -> None:
        self._executor = executor
        self._progress = progress
        self._queued = "Queued jobs are cancelled. " if card.remote else ""
        self._asks = card.detachable and sys.stdin.isatty() and sys.stdout.isatty()
        self._pressed = self._asking = False

    def __enter__(self) -> _Stop:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: Any) -> None:
        signal.signal(signal.SIGINT, self._before)

    def __call__(self) -> bool:
        """Return whether to stop, after a question if there is one."""
        if self._pressed and self._asks:
            self._asks = False
            if self._wants_to_cancel():
                self._executor.kill()
            else:
                self._progress.say("The jobs continue; the same command stores their results.")
                self._executor.detach()
        return self._pressed

    def _wants_to_cancel(self) -> bool:
        self._asking = True
        try:
            answer = self._progress.ask("Cancel the jobs too? [y/N] ")
        except (KeyboardInterrupt, EOFError):
            return True
        finally:
            self._asking = False
        return answer.strip().lower() in ("y", "yes")

    def _handle(self, *_: Any) -> None:
        if self._asking:
            raise KeyboardInterrupt
        if self._pressed:
            self._executor.kill()
        elif not self._asks:
            self._progress.say(
                f"{self._queued}Waiting for running trials; press Ctrl-C again to stop immediately."
            )
        self._pressed = True


def _say_what_is_left(
    summary: RunSummary, todo: int, database: Database, how: ExecutionOptions, *, collect: bool
) -> None:
    from bench.store.postgres import without_password
    from registry.core import counted

    left = counted(summary.left, "unit")
    print(f"{summary.done} of {todo} trials done; results are stored in {database}.")
    print(f"{left} without an outcome yet." if collect else f"{left} left to {how.executor}.")
    words = [] if how.db is None else ["--db", without_password(how.db)]
    words += [] if how.work is None else ["--work", str(how.work)]
    print(f"To follow them:\n  {shlex.join(['bench', 'status', '--watch', *words])}")
    print(f"To store what they have finished:\n  {shlex.join(['bench', 'ingest', *words])}")
    print("Trials of unfinished studies are submitted when the same command is run again.")


def _close(summary: RunSummary, todo: int, database: Database) -> None:
    from registry.core import counted

    print(f"{summary.done} of {todo} trials done; results are stored in {database}.")
    if summary.stopped:
        print(f"Stopped on request. To resume, run the same command again:\n  {_command()}")
        raise typer.Exit(1)
    if summary.failed:
        print(f"{counted(len(summary.failed), 'trial')} failed or interrupted:")
        for label, error in summary.failed[:SHOWN]:
            print(f"  {label}: {error}")
        if len(summary.failed) > SHOWN:
            print(f"  and {len(summary.failed) - SHOWN} more")
        print(f"To run them again:\n  {_command()} --reuse retry-failed")
        raise typer.Exit(1)


def _command() -> str:
    from bench.store.postgres import without_password

    words = [without_password(word) for word in sys.argv[1:]]
    if "--reuse" in words:
        at = words.index("--reuse")
        del words[at : at + 2]
    return shlex.join(["bench", *words])
