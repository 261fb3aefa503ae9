"""``bench run``: tuning and training models, and storing the results."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from bench.cli.help import ANALYSIS, COMPARE, DATA, EXECUTION, OUTPUT, TRAINING
from bench.cli.options import (
    DatasetOptions,
    Db,
    Device,
    Plugins,
    Work,
    names_of,
    takes_dataset_options,
)
from bench.cli.parsing import parse_names, parse_pairs, parse_seeds, parse_size, parse_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.config import Config
    from bench.data.cohort import Cohort
    from bench.data.listing import CohortRequest
    from bench.execute.driver import RunSummary
    from bench.execute.settings import ExecutionSettings
    from bench.plan import Plan, RunRequest
    from bench.store.database import Database
    from bench.store.store import Store
    from registry.cards import ExecutorCard

KEPT: dict[str, tuple[str, ...]] = {"none": (), "best": ("best",), "both": ("best", "last")}
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


@takes_dataset_options
def run(
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="NAME,...",
            autocompletion=names_of("models"),
            help="Models to compare.",
            rich_help_panel=COMPARE,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="NAME,...",
            autocompletion=names_of("datasets"),
            help="Datasets to train and test on.",
            rich_help_panel=DATA,
        ),
    ],
    dataset: DatasetOptions,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            metavar="NAME,...",
            autocompletion=names_of("encoders"),
            help="Encoders for slice models; default: that of each model.",
            rich_help_panel=COMPARE,
        ),
    ] = None,
    train_sizes: Annotated[
        str,
        typer.Option(
            "--train-sizes",
            metavar="N,...|all",
            help="Numbers of training subjects, for example 50,100,all.",
            rich_help_panel=COMPARE,
        ),
    ] = "all",
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="N|LIST",
            help="Number of seeds (5), or list of seeds (0,1,2).",
            rich_help_panel=COMPARE,
        ),
    ] = "5",
    test_data: Annotated[
        str | None,
        typer.Option(
            "--test-data",
            metavar="NAME",
            help="Another dataset to test on.",
            rich_help_panel=DATA,
        ),
    ] = None,
    new_split: Annotated[
        bool,
        typer.Option(
            "--new-split",
            help="Split the subjects again, discarding the previous split.",
            rich_help_panel=DATA,
        ),
    ] = False,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-pretraining-overlap",
            help="Test encoders also on cohorts that were part of their pretraining.",
            rich_help_panel=DATA,
            hidden=True,
        ),
    ] = False,
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            metavar="N",
            help="Optuna trials per study; 0 uses the default settings without tuning.",
            rich_help_panel=TRAINING,
        ),
    ] = 20,
    tune: Annotated[
        str,
        typer.Option(
            "--tune",
            metavar="shared|per-seed",
            help="Tune once for all seeds, or separately for each seed.",
            rich_help_panel=TRAINING,
        ),
    ] = "shared",
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            help="Number of epochs of all networks; default: that of each model.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of the models, as listed by `bench show MODEL --all`.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="ENCODER=FILE",
            help="File with pretrained weights of an encoder; repeatable.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="fp32|bf16|auto",
            help="Precision of training; auto is bf16 if the hardware supports it, otherwise fp32. "
            "Default: fp32; must be given with --executor slurm or ray.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Make results on a GPU exactly reproducible; on a CPU they always are.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Primary metric; default: that of the task.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None,
    primary_size: Annotated[
        str | None,
        typer.Option(
            "--primary-size",
            metavar="N|all",
            help="Primary training size; default: the largest up to half of the training subjects.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="MODEL",
            help="Model to compare all others with; default: all pairs, up to seven models.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="X",
            help="Largest difference that is irrelevant in practice, in units of the metric.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="Executor of units of work, as listed by `bench list executors`.",
            rich_help_panel=EXECUTION,
        ),
    ] = "local",
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE",
            help="Option of sbatch for --executor slurm, for example partition=gpu; repeatable.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    ray: Annotated[
        list[str] | None,
        typer.Option(
            "--ray",
            metavar="KEY=VALUE",
            help="Option for --executor ray: address=HOST:PORT of a cluster, num_gpus=0.5, "
            "num_cpus, memory or resources of a unit; repeatable.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Number of units of work to run in parallel; default: 1, one per GPU, or no limit "
            "with --executor slurm or ray.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            help="Number of threads per unit; default: cores divided by workers, cpus-per-task of "
            "Slurm or num_cpus of Ray.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    device: Device = "auto",
    per_gpu: Annotated[
        int | None,
        typer.Option(
            "--per-gpu",
            metavar="N",
            help="Number of units that share a GPU; default: 1.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="MINUTES",
            help="Stop a unit after this time; the same command resumes it.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    reuse: Annotated[
        str,
        typer.Option(
            "--reuse",
            metavar="yes|retry-failed|no|only",
            help="Whether to reuse stored trials instead of running them again.",
            rich_help_panel=EXECUTION,
        ),
    ] = "yes",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan without running it.", rich_help_panel=EXECUTION
        ),
    ] = False,
    plugins: Plugins = None,
    db: Db = None,
    work: Work = None,
    keep_weights: Annotated[
        str,
        typer.Option(
            "--keep-weights",
            metavar="none|best|both",
            help="Which weights of trained networks to save.",
            rich_help_panel=OUTPUT,
        ),
    ] = "none",
) -> None:
    """Tune and train models at one or several training sizes.

    Trials that are already stored are not run again.

    Options with NAME,... or KEY=VALUE can be repeated.
    """
    from bench.cli.catalogue import load_plugins
    from bench.config import load_config
    from bench.execute.driver import record
    from bench.execute.provenance import refuse_tracked_file
    from bench.execute.settings import ExecutionSettings, work_folder
    from bench.plan import RunRequest, check_request
    from bench.primary_analysis import PrimaryAnalysis
    from bench.store.database import find_database, write_errors
    from bench.store.postgres import without_password
    from registry.core import catalogue, resolve
    from registry.errors import UserError

    config = load_config()
    load_plugins(plugins, strict=True)
    _check_choice("--tune", tune, ("shared", "per-seed"))
    _check_choice("--device", device, ("auto", "cpu", "cuda"))
    _check_choice("--precision", precision or "fp32", ("auto", "fp32", "bf16"))
    _check_choice("--reuse", reuse, ("yes", "retry-failed", "no", "only"))
    _check_least("--trials", trials, 0)
    _check_least("--workers", workers, 1)
    _check_least("--threads", threads, 1)
    _check_least("--per-gpu", per_gpu, 1)
    _check_choice("--keep-weights", keep_weights, tuple(KEPT))
    if time_limit is not None and not time_limit > 0:
        raise UserError(f"--time-limit must be greater than 0 minutes, got {time_limit:g}.")
    settings = parse_pairs("--set", set_)
    files = parse_pairs("--weights", weights)
    if epochs is not None:
        settings["epochs"] = str(epochs)
    request = RunRequest(
        models=parse_names(model),
        encoders=parse_names(encoder),
        seeds=parse_seeds(seeds),
        sizes=parse_sizes(train_sizes),
        trials=trials,
        tune=tune,
        settings=settings,
        device=device,
        precision=precision or "fp32",
        reuse=reuse,
        weights={**config.weights, **files},
        must_use=tuple(files),
        cache=config.cache,
        allow_overlap=allow_overlap,
        declared=PrimaryAnalysis(metric, parse_size(primary_size), reference, margin),
    )
    check_request(request)
    card = catalogue.executor(executor)
    given = {"slurm": parse_pairs("--slurm", slurm), "ray": parse_pairs("--ray", ray)}
    for name, pairs in given.items():
        if pairs and executor != name:
            raise UserError(f"--{name} requires --executor {name}.")
    options = {**config.executors.get(executor, {}), **given.get(executor, {})}
    if card.remote and precision in (None, "auto"):
        raise UserError(
            f"--executor {executor} requires --precision fp32 or --precision bf16, because this "
            "machine does not know the hardware of the others."
        )
    looking = dry_run or reuse == "only"
    if card.remote and not looking:
        remote: Any = resolve(card.target)
        remote.check(options)
    if device == "cuda" and not card.remote:
        from bench.train.numerics import device_for

        device_for(device)
    requests = [dataset.request(name, config, new_split=new_split) for name in parse_names(data)]
    if test_data is not None:
        requests = [_with_test_data(request, test_data, config) for request in requests]
    database = find_database(db or config.db)
    if not looking:
        folder = work_folder(database, work)
        if isinstance(database, Path) and not all(item.card.synthetic for item in requests):
            # Checked before the file is opened, because opening it for writing changes it.
            refuse_tracked_file(database)
    with write_errors(database), ExitStack() as stack:
        store = _open_store(database, dry_run=looking, stack=stack)
        cohorts = [_open(item, config) for item in requests]
        plans = [_plan(request, cohort, store) for cohort in cohorts]
        for plan in plans:
            _print_plan(plan, request)
        todo = sum(plan.count("run") for plan in plans)
        if looking:
            return
        assert store is not None
        argv = ["bench", *map(without_password, sys.argv[1:])]
        # Stored even if there is nothing to run, because reports show the latest request.
        command = record(store, plans, request.seeds, argv, request.declared)
        if not todo:
            _finish_without_work(plans, database)
            return
        slots = _workers(plans, card, device, workers, per_gpu)
        # If the cache belongs to another user, units use a directory next to the database.
        writable = os.access(request.cache, os.W_OK)
        how = ExecutionSettings(
            database=store.database,
            cache=request.cache if writable else folder / "cache",
            command=command,
            argv=argv,
            device=device,
            threads=threads or _threads(card, options, slots.workers),
            threads_given=threads is not None,
            deterministic=deterministic,
            keep=KEPT[keep_weights],
            time_limit=None if time_limit is None else 60 * time_limit,
            work_given=work,
        )
        summary = _execute(store, plans, how, card, slots, options, replace=reuse == "no")
    _close(summary, todo, database)


def _with_test_data(request: CohortRequest, name: str, config: Config) -> CohortRequest:
    """Return a request with another test cohort, whose options are those in bench.toml."""
    from bench.data.listing import with_test_cohort

    test = DatasetOptions(target=request.target).request(name, config)
    return with_test_cohort(request, test)


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    from registry.errors import UserError

    if value not in choices:
        raise UserError(f"{option} must be one of {', '.join(choices)}, got {value!r}.")


def _check_least(option: str, value: int | None, least: int) -> None:
    from registry.errors import UserError

    if value is not None and value < least:
        raise UserError(f"{option} must be at least {least}, got {value}.")


def _open_store(database: Database, *, dry_run: bool, stack: ExitStack) -> Store | None:
    from bench.execute.lock import driver_lock
    from bench.store.database import check_writable, has_content
    from bench.store.store import Store

    if dry_run:
        # An empty file is treated like a missing one, because `bench run` would fill it.
        store = Store.for_reading(database) if has_content(database) else None
        if store is not None:
            stack.callback(store.close)
        return store
    check_writable(database)
    stack.enter_context(driver_lock(database))
    store = Store.for_writing(database)
    stack.callback(store.close, leave_wal=True)
    return store


def _open(request: Any, config: Config) -> Cohort:
    from bench.cli.progress import Ticker, stoppable
    from bench.data.cohort import open_cohort

    with stoppable():
        return open_cohort(request, config.cache, Ticker(f"{request.name}: preparing scan"))


def _plan(request: RunRequest, cohort: Cohort, store: Store | None) -> Plan:
    from bench.plan import make_plan

    return make_plan(
        request, cohort, store, announce=lambda words: print(f"{words} ...", flush=True)
    )


def _print_plan(plan: Plan, request: RunRequest) -> None:
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
    seeds = ", ".join(map(str, request.seeds))
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


def _finish_without_work(plans: Sequence[Plan], database: Database) -> None:
    failed = sum(plan.count("failed") for plan in plans)
    if failed:
        print(
            f"Nothing to run: {failed} trials failed before. To run them again:\n"
            f"  {_command()} --reuse retry-failed"
        )
        raise typer.Exit(1)
    print(f"Nothing to run: all requested trials are already stored in {database}.")


def _threads(executor: ExecutorCard, options: Mapping[str, Any], workers: int) -> int:
    """Return the default number of threads per unit."""
    from bench.processes import threads_per_unit
    from registry.core import resolve

    if not executor.remote:
        return threads_per_unit(workers)
    remote: Any = resolve(executor.target)
    return int(remote.threads(options))


def _workers(
    plans: Sequence[Plan],
    executor: ExecutorCard,
    device: str,
    asked: int | None,
    per_gpu: int | None,
) -> _Slots:
    """Return the number of workers and GPUs, and the modules to preload.

    Other machines have their own GPUs; there, 0 workers means no limit.
    """
    from bench.execute.driver import preload_for
    from registry.errors import UserError

    preload = preload_for(plans)
    gpus = 0
    if "torch" in preload and not executor.remote:
        from bench.train.numerics import gpu_count

        gpus = gpu_count(device)
    if per_gpu is not None and not gpus:
        raise UserError(
            "--per-gpu requires a GPU and a network to train on it; use --workers instead."
        )
    if executor.remote:
        return _Slots(asked or 0, gpus, preload)
    return _Slots(asked or max(1, gpus * (per_gpu or 1)), gpus, preload)


class _Slots(NamedTuple):
    workers: int
    gpus: int
    preload: list[str]


def _execute(
    store: Store,
    plans: Sequence[Plan],
    settings: ExecutionSettings,
    executor: ExecutorCard,
    slots: _Slots,
    options: Mapping[str, Any],
    *,
    replace: bool,
) -> RunSummary:
    from bench.cli.progress import make_progress, stoppable
    from bench.execute.driver import Driver
    from registry.core import resolve

    remote = {"options": options, "work": settings.work, "cache": settings.cache}
    total = sum(plan.count("run") + len(plan.studies) for plan in plans)
    with make_progress(total) as progress:
        with stoppable():
            running = resolve(executor.target)(
                slots.workers,
                gpus=slots.gpus,
                preload=slots.preload,
                on_progress=progress.progressed,
                **({**remote, "say": progress.say} if executor.remote else {}),
            )
        stop = _Stop(running, progress, remote=executor.remote)
        try:
            with stop:
                driver = Driver(store, running, settings, progress, lambda: stop.asked)
                return driver.run(plans, replace=replace)
        finally:
            running.shutdown()


class _Stop:
    """Handles Ctrl-C: the first lets running units finish, the second stops them."""

    def __init__(self, executor: Any, progress: Any, *, remote: bool) -> None:
        self.asked = False
        self._queued = "Queued jobs are cancelled. " if remote else ""
        self._executor = executor
        self._progress = progress

    def __enter__(self) -> _Stop:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: Any) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, *_: Any) -> None:
        if self.asked:
            self._executor.kill()
            return
        self.asked = True
        self._progress.say(
            f"{self._queued}Waiting for running trials; press Ctrl-C again to stop immediately."
        )


def _close(summary: RunSummary, todo: int, database: Database) -> None:
    from registry.core import counted

    print(f"{summary.done} of {todo} trials done; results are stored in {database}.")
    if summary.stopped:
        print(f"Stopped on request. To resume, run the same command again:\n  {_command()}")
        raise typer.Exit(1)
    if summary.failed:
        print(f"{counted(len(summary.failed), 'trial')} failed or interrupted:")
        for label, error in summary.failed:
            print(f"  {label}: {error}")
        print(f"To run them again:\n  {_command()} --reuse retry-failed")
        raise typer.Exit(1)


def _command() -> str:
    from bench.store.postgres import without_password

    words = [without_password(word) for word in sys.argv[1:]]
    if "--reuse" in words:
        at = words.index("--reuse")
        del words[at : at + 2]
    return shlex.join(["bench", *words])
