"""``bench run``: from the request to stored rows."""

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
from bench.cli.options import DatasetOptions, Db, Device, Plugins, names_of, takes_dataset_options
from bench.cli.parsing import parse_names, parse_pairs, parse_seeds, parse_size, parse_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.config import Config
    from bench.data.cohort import Cohort
    from bench.data.listing import CohortRequest
    from bench.execute.driver import RunSummary
    from bench.execute.settings import ExecutionSettings
    from bench.plan import Plan, RunRequest
    from bench.store.store import Store
    from registry.cards import ExecutorCard

KEPT: dict[str, tuple[str, ...]] = {"none": (), "best": ("best",), "both": ("best", "last")}
EXAMPLES = """
Examples:

\b
  A first comparison, without any data of your own:
    bench run --model slice2d-imagenet,cnn3d,prior --data synthetic-ad-4mm

\b
  Three training sizes of ADNI, five seeds, the plan only:
    bench run --model slice2d-imagenet,cnn3d --data adni --root /data/ADNI \\
        --train-sizes 50,100,all --seeds 5 --dry-run

\b
  Fixed settings instead of tuning, four processes:
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
            help="Datasets.",
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
            help="Encoders of slice models; default: each model's own.",
            rich_help_panel=COMPARE,
        ),
    ] = None,
    train_sizes: Annotated[
        str,
        typer.Option(
            "--train-sizes",
            metavar="N,...|all",
            help="Numbers of training subjects, as 50,100,all.",
            rich_help_panel=COMPARE,
        ),
    ] = "all",
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="N|LIST",
            help="How many seeds (5), or which ones (0,1,2).",
            rich_help_panel=COMPARE,
        ),
    ] = "5",
    test_data: Annotated[
        str | None,
        typer.Option(
            "--test-data",
            metavar="NAME",
            help="Another dataset, to test on.",
            rich_help_panel=DATA,
        ),
    ] = None,
    new_split: Annotated[
        bool,
        typer.Option(
            "--new-split",
            help="Draw the training, validation and test subjects anew.",
            rich_help_panel=DATA,
        ),
    ] = False,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-pretraining-overlap",
            help="Test encoders also on cohorts that their weights have seen.",
            rich_help_panel=DATA,
            hidden=True,
        ),
    ] = False,
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            metavar="N",
            help="Optuna trials of a study; 0 uses the models' own settings.",
            rich_help_panel=TRAINING,
        ),
    ] = 20,
    tune: Annotated[
        str,
        typer.Option(
            "--tune",
            metavar="shared|per-seed",
            help="Tune once for all seeds, or for each seed.",
            rich_help_panel=TRAINING,
        ),
    ] = "shared",
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            help="Epochs of every network; default: the model's own.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the models; `bench show MODEL --all` lists them.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="ENCODER=FILE",
            help="Pretrained weights of an encoder; repeatable.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="fp32|bf16|auto",
            help="Precision of training; auto is bf16 where the processor multiplies it.",
            rich_help_panel=TRAINING,
        ),
    ] = "fp32",
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Repeat a GPU's numbers exactly; a CPU always does.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Primary metric; default: the task's.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None,
    primary_size: Annotated[
        str | None,
        typer.Option(
            "--primary-size",
            metavar="N|all",
            help="Training size at which claims are made; default: the largest up to half of all.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="MODEL",
            help="Model that all others are compared with; default: all pairs, up to seven models.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="X",
            help="Difference that is too small to matter, in units of the metric.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="Where units of work run, as listed by `bench list executors`.",
            rich_help_panel=EXECUTION,
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Units of work side by side; default: 1, or one for each GPU.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            help="Threads of each unit; default: cores divided by workers.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    device: Device = "auto",
    per_gpu: Annotated[
        int | None,
        typer.Option(
            "--per-gpu",
            metavar="N",
            help="Units that share one GPU; default: 1.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="MINUTES",
            help="Stop a unit after this time; running again continues it.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    reuse: Annotated[
        str,
        typer.Option(
            "--reuse",
            metavar="yes|retry-failed|no|only",
            help="Whether stored trials are used again.",
            rich_help_panel=EXECUTION,
        ),
    ] = "yes",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and stop.", rich_help_panel=EXECUTION)
    ] = False,
    plugins: Plugins = None,
    db: Db = None,
    keep_weights: Annotated[
        str,
        typer.Option(
            "--keep-weights",
            metavar="none|best|both",
            help="Which weights of trained networks to keep.",
            rich_help_panel=OUTPUT,
        ),
    ] = "none",
) -> None:
    """Tune and train the models at every training size.

    Trials that are stored already are not run again.

    Options that take NAME,... or KEY=VALUE may be repeated.
    """
    from bench.cli.catalogue import load_plugins
    from bench.config import load_config
    from bench.execute.driver import record
    from bench.execute.provenance import refuse_tracked_file
    from bench.execute.settings import ExecutionSettings, work_folder
    from bench.plan import RunRequest
    from bench.primary_analysis import PrimaryAnalysis
    from bench.processes import threads_per_unit
    from bench.store.engine import database_file, write_errors
    from registry.core import catalogue
    from registry.errors import UserError

    config = load_config()
    load_plugins(plugins, strict=True)
    _check_choice("--tune", tune, ("shared", "per-seed"))
    _check_choice("--device", device, ("auto", "cpu", "cuda"))
    _check_choice("--precision", precision, ("auto", "fp32", "bf16"))
    _check_choice("--reuse", reuse, ("yes", "retry-failed", "no", "only"))
    _check_least("--trials", trials, 0)
    _check_least("--workers", workers, 1)
    _check_least("--threads", threads, 1)
    _check_least("--per-gpu", per_gpu, 1)
    _check_choice("--keep-weights", keep_weights, tuple(KEPT))
    if time_limit is not None and not time_limit > 0:
        raise UserError(f"--time-limit {time_limit}: give more than 0 minutes.")
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
        precision=precision,
        reuse=reuse,
        weights={**config.weights, **files},
        must_use=tuple(files),
        cache=config.cache,
        allow_overlap=allow_overlap,
        declared=PrimaryAnalysis(metric, parse_size(primary_size), reference, margin),
    )
    # Names first: a typo must not wait for a cohort to be read.
    for name in request.models:
        catalogue.model(name)
    for name in request.encoders:
        catalogue.encoder(name)
    catalogue.executor(executor)
    if device == "cuda":
        from bench.train.numerics import device_for

        device_for(device)
    requests = [dataset.request(name, config, new_split=new_split) for name in parse_names(data)]
    if test_data is not None:
        requests = [_with_test_data(request, test_data, config) for request in requests]
    file = database_file(db or config.db)
    looking = dry_run or reuse == "only"
    if not looking and not all(item.card.synthetic for item in requests):
        # Before the file is opened, which alone would change it.
        refuse_tracked_file(file)
    with write_errors(file), ExitStack() as stack:
        store = _open_store(file, dry_run=looking, stack=stack)
        cohorts = [_open(item, config) for item in requests]
        plans = [_plan(request, cohort, store) for cohort in cohorts]
        for plan in plans:
            _print_plan(plan, request)
        todo = sum(plan.count("run") for plan in plans)
        if looking:
            return
        assert store is not None
        argv = ["bench", *sys.argv[1:]]
        # Stored also when nothing is left to run: reports show what was asked for last.
        command = record(store, plans, request.seeds, argv, request.declared)
        if not todo:
            _finish_without_work(plans, file)
            return
        slots = _workers(plans, device, workers, per_gpu)
        # Where the cache is somebody else's, what units keep is beside the database.
        ours = os.access(request.cache, os.W_OK)
        how = ExecutionSettings(
            database=store.file,
            cache=request.cache if ours else work_folder(store.file) / "cache",
            command=command,
            argv=argv,
            device=device,
            threads=threads or threads_per_unit(slots.workers),
            threads_given=threads is not None,
            deterministic=deterministic,
            keep=KEPT[keep_weights],
            time_limit=None if time_limit is None else 60 * time_limit,
        )
        summary = _execute(
            store, plans, how, catalogue.executor(executor), slots, replace=reuse == "no"
        )
    _close(summary, todo, file)


def _with_test_data(request: CohortRequest, name: str, config: Config) -> CohortRequest:
    """Return a request whose models are tested on another dataset, as bench.toml describes it."""
    from bench.data.listing import with_test_cohort

    test = DatasetOptions(target=request.target).request(name, config)
    return with_test_cohort(request, test)


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    from registry.errors import UserError

    if value not in choices:
        raise UserError(f"{option} {value}: it is one of {', '.join(choices)}.")


def _check_least(option: str, value: int | None, least: int) -> None:
    from registry.errors import UserError

    if value is not None and value < least:
        raise UserError(f"{option} {value}: it is at least {least}.")


def _open_store(file: Path, *, dry_run: bool, stack: ExitStack) -> Store | None:
    from bench.execute.lock import driver_lock
    from bench.store.engine import check_writable
    from bench.store.store import Store

    if dry_run:
        # An empty file is what `bench run` makes a database of.
        store = Store.for_reading(file) if file.exists() and file.stat().st_size else None
        if store is not None:
            stack.callback(store.close)
        return store
    check_writable(file)
    stack.enter_context(driver_lock(file))
    store = Store.for_writing(file)
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
    cohort = plan.cohort
    parts = f"{cohort.n_pool} training, {cohort.n_validation} validation, {cohort.n_test} test"
    print(f"{cohort.name}: {cohort.task.target} of {cohort.n_subjects} subjects ({parts})")
    for reason, count in cohort.flow:
        print(f"  {reason}: {count}")
    for warning in cohort.warnings:
        print(f"  warning: {warning}")
    print(f"  split: {_balance_words(cohort)}")
    for what, why in plan.dropped:
        print(f"  dropped: {what}: {why}")
    sizes = ", ".join(map(str, plan.sizes))
    seeds = ", ".join(map(str, request.seeds))
    models = f"{len(plan.arms)} model{'s' * (len(plan.arms) != 1)}"
    print(f"  {models} at training sizes {sizes}, seeds {seeds}")
    words = {
        "run": "to run",
        "reuse": "stored already",
        "failed": "failed before (--reuse retry-failed runs them again)",
        "missing": "not stored",
    }
    counts = [
        f"{plan.count(action)} {text}" for action, text in words.items() if plan.count(action)
    ]
    print(f"  trials: {', '.join(counts)}; studies to run: {len(plan.studies)}")
    if plan.seconds is not None:
        hours = plan.seconds / 3600
        print(f"  expected: {hours:.2f} hours on one worker, estimated from stored trials")


def _balance_words(cohort: Cohort) -> str:
    """Say how similar the training, validation and test subjects are."""
    found = cohort.balance.drop_duplicates("what")
    tests = [
        f"{what} p = {p:.2f}" for what, p in zip(found["what"], found["p"], strict=True) if p == p
    ]
    if not tests:
        return "no variable to compare training, validation and test subjects by"
    return f"training, validation and test subjects compared by {', '.join(tests)}"


def _finish_without_work(plans: Sequence[Plan], file: Path) -> None:
    failed = sum(plan.count("failed") for plan in plans)
    if failed:
        print(
            f"Nothing to run: {failed} trials failed before and are not tried again; "
            f"to retry them:\n  {_command()} --reuse retry-failed"
        )
        raise typer.Exit(1)
    print(f"Nothing to run: everything of this request is stored in {file}.")


def _workers(plans: Sequence[Plan], device: str, asked: int | None, per_gpu: int | None) -> _Slots:
    """Return how many units run side by side, on how many GPUs, with which modules loaded."""
    from bench.execute.driver import preload_for
    from registry.errors import UserError

    preload = preload_for(plans)
    gpus = 0
    if "torch" in preload:
        from bench.train.numerics import gpu_count

        gpus = gpu_count(device)
    if per_gpu is not None and not gpus:
        raise UserError("--per-gpu needs a GPU and a network to run; use --workers.")
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
    *,
    replace: bool,
) -> RunSummary:
    from bench.cli.progress import make_progress
    from bench.execute.driver import Driver
    from registry.core import resolve

    total = sum(plan.count("run") + len(plan.studies) for plan in plans)
    with make_progress(total) as progress:
        running = resolve(executor.target)(
            slots.workers, gpus=slots.gpus, preload=slots.preload, on_progress=progress.progressed
        )
        stop = _Stop(running, progress)
        try:
            with stop:
                driver = Driver(store, running, settings, progress, lambda: stop.asked)
                return driver.run(plans, replace=replace)
        finally:
            running.shutdown()


class _Stop:
    """Ctrl-C: once finishes what runs, twice stops at once."""

    def __init__(self, executor: Any, progress: Any) -> None:
        self.asked = False
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
        self._progress.say("Finishing what runs; Ctrl-C again stops at once.")


def _close(summary: RunSummary, todo: int, file: Path) -> None:
    print(f"{summary.done} of {todo} trials done, stored in {file}.")
    if summary.stopped:
        print(f"Stopped on request; the same command goes on where this one ended:\n  {_command()}")
        raise typer.Exit(1)
    if summary.failed:
        print(f"{len(summary.failed)} trials did not succeed:")
        for label, error in summary.failed:
            print(f"  {label}: {error}")
        print(f"To retry them:\n  {_command()} --reuse retry-failed")
        raise typer.Exit(1)


def _command() -> str:
    words = sys.argv[1:]
    if "--reuse" in words:
        at = words.index("--reuse")
        del words[at : at + 2]
    return shlex.join(["bench", *words])
