"""Units of work (studies and trials) and their outcomes, as passed between driver and workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.files import atomic_write
from bench.spec import Arm, arm_from_plain
from registry.cards import Value

RESULT = "outcome.json"
PREDICTIONS = "predictions.npz"

Progress = Callable[[str, float], None]
"""Called with a description of the current step and the fraction completed."""


@dataclass(frozen=True)
class Layout:
    """Memory format and compilation of a network, which affect results only by rounding."""

    memory_format: str = "contiguous_format"
    """``contiguous_format``, ``channels_last`` or ``channels_last_3d``, as in torch."""
    mode: str = ""
    """Mode of `torch.compile`, empty if the network is not compiled."""


@dataclass(frozen=True)
class UnitData:
    """The data of a cohort that a unit has access to, which excludes the labels of the test set."""

    volumes: str
    """File of the memory map; rows are its indices."""
    n_train: int
    """Number of training subjects, which may have several scans each."""
    n_pool: int
    """Number of subjects available for training."""
    train_rows: list[int]
    train_targets: list[float]
    validation_rows: list[int]
    validation_targets: list[float]
    test_rows: list[int]
    """Empty for a study, which must not use the test set."""


@dataclass(frozen=True)
class Unit:
    """The complete description of a unit of work, passed to workers as JSON."""

    kind: str
    key: str
    random_stream: str
    """What the seeds of the unit are derived from: the seed of a trial or the stream of a study."""
    arm: Arm
    params: Mapping[str, Value]
    data: UnitData
    device: str
    threads: int
    network: bool
    """Whether the model is a network, which may use a GPU; estimators do not."""
    weights: str
    """File of the encoder's pretrained weights, empty for random initialisation."""
    plugins: list[str]
    folder: str
    """Directory for the attempts, outcome, history and checkpoint of this unit."""
    cache: str
    """Cache directory, with measured layouts and features of frozen encoders."""
    layout: Layout | None = None
    """Layout of earlier runs of this arm and size on this machine; None to choose one."""
    deterministic: bool = False
    """Whether results on a GPU must be bitwise reproducible."""
    keep: tuple[str, ...] = ()
    """Which weights of a trial to keep: ``best``, ``last``."""
    halvings: int = 0
    """How often each batch is halved from the start, because memory ran out in earlier attempts."""
    time_limit: float | None = None
    """Seconds after which the process ends; it can be resumed from its checkpoint."""

    def to_json(self) -> str:
        """Return the unit as JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Unit:
        """Invert `to_json`."""
        values = json.loads(text)
        values["arm"] = arm_from_plain(values["arm"])
        values["data"] = UnitData(**values["data"])
        values["keep"] = tuple(values["keep"])
        if values["layout"] is not None:
            values["layout"] = Layout(**values["layout"])
        return cls(**values)


@dataclass(frozen=True)
class Numerics:
    """Numerical settings under which a network was computed."""

    gpu: str | None
    """Name of the GPU; None on a CPU."""
    tf32: bool | None
    deterministic: bool
    """Whether repeating the unit gives bitwise identical results."""


@dataclass(frozen=True)
class Environment:
    """Hardware and software on which a worker computed a unit."""

    threads: int
    device: str = ""
    """``cpu`` or ``cuda``; empty, like `machine`, if the unit failed before it was known."""
    machine: str = ""
    """Processor architecture, such as ``x86_64``."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of libraries by name."""
    numerics: Numerics | None = None
    """None for an estimator."""
    layout: Layout | None = None
    """None for an estimator, and for a network that failed before its layout was chosen."""

    def plain(self) -> dict[str, Any]:
        """Return the environment as a flat mapping, in which only the layout is nested."""
        known = {"device": self.device, "machine": self.machine}
        return {
            "threads": self.threads,
            **{name: value for name, value in known.items() if value},
            **self.versions,
            **(asdict(self.numerics) if self.numerics else {}),
            **({"layout": asdict(self.layout)} if self.layout else {}),
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Environment:
        """Invert `plain`."""
        left = dict(values)
        threads, layout = left.pop("threads"), left.pop("layout", None)
        device, machine = left.pop("device", ""), left.pop("machine", "")
        names = [one.name for one in fields(Numerics)]
        numerics = Numerics(**{name: left.pop(name) for name in names}) if "gpu" in left else None
        return cls(
            threads, device, machine, left, numerics, None if layout is None else Layout(**layout)
        )


@dataclass(frozen=True)
class FitResult:
    """The result of fitting the model of a trial."""

    predictions: Mapping[str, NDArray[np.float64]]
    """Predictions (n, outputs) for the scans of ``validation`` and ``test``."""
    timings: Mapping[str, float]
    best_epoch: int | None = None
    """None, like `epochs`, for an estimator."""
    epochs: int | None = None
    history: Sequence[Mapping[str, float]] = ()
    """One entry per epoch."""


class Fitter(Protocol):
    """Fits the model of a unit."""

    ready: float
    """Value of `time.perf_counter` when the last training started."""
    notes: list[str]
    """Notes to the user about how the unit was computed."""

    def environment(self) -> Environment:
        """Return the hardware and software in use."""

    def score(
        self, params: Mapping[str, Value], on_epoch: Callable[[int, int, float], None]
    ) -> float:
        """Fit with some settings and return the validation score (lower is better)."""

    def trial(self, folder: Path, report: Progress) -> FitResult:
        """Fit the model, predict validation and test set, and save kept weights in `folder`."""


@dataclass(frozen=True)
class TuningTrial:
    """A finished trial of a study, as it is stored."""

    number: int
    state: str
    """``complete``, ``pruned`` or ``fail``, as in Optuna."""
    params: Mapping[str, Value]
    distributions: Mapping[str, str]
    """Optuna's distributions as JSON, by the name of the setting."""
    value: float | None
    """The validation score; None if the trial failed."""
    intermediate: Mapping[str, float]
    """Validation scores by epoch."""
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """The outcome of a unit, passed to the driver as a directory."""

    kind: str
    key: str
    started: float
    """Seconds since 1970, like `finished`."""
    finished: float
    environment: Environment
    state: str = "done"
    """``done`` or ``failed``."""
    error: str = ""
    """Why it failed; for a successful study, why some of its trials failed."""
    attempt: str = ""
    notes: Sequence[str] = ()
    """Notes to the user about how the unit was computed."""
    timings: Mapping[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int | None = None
    history: Sequence[Mapping[str, float]] = ()
    predictions: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Predictions (n, outputs) of a successful trial for ``validation`` and ``test``."""
    best: Mapping[str, Value] | None = None
    """The tuned settings of a successful study."""
    trials: Sequence[TuningTrial] = ()
    """The trials of a study."""

    def write(self, folder: Path) -> None:
        """Write ``outcome.json`` and, for a trial, ``predictions.npz`` into a directory.

        Raises
        ------
        ValueError
            If the outcome contains a number that is not finite.
        """
        if self.predictions:
            arrays: dict[str, Any] = dict(self.predictions)
            with atomic_write(folder / PREDICTIONS) as stream:
                np.savez(stream, **arrays)
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "predictions"}
        content["environment"] = self.environment.plain()
        content["trials"] = [asdict(trial) for trial in self.trials]
        with atomic_write(folder / RESULT) as stream:
            stream.write(json.dumps(content, allow_nan=False).encode())

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """Invert `write`.

        Raises
        ------
        OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile
            If the files are damaged or were written by an incompatible version.
        """
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        content["environment"] = Environment.from_plain(content["environment"])
        content["trials"] = [TuningTrial(**trial) for trial in content.get("trials", ())]
        if content["kind"] == "trial" and content["state"] == "done":
            with np.load(folder / PREDICTIONS, allow_pickle=False) as arrays:
                content["predictions"] = {name: arrays[name] for name in arrays.files}
        return cls(**content)
