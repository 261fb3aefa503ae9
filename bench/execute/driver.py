"""The driver: submits units to an executor and stores their outcomes.

It is the only process that writes to the database.
"""

from __future__ import annotations

import shutil
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bench.data.cohort import Cohort
from bench.execute.base import Executor, RemoteExecutor, WorkerExit
from bench.execute.provenance import provenance
from bench.execute.settings import ExecutionSettings
from bench.execute.unit import (
    CODE_CHANGED_EXIT,
    DISK_FULL_EXIT,
    OUTCOME,
    TIME_LIMIT_EXIT,
)
from bench.memory import Needs, workers_that_fit
from bench.plan import Plan, PlannedTrial
from bench.primary_analysis import DEFAULT_ANALYSIS, PrimaryAnalysis
from bench.spec import Arm, StudySpec, TrialSpec, label_of
from bench.stats.metrics import compute, metric_of, metrics_for
from bench.store.mirror import mirror_study
from bench.store.store import (
    DONE,
    FAILED,
    KILLED,
    Attempt,
    Predictions,
    Store,
    StudyResult,
    TrialResult,
)
from bench.store.tracking import Tracker, track
from bench.unit import Layout, Outcome, Unit, UnitData
from registry.cards import Value
from registry.core import catalogue, counted
from registry.errors import UserError

LOG_TAIL = 4000
"""Number of characters of a worker's log to store."""
RETRIES = 2
"""How often a unit is run again after its worker was lost."""
HALVINGS = 3
"""How often a unit is run again with half as many volumes at a time after memory ran out."""


class Observer(Protocol):
    """Displays the progress of the driver."""

    def started(self, key: str, label: str) -> None:
        """Called when a unit was submitted to the executor."""

    def ended(self, key: str, label: str, state: str, seconds: float, error: str) -> None:
        """Called when the outcome of a unit was stored."""

    def warn(self, words: str) -> None:
        """Called with a warning; the run continues."""


@dataclass
class RunSummary:
    """The outcomes of the trials of a command."""

    done: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(label, error) of trials that failed or were interrupted."""
    stopped: bool = False
    left: int = 0
    """Units that were left to their executor, or for which there is no outcome to collect yet."""


class Driver:
    """Runs the plans of one command.

    Parameters
    ----------
    store : Store
        The database, open for writing and locked.
    executor : Executor or None
        Runs the units; None to store only outcomes that jobs have left, without running anything.
    settings : ExecutionSettings
        How and where units run.
    observer : Observer
        Displays the progress.
    stopping : callable
        Returns True once the user asked to stop after the running units.
    trackers : sequence of Tracker
        Where finished trials are copied.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor | None,
        settings: ExecutionSettings,
        observer: Observer,
        stopping: Callable[[], bool],
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.store = store
        self.executor = executor
        self.settings = settings
        self.observer = observer
        self.stopping = stopping
        self.trackers = list(trackers)
        self.provenance = provenance(settings.argv)
        self.summary = RunSummary()
        self._replace = False
        self._needs = Needs(store.peaks())
        self._said = ""
        self._arm_threads: dict[str, int] = {}
        self._layouts: dict[tuple[str, int], Layout | None] = {}
        self._queue: deque[tuple[Plan, StudySpec | TrialSpec]] = deque()
        """Units that have not been submitted; their descriptions are only built when they are."""
        self._running: dict[Future[WorkerExit], _Job] = {}
        """Submitted units."""
        self._ended: SimpleQueue[Future[WorkerExit]] = SimpleQueue()

    def run(
        self, plans: Sequence[Plan], *, replace: bool = False, detach: bool = False
    ) -> RunSummary:
        """Run all studies and trials of the plans, studies before their trials.

        Outcomes that an interrupted driver did not store are stored first.

        Parameters
        ----------
        plans : sequence of Plan
            What to run.
        replace : bool
            Whether stored results are replaced.
        detach : bool
            Whether to leave the units to a `RemoteExecutor` instead of waiting for them.
        """
        self._replace = replace
        if replace:
            # Old outcomes and tuning histories would otherwise be mistaken for new ones.
            for plan in plans:
                for unit_key in _unit_keys(plan):
                    shutil.rmtree(self.settings.work / unit_key, ignore_errors=True)
        units: list[tuple[Plan, StudySpec | TrialSpec]] = []
        for plan in plans:
            needed = {study.key for study in plan.studies}
            units += [(plan, study) for study in plan.studies]
            units += [
                (plan, trial.spec)
                for trial in plan.trials
                if trial.action == "run" and trial.spec.study not in needed
            ]
        left = {outcome.parent.name for outcome in self.settings.work.glob(f"*/{OUTCOME}")}
        self._queue.extend(sorted(units, key=lambda unit: unit[1].key not in left))
        if self._submit_queued() and detach:
            cast(RemoteExecutor, self.executor).detach()
        while self._submit_queued():
            # The timeout allows Ctrl-C to be handled while waiting.
            with suppress(Empty):
                future = self._ended.get(timeout=0.5)
                job = self._running.pop(future)
                if not future.cancelled():
                    self._end(job, future.result())
                elif detach:
                    self.summary.left += 1
            if self.stopping() and not self.summary.stopped:
                self._stop()
            if self._too_many_failures() and not self.summary.stopped:
                self.observer.warn(
                    f"{counted(len(self.summary.failed), 'trial')} failed, more than "
                    "--max-failures allows, so no more are started"
                )
                self._stop()
        with suppress(OSError):
            # This fails if the directory contains the history of a study or other files.
            self.settings.work.rmdir()
        return self.summary

    def _stop(self) -> None:
        """Start no more units; running ones continue."""
        assert self.executor is not None
        self.summary.stopped = True
        self.executor.cancel()

    def _too_many_failures(self) -> bool:
        limit = self.settings.max_failures
        return limit is not None and len(self.summary.failed) > limit

    # ------------------------------------------------------------------ units

    def _submit_queued(self) -> bool:
        """Submit as many units as the executor should hold; return whether it holds any."""
        workers = self.settings.workers
        while self._queue and not self.summary.stopped:
            if workers is not None and not self._room(workers, self._queue[0][1].arm):
                break
            self._start(*self._queue.popleft())
        return bool(self._running)

    def _room(self, workers: int, arm: Arm) -> bool:
        """Return whether a unit may be submitted beside those that the executor holds.

        A unit whose need of memory is not known yet counts as one of as many as were requested.
        """
        memory = self.settings.memory
        if memory is not None and self._running:
            arms = [arm, *(job.spec.arm for job in self._running.values())]
            needs = [self._needs.of(each) or memory / workers for each in arms]
            if sum(needs) > 1.001 * memory:
                words = workers_that_fit(workers, max(needs), memory)[1]
                if words and words != self._said:
                    self.observer.warn(words)
                    self._said = words
                return False
        return len(self._running) < 2 * workers

    def _learn_of_shortage(self, arm: Arm) -> None:
        """Let fewer units run at a time than when memory ran out."""
        memory, workers = self.settings.memory, self.settings.workers
        others = min(workers or 0, len(self._running) + 1) - 1
        if memory is not None and others > 0:
            self._needs.learn(arm, memory / others)

    def _start(self, plan: Plan, spec: StudySpec | TrialSpec) -> None:
        params = dict(spec.arm.params)
        if isinstance(spec, TrialSpec) and spec.study is not None:
            best = self.store.best_params(spec.study)
            if best is None:
                self.summary.failed.append((label_of(spec), "its study has no tuned settings"))
                return
            params |= best
        job = _Job(plan, spec, params)
        outcome = self._published(job)
        if outcome is not None:
            self._take(job, outcome)
            return
        if self.executor is None:
            self.summary.left += 1
            return
        self._submit(job, self.executor)
        self.observer.started(job.spec.key, job.label)

    def _submit(self, job: _Job, executor: Executor) -> None:
        future = executor.submit(self._unit(job))
        self._running[future] = job
        future.add_done_callback(self._ended.put)

    def _published(self, job: _Job) -> Outcome | None:
        """Return the published outcome of a unit; one damaged by a system crash is removed."""
        folder = self.settings.work / job.spec.key / OUTCOME
        if not folder.is_dir():
            return None
        try:
            return Outcome.read(folder)
        except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            why = type(error).__name__
            self.observer.warn(
                f"{job.label}: its outcome is damaged ({why}), so it is computed again"
            )
            shutil.rmtree(folder)
            return None

    def _end(self, job: _Job, ended: WorkerExit) -> None:
        """Store the outcome of an ended worker, or the reason why there is none."""
        published = self.settings.work / job.spec.key / OUTCOME
        if published.is_dir():
            self._take(job, Outcome.read(published))
            return
        folder = self.settings.work / job.spec.key / f"attempt-{ended.attempt}"
        log = log_tail(folder)
        refused = ended.exit_code == CODE_CHANGED_EXIT
        error = ended.reason or describe_exit(
            ended.exit_code, log if refused else "" if log else ended.stderr
        )
        self.store.add_attempt(
            Attempt(
                id=ended.attempt,
                unit=job.spec.key,
                kind=job.kind,
                state=KILLED,
                started=ended.started,
                finished=ended.finished,
                error=error,
                log=log or ended.stderr[-LOG_TAIL:],
            )
        )
        shutil.rmtree(folder, ignore_errors=True)
        if ended.cause == "memory":
            self._learn_of_shortage(job.spec.arm)
        if ended.exit_code == DISK_FULL_EXIT:
            raise UserError(
                f"No space left on the disk of {self.settings.work}, {self.settings.cache} or the "
                "temporary files. Free some space and run the same command again to resume; "
                "finished results are kept."
            )
        again = _another_attempt(job, ended)
        if again and self.executor and not (self.summary.stopped or self.stopping()):
            self.observer.warn(f"{job.label}: {error}; it is run again")
            self._submit(again, self.executor)
            return
        seconds = (ended.finished - ended.started).total_seconds()
        self._failed(job, KILLED, seconds, error)

    def _take(self, job: _Job, outcome: Outcome) -> None:
        """Store a published outcome, remove its directory, and queue the trials of a study."""
        folder = self.settings.work / job.spec.key / OUTCOME
        started = datetime.fromtimestamp(outcome.started, UTC)
        finished = datetime.fromtimestamp(outcome.finished, UTC)
        seconds = (finished - started).total_seconds()
        state, error = outcome.state, outcome.error
        self._needs.learn(job.spec.arm, outcome.timings.get("peak_anon_mb", 0.0))
        for note in outcome.notes:
            self.observer.warn(f"{job.label}: {note}.")
        if isinstance(job.spec, StudySpec):
            result = self._study_result(job.spec, outcome, seconds)
            removed = self.store.add_study(result, replace=self._replace)
            self._forget(job.label, removed, job.plan.to_run_after(job.spec))
        else:
            self.store.add_trial(
                self._trial_result(job, job.spec, outcome, seconds),
                self.settings.command,
                replace=self._replace,
            )
        self.store.add_attempt(
            Attempt(
                id=outcome.attempt,
                unit=job.spec.key,
                kind=job.kind,
                state=state,
                started=started,
                finished=finished,
                error=error,
                log=log_tail(folder) if state == FAILED else "",
            )
        )
        self._keep_weights(folder, job.spec.key)
        shutil.rmtree(folder.parent, ignore_errors=True)
        if isinstance(job.spec, StudySpec):
            problem = mirror_study(self.store, job.spec.key)
            if problem:
                self.observer.warn(problem)
        if state == FAILED:
            self._failed(job, FAILED, seconds, error)
            return
        if isinstance(job.spec, TrialSpec):
            self.summary.done += 1
            for problem in track(self.store, job.spec.key, self.trackers):
                self.observer.warn(problem)
        # The error of a successful study says why some of its trials failed.
        self.observer.ended(job.spec.key, job.label, DONE, seconds, error)
        if isinstance(job.spec, StudySpec):
            self._queue.extend((job.plan, t.spec) for t in job.plan.to_run_after(job.spec))

    def _keep_weights(self, outcome: Path, key: str) -> None:
        if self._replace:
            shutil.rmtree(self.settings.weights / key, ignore_errors=True)
        for file in outcome.glob("*.safetensors"):
            target = self.settings.weights / key
            target.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target / file.name)

    def _forget(self, study: str, removed: Sequence[str], again: Sequence[PlannedTrial]) -> None:
        """Remove the weights of trials that were removed together with their study."""
        for key in removed:
            shutil.rmtree(self.settings.weights / key, ignore_errors=True)
        others = set(removed) - {trial.spec.key for trial in again}
        if others:
            self.observer.warn(
                f"{study} resulted in different settings than before, so "
                f"{counted(len(others), 'stored trial')} of other seeds "
                f"{'was' if len(others) == 1 else 'were'} removed; include those seeds to run "
                "them again"
            )

    def _failed(self, job: _Job, state: str, seconds: float, error: str) -> None:
        self.observer.ended(job.spec.key, job.label, state, seconds, error)
        if isinstance(job.spec, TrialSpec):
            self.summary.failed.append((job.label, error))
            return
        for trial in job.plan.to_run_after(job.spec):
            reason = f"its study failed: {error}"
            self.summary.failed.append((label_of(trial.spec), reason))
            if state == FAILED:
                self.store.add_trial(
                    TrialResult(trial.spec, FAILED, dict(trial.spec.arm.params), reason),
                    self.settings.command,
                    replace=self._replace,
                )

    def _unit(self, job: _Job) -> Unit:
        """Return the complete description of a job."""
        spec, plan, rows = job.spec, job.plan, job.rows
        targets = plan.cohort.targets
        return Unit(
            kind=job.kind,
            key=spec.key,
            random_stream=spec.random_stream,
            arm=spec.arm,
            params=job.params,
            data=UnitData(
                volumes=str(plan.cohort.volumes_file),
                n_train=spec.n_train,
                n_pool=plan.cohort.n_pool,
                train_rows=rows["train"].tolist(),
                train_targets=targets[rows["train"]].tolist(),
                validation_rows=rows["validation"].tolist(),
                validation_targets=targets[rows["validation"]].tolist(),
                test_rows=rows["test"].tolist(),
            ),
            device=self.settings.device,
            threads=self._threads(spec.arm.key),
            network=plan.cards[spec.arm.key].kind == "network",
            weights=plan.weights[spec.arm.key],
            plugins=list(catalogue.files),
            folder=str((self.settings.work / spec.key).resolve()),
            cache=str(self.settings.cache.resolve()),
            layout=self._layout(spec.arm.key, spec.n_train),
            deterministic=self.settings.deterministic,
            keep=self.settings.keep if isinstance(spec, TrialSpec) else (),
            halvings=job.halvings,
            time_limit=self.settings.time_limit,
        )

    def _layout(self, arm: str, n_train: int) -> Layout | None:
        """Return the layout of earlier trials of an arm and size on this machine, if any."""
        if (arm, n_train) not in self._layouts:
            stored = self.store.layout_of(arm, n_train, self.provenance.host)
            if stored is None:
                return None
            self._layouts[arm, n_train] = Layout(**stored) if stored else None
        return self._layouts[arm, n_train]

    def _threads(self, arm: str) -> int:
        """Return the number of threads of an arm: that of its stored trials on this machine.

        Another number of threads would change the rounding of sums.
        """
        if self.settings.threads_given:
            return self.settings.threads
        if arm not in self._arm_threads:
            stored = self.store.threads_of(arm, self.provenance.host)
            self._arm_threads[arm] = stored or self.settings.threads
        return self._arm_threads[arm]

    # --------------------------------------------------------------- outcomes

    def _study_result(self, spec: StudySpec, outcome: Outcome, seconds: float) -> StudyResult:
        return StudyResult(
            spec=spec,
            state=outcome.state,
            best=outcome.best,
            error=outcome.error,
            trials=outcome.trials,
            seconds=seconds,
            environment={**asdict(self.provenance), **outcome.environment.plain()},
        )

    def _trial_result(
        self, job: _Job, spec: TrialSpec, outcome: Outcome, seconds: float
    ) -> TrialResult:
        params = job.params
        environment = {**asdict(self.provenance), **outcome.environment.plain()}
        if outcome.state == FAILED:
            return TrialResult(
                spec, FAILED, params, outcome.error, seconds=seconds, environment=environment
            )
        cohort = job.plan.cohort
        predictions = {}
        metrics: dict[tuple[str, str], tuple[float, str]] = {}
        for split, values in outcome.predictions.items():
            found = _by_subject(cohort, job.rows[split], values)
            predictions[split] = found
            truth = cohort.truth_of(found.subjects.astype(np.int64))
            for name in metrics_for(cohort.task.kind, len(cohort.task.classes)):
                if not metric_of(name).stored:
                    continue
                score = compute(name, truth, _plain(found.values))
                metrics[split, name] = (score.value, score.reason)
        return TrialResult(
            spec=spec,
            state=DONE,
            params=params,
            best_epoch=outcome.best_epoch,
            epochs=outcome.epochs,
            seconds=seconds,
            timings=outcome.timings,
            environment=environment,
            metrics=metrics,
            predictions=predictions,
            history=outcome.history,
        )


@dataclass(frozen=True)
class _Job:
    plan: Plan
    spec: StudySpec | TrialSpec
    params: Mapping[str, Value]
    """Settings of the arm, including those chosen by a study."""
    lost: int = 0
    """How often its worker was lost."""
    halvings: int = 0
    """How often its memory ran out."""

    @property
    def kind(self) -> str:
        return "study" if isinstance(self.spec, StudySpec) else "trial"

    @property
    def label(self) -> str:
        return label_of(self.spec)

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Rows of the cohort's volumes for each split; a study has none of the test set."""
        cohort, n_train, subset = self.plan.cohort, self.spec.n_train, self.spec.subset
        full = self.params["val_size"] == "full"
        study = isinstance(self.spec, StudySpec)
        return {
            "train": cohort.train_rows(n_train, subset),
            "validation": cohort.validation_rows(n_train, subset, full=full),
            "test": np.array([], dtype=np.int64) if study else cohort.test_rows(),
        }


def preload_for(plans: Sequence[Plan]) -> list[str]:
    """Return the modules that the units of some plans import.

    These include torch and timm only if a network is trained.
    """
    cards = [plan.cards[arm.key] for plan in plans for arm in plan.arms_to_run]
    # Each worker loads plugins itself, to detect whether they were edited.
    modules = {
        card.target.partition(":")[0]
        for card in cards
        if isinstance(card.target, str) and not card.plugin
    }
    networks = any(card.kind == "network" for card in cards)
    return [
        *(["torch", "timm", "bench.train.network"] if networks else []),
        *sorted(modules),
    ]


def record(
    store: Store,
    plans: Sequence[Plan],
    seeds: Sequence[int],
    argv: Sequence[str],
    declared: PrimaryAnalysis = DEFAULT_ANALYSIS,
) -> int:
    """Store the cohorts, arms, arguments and primary analysis of a command; return its id."""
    for plan in plans:
        store.add_dataset(plan.cohort.record)
    arms = [
        (arm, plan.cards[key].deterministic) for plan in plans for key, arm in plan.arms.items()
    ]
    return store.add_command(
        argv,
        arms,
        sizes={plan.cohort.fingerprint: list(plan.sizes) for plan in plans},
        seeds=list(seeds),
        dropped=[[plan.cohort.name, *drop] for plan in plans for drop in plan.dropped],
        declared=declared.plain(),
    )


def describe_exit(code: int, stderr: str = "") -> str:
    """Describe the exit of a worker without an outcome, including the last line of `stderr`."""
    if code == TIME_LIMIT_EXIT:
        return "the time limit was reached; the same command resumes from the last checkpoint"
    if code == -9:
        return "killed by signal 9, possibly by the system because memory ran out"
    if code < 0:
        return f"killed by signal {-code}"
    words = stderr.strip().splitlines()
    last = f": {words[-1].strip()}" if words else ""
    if code == DISK_FULL_EXIT:
        return "no space left on the disk"
    if code == CODE_CHANGED_EXIT:
        return (
            f"not run{last}; earlier results are kept, and the same command runs the edited plugin "
            "as a different component"
        )
    return f"the worker exited with code {code} without an outcome{last}"


def _another_attempt(job: _Job, ended: WorkerExit) -> _Job | None:
    """Return how a unit without an outcome is run again, or None if it is not.

    A worker that was stopped from outside is not the fault of its unit. After memory ran out, a
    network is trained on fewer volumes at a time. Whatever else ends a worker would do so again.
    """
    network = job.plan.cards[job.spec.arm.key].kind == "network"
    stopped = ended.exit_code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)
    if ended.cause == "memory":
        if network and job.halvings < HALVINGS:
            return replace(job, halvings=job.halvings + 1)
    elif (ended.cause == "lost" or (stopped and not ended.cause)) and job.lost < RETRIES:
        return replace(job, lost=job.lost + 1)
    return None


def log_tail(folder: Path) -> str:
    """Return the last part of the log of a worker."""
    file = folder / "log.txt"
    return file.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:] if file.exists() else ""


def _unit_keys(plan: Plan) -> list[str]:
    keys = [trial.spec.key for trial in plan.trials if trial.action == "run"]
    return keys + [study.key for study in plan.studies]


def _by_subject(cohort: Cohort, rows: Any, values: Any) -> Predictions:
    """Sort predictions by subject; there is one scan per subject for evaluation."""
    subjects = cohort.subjects_of(rows)
    order = np.argsort(subjects, kind="stable")
    return Predictions(subjects[order].astype(np.int32), np.asarray(values)[order])


def _plain(values: Any) -> Any:
    return values[:, 0] if values.shape[1] == 1 else values
