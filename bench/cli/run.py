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

from bench.cli.parsing import (
    Classes,
    Crop,
    DataSet,
    HoldOutSite,
    Register,
    Root,
    SkullStrip,
    Space,
    Tables,
    Target,
    Visits,
    Withdrawals,
    dataset_options,
    parse_names,
    parse_pairs,
    parse_seeds,
    parse_size,
    parse_sizes,
    refuse_skull_strip,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.config import Config
    from bench.data.cohort import Cohort
    from bench.execute.driver import RunSummary
    from bench.execute.settings import ExecutionSettings
    from bench.plan import Plan, Request
    from bench.store.store import Store
    from registry.cards import ExecutorCard

MANY = "Comma-separated or repeated."
KEPT: dict[str, tuple[str, ...]] = {"none": (), "best": ("best",), "both": ("best", "last")}


def run(
    model: Annotated[list[str], typer.Option("--model", help=f"Models to compare. {MANY}")],
    data: Annotated[list[str], typer.Option("--data", help=f"Datasets. {MANY}")],
    encoder: Annotated[
        list[str] | None, typer.Option("--encoder", help=f"Encoders of slice models. {MANY}")
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="How many (5) or which (0,1,2).")] = "5",
    train_sizes: Annotated[
        str, typer.Option("--train-sizes", help="Training subjects: 50,100,all.")
    ] = "all",
    trials: Annotated[
        int, typer.Option("--trials", help="Optuna trials a study; 0 uses the cards' settings.")
    ] = 20,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Epochs of every network; default: its card's.")
    ] = None,
    root: Root = None,
    table: Tables = None,
    data_set: DataSet = None,
    visits: Visits = None,
    classes: Classes = None,
    crop: Crop = None,
    space: Space = None,
    register: Register = None,
    skull_strip: SkullStrip = False,
    withdrawals: Withdrawals = None,
    hold_out_site: HoldOutSite = None,
    test_data: Annotated[
        str | None, typer.Option("--test-data", help="Another dataset, to test on.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A model's setting, key=value.")
    ] = None,
    tune: Annotated[str, typer.Option("--tune", help="shared or per-seed.")] = "shared",
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Declare the primary metric; default: the task's."),
    ] = None,
    primary_size: Annotated[
        str | None,
        typer.Option(
            "--primary-size",
            help="Declare the size that claims are made at; default: the largest up to half.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Declare a model that all others are compared with."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Declare a difference too small to matter, in the metric."),
    ] = None,
    target: Target = None,
    executor: Annotated[
        str, typer.Option("--executor", help="Where units run: local, or a plugin's.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option("--workers", help="Units side by side; default: 1, or one a GPU.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads a unit; default: cores // workers.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, bf16, or auto: the device's best.")
    ] = "fp32",
    per_gpu: Annotated[
        int | None, typer.Option("--per-gpu", help="Units that share one GPU; default: 1.")
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Repeat a GPU's numbers exactly; a CPU always does."),
    ] = False,
    keep_weights: Annotated[
        str, typer.Option("--keep-weights", help="Weights of trials to keep: none, best, or both.")
    ] = "none",
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", help="Minutes after which a unit stops, to go on later."),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option("--weights", help="Pretrained weights, ENCODER=FILE.")
    ] = None,
    db: Annotated[str | None, typer.Option("--db", help="Database file or sqlite:/// URL.")] = None,
    reuse: Annotated[
        str, typer.Option("--reuse", help="Stored trials: yes, retry-failed, no, or only.")
    ] = "yes",
    new_split: Annotated[
        bool, typer.Option("--new-split", help="Draw train, validation and test anew.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-pretraining-overlap",
            help="Test encoders also on cohorts that their weights have seen.",
        ),
    ] = False,
    plugins: Annotated[list[Path] | None, typer.Option("--plugins", help="Plugin file.")] = None,
) -> None:
    """Tune, train and store every cell of the grid that is not stored yet."""
    from bench.cli.catalogue import load_plugins
    from bench.config import load_config
    from bench.declared import Declared
    from bench.execute.driver import record
    from bench.execute.provenance import refuse_tracked_file
    from bench.execute.settings import ExecutionSettings, work_folder
    from bench.plan import Request
    from bench.processes import threads_a_unit
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
        raise UserError(f"--time-limit {time_limit}: it is more than 0 minutes.")
    settings = parse_pairs("--set", set_)
    files = parse_pairs("--weights", weights)
    if epochs is not None:
        settings["epochs"] = str(epochs)
    request = Request(
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
        declared=Declared(metric, parse_size(primary_size), reference, margin),
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
    refuse_skull_strip(skull_strip)
    options = dataset_options(
        data_set,
        table,
        visits=visits,
        classes=classes,
        crop=crop,
        space=space,
        register=register,
        withdrawals=withdrawals,
        hold_out_site=hold_out_site,
    )
    wanted = _Data(root, options, target, new_split, test_data)
    requests = [wanted.request(name, config) for name in parse_names(data)]
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
            threads=threads or threads_a_unit(slots.workers),
            threads_given=threads is not None,
            deterministic=deterministic,
            keep=KEPT[keep_weights],
            time_limit=None if time_limit is None else 60 * time_limit,
        )
        summary = _execute(
            store, plans, how, catalogue.executor(executor), slots, replace=reuse == "no"
        )
    _close(summary, todo, file)


class _Data:
    """What the command line says of the datasets, for each of their names."""

    def __init__(
        self,
        root: Path | None,
        options: dict[str, str],
        target: str | None,
        new_split: bool,
        test_data: str | None,
    ) -> None:
        self.root = root
        self.options = options
        self.target = target
        self.new_split = new_split
        self.test_data = test_data

    def request(self, name: str, config: Config) -> Any:
        from bench.data.listing import cohort_request, with_test_cohort

        request = cohort_request(
            name,
            config.data.get(name, {}),
            root=self.root,
            options=self.options,
            target=self.target,
            new_split=self.new_split,
        )
        if self.test_data is None:
            return request
        test = cohort_request(
            self.test_data, config.data.get(self.test_data, {}), target=request.target
        )
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
    stack.callback(store.close, settle=True)
    return store


def _open(request: Any, config: Config) -> Cohort:
    from bench.cli.progress import Ticker, stoppable
    from bench.data.cohort import open_cohort

    with stoppable():
        return open_cohort(request, config.cache, Ticker(f"{request.name}: preparing scan"))


def _plan(request: Request, cohort: Cohort, store: Store | None) -> Plan:
    from bench.plan import make_plan

    return make_plan(
        request, cohort, store, announce=lambda words: print(f"{words} ...", flush=True)
    )


def _print_plan(plan: Plan, request: Request) -> None:
    cohort = plan.cohort
    sides = f"{cohort.n_pool} to train on, {cohort.n_validation} validation, {cohort.n_test} test"
    print(f"{cohort.name}: {cohort.task.target} of {cohort.n_subjects} subjects ({sides})")
    for reason, count in cohort.flow:
        print(f"  {reason}: {count}")
    for warning in cohort.warnings:
        print(f"  warning: {warning}")
    print(f"  split: {_balance_words(cohort)}")
    for what, why in plan.dropped:
        print(f"  dropped: {what}: {why}")
    sizes = ", ".join(map(str, plan.sizes))
    seeds = ", ".join(map(str, request.seeds))
    print(f"  {len(plan.arms)} arms at training sizes {sizes}, seeds {seeds}")
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
        print(f"  expected: {plan.seconds / 3600:.2f} hours of one worker, from stored durations")


def _balance_words(cohort: Cohort) -> str:
    """Say how alike the sides are."""
    found = cohort.balance.drop_duplicates("what")
    tests = [
        f"{what} p = {p:.2f}" for what, p in zip(found["what"], found["p"], strict=True) if p == p
    ]
    return f"sides compared by {', '.join(tests)}" if tests else "nothing to compare the sides by"


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
