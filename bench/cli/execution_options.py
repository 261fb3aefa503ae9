"""The options of ``bench run`` that decide how and where units of work run."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.help import EXECUTION, OUTPUT, TRAINING
from bench.cli.options import Db, Device, Plugins, Work
from bench.cli.parsing import check_choice, check_least, parse_limit, parse_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.config import Config
    from bench.execute.base import Executor, OnProgress
    from bench.execute.settings import ExecutionSettings
    from bench.plan import Plan
    from bench.store.database import Database
    from bench.store.store import Store
    from bench.store.tracking import Tracker
    from registry.cards import ExecutorCard

KEPT: dict[str, tuple[str, ...]] = {"none": (), "best": ("best",), "both": ("best", "last")}


@dataclass(frozen=True)
class ExecutionOptions:
    """Executor, resources, reuse of stored trials, and places; none of them is part of a key."""

    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Make results on a GPU exactly reproducible; on a CPU they always are.",
            rich_help_panel=TRAINING,
        ),
    ] = False
    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="Executor of units of work, as listed by `bench list executors`.",
            rich_help_panel=EXECUTION,
        ),
    ] = "local"
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE",
            help="Option of sbatch for --executor slurm, for example partition=gpu; repeatable.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    ray: Annotated[
        list[str] | None,
        typer.Option(
            "--ray",
            metavar="KEY=VALUE",
            help="Option for --executor ray: address=HOST:PORT of a cluster, num_gpus=0.5, "
            "num_cpus, memory or resources of a unit; repeatable.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Number of units of work to run in parallel; default: 1, one per GPU, or no limit "
            "with --executor slurm or ray.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            help="Number of threads per unit; default: cores divided by workers, cpus-per-task of "
            "Slurm or num_cpus of Ray.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory for all workers together, for example 8G; fewer units run at a time if "
            "they need more. Default: what is available.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    device: Device = "auto"
    per_gpu: Annotated[
        int | None,
        typer.Option(
            "--per-gpu",
            metavar="N",
            help="Number of units that share a GPU; default: 1.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="MINUTES",
            help="Stop a unit after this time; the same command resumes it.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    max_failures: Annotated[
        str | None,
        typer.Option(
            "--max-failures",
            metavar="N|N%",
            help="Start no more units after more than N trials, or N % of them, have failed.",
            rich_help_panel=EXECUTION,
        ),
    ] = None
    reuse: Annotated[
        str,
        typer.Option(
            "--reuse",
            metavar="yes|retry-failed|no|only",
            help="Whether to reuse stored trials instead of running them again.",
            rich_help_panel=EXECUTION,
        ),
    ] = "yes"
    plugins: Plugins = None
    db: Db = None
    work: Work = None
    keep_weights: Annotated[
        str,
        typer.Option(
            "--keep-weights",
            metavar="none|best|both",
            help="Which weights of trained networks to save.",
            rich_help_panel=OUTPUT,
        ),
    ] = "none"

    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="TRACKER=PLACE",
            help="Also copy finished trials to tensorboard=DIR or mlflow=URI; repeatable.",
            rich_help_panel=OUTPUT,
        ),
    ] = None

    @property
    def card(self) -> ExecutorCard:
        """The card of the executor."""
        from registry.core import catalogue

        return catalogue.executor(self.executor)

    def check(self, precision: str | None, *, detach: bool = False) -> None:
        """Check what does not depend on the plan.

        Raises
        ------
        UserError
            For unknown names and invalid values.
        """
        from bench.memory import parse_memory
        from registry.errors import UserError

        check_choice("--device", self.device, ("auto", "cpu", "cuda"))
        check_choice("--reuse", self.reuse, ("yes", "retry-failed", "no", "only"))
        check_choice("--keep-weights", self.keep_weights, tuple(KEPT))
        check_least("--workers", self.workers, 1)
        check_least("--threads", self.threads, 1)
        check_least("--per-gpu", self.per_gpu, 1)
        parse_limit(self.max_failures, 0)
        if self.time_limit is not None and not self.time_limit > 0:
            raise UserError(
                f"--time-limit must be greater than 0 minutes, got {self.time_limit:g}."
            )
        if self.memory is not None:
            parse_memory(self.memory)
            if self.card.remote:
                raise UserError("--memory requires an executor on this machine.")
        for name, pairs in self._given().items():
            if pairs and self.executor != name:
                raise UserError(f"--{name} requires --executor {name}.")
        if detach and not self.card.detachable:
            raise UserError(
                f"--detach requires an executor whose jobs outlive this command, such as slurm, "
                f"not {self.executor}."
            )
        if detach and self.reuse == "no":
            raise UserError(
                "--detach cannot be combined with --reuse no, because results that are collected "
                "later do not replace stored ones."
            )
        if self.card.remote and precision in (None, "auto"):
            raise UserError(
                f"--executor {self.executor} requires --precision fp32 or --precision bf16, "
                "because this machine does not know the hardware of the others."
            )

    def check_hardware(self, config: Config) -> None:
        """Check that the executor, the device and the trackers can be used.

        Raises
        ------
        UserError
            If they cannot.
        """
        from registry.core import resolve

        if self.card.remote:
            remote: Any = resolve(self.card.target)
            remote.check(self.options(config))
        elif self.device == "cuda":
            from bench.train.numerics import device_for

            device_for(self.device)
        self.trackers()

    def trackers(self) -> list[Tracker]:
        """Open the trackers.

        Raises
        ------
        UserError
            If one cannot be used.
        """
        from bench.store.tracking import open_tracker

        return [open_tracker(text) for text in self.track or ()]

    def options(self, config: Config) -> dict[str, Any]:
        """Return the options of the executor in ``bench.toml`` and on the command line."""
        configured = config.executors.get(self.executor, {})
        return {**configured, **self._given().get(self.executor, {})}

    def _given(self) -> dict[str, dict[str, str]]:
        """Return the options of executors on the command line by the executor's name."""
        return {
            "slurm": parse_pairs("--slurm", self.slurm),
            "ray": parse_pairs("--ray", self.ray),
        }

    def resources(
        self, plans: Sequence[Plan], config: Config, store: Store | None = None
    ) -> Resources:
        """Return the resources for some plans, and print if workers do not fit into memory.

        Raises
        ------
        UserError
            If ``--per-gpu`` is given, but no GPU is used.
        """
        from bench.execute.driver import preload_for
        from bench.memory import Needs, available_memory, parse_memory, workers_that_fit
        from bench.processes import threads_per_unit
        from registry.core import resolve
        from registry.errors import UserError

        preload = preload_for(plans)
        gpus = 0
        if "torch" in preload and not self.card.remote:
            from bench.train.numerics import gpu_count

            gpus = gpu_count(self.device)
        if self.per_gpu is not None and not gpus:
            raise UserError(
                "--per-gpu requires a GPU and a network to train on it; use --workers instead."
            )
        if self.card.remote:
            remote: Any = resolve(self.card.target)
            options = self.options(config)
            threads = self.threads or int(remote.threads(options))
            return Resources(self.workers or 0, threads, gpus, preload, options)
        workers = self.workers or max(1, gpus * (self.per_gpu or 1))
        memory = parse_memory(self.memory) if self.memory else available_memory()
        if memory is not None and store is not None:
            needs = Needs(store.peaks())
            known = [needs.of(arm) or 0.0 for plan in plans for arm in plan.arms_to_run]
            workers, words = workers_that_fit(workers, max(known, default=0.0), memory)
            if words:
                print(words)
        threads = self.threads or threads_per_unit(workers)
        return Resources(workers, threads, gpus, preload, {}, memory)

    def batch_scripts(self, plans: Sequence[Plan], config: Config) -> Iterable[tuple[str, str]]:
        """Return a title and the text of each kind of script that would be submitted first."""
        from bench.execute.settings import work_folder
        from bench.store.database import find_database
        from registry.core import resolve

        units = Counter[bool]()
        for plan in plans:
            studies = {study.key for study in plan.studies}
            trials = [trial.spec for trial in plan.trials if trial.action == "run"]
            arms = [study.arm for study in plan.studies]
            arms += [trial.arm for trial in trials if trial.study not in studies]
            units.update(plan.cards[arm.key].kind == "network" for arm in arms)
        resources = self.resources(plans, config)
        remote: Any = resolve(self.card.target)
        scripts: Iterable[tuple[str, str]] = remote.scripts(
            resources.options,
            work_folder(find_database(self.db or config.db), self.work),
            workers=resources.workers,
            threads=resources.threads,
            units=units,
        )
        return scripts

    def settings(
        self,
        database: Database,
        cache: Path,
        command: int,
        argv: Sequence[str],
        resources: Resources,
        trials: int,
    ) -> ExecutionSettings:
        """Return the settings of a command that runs a number of trials."""
        from bench.execute.settings import ExecutionSettings, work_folder

        # If the cache belongs to another user, units use a directory next to the database.
        writable = os.access(cache, os.W_OK)
        return ExecutionSettings(
            database=database,
            cache=cache if writable else work_folder(database, self.work) / "cache",
            command=command,
            argv=argv,
            device=self.device,
            threads=resources.threads,
            threads_given=self.threads is not None,
            deterministic=self.deterministic,
            keep=KEPT[self.keep_weights],
            time_limit=None if self.time_limit is None else 60 * self.time_limit,
            workers=None if self.card.remote else resources.workers,
            memory=resources.memory,
            max_failures=parse_limit(self.max_failures, trials),
            work_given=self.work,
        )

    def start(
        self,
        resources: Resources,
        settings: ExecutionSettings,
        on_progress: OnProgress,
        say: Callable[[str], None],
    ) -> Executor:
        """Start the executor."""
        from registry.core import resolve

        remote = {
            "options": resources.options,
            "work": settings.work,
            "cache": settings.cache,
            "say": say,
        }
        executor: Executor = resolve(self.card.target)(
            resources.workers,
            gpus=resources.gpus,
            preload=resources.preload,
            on_progress=on_progress,
            **(remote if self.card.remote else {}),
        )
        return executor


@dataclass(frozen=True)
class Resources:
    """What an executor may use."""

    workers: int
    """Number of units to run in parallel; 0 for no limit on other machines."""
    threads: int
    """Number of threads per unit."""
    gpus: int
    """Number of GPUs of this machine, 0 for other machines, which have their own."""
    preload: Sequence[str]
    """Modules that the units import."""
    options: dict[str, Any]
    """Options of a remote executor."""
    memory: float | None = None
    """Memory in MB for all workers on this machine together; None if it is unknown."""
