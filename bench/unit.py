"""A unit of work, a study or a trial, as it travels between the driver and a worker process."""

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
"""Told what is happening, in words, and the share that is done."""


@dataclass(frozen=True)
class Layout:
    """How a network is computed; changes its numbers by rounding only."""

    memory_format: str = "contiguous_format"
    """``contiguous_format``, ``channels_last`` or ``channels_last_3d``, torch's own names."""
    mode: str = ""
    """torch.compile's mode, empty for none."""


@dataclass(frozen=True)
class UnitData:
    """What a unit may see of a cohort: rows of the memory map, no label of the test set."""

    volumes: str
    n_train: int
    """Training subjects; they may have several scans each."""
    n_pool: int
    train_rows: list[int]
    train_targets: list[float]
    validation_rows: list[int]
    validation_targets: list[float]
    test_rows: list[int]
    """Empty for a study: it must not touch the test set."""


@dataclass(frozen=True)
class Unit:
    """The complete description of a unit; it travels as JSON."""

    kind: str
    key: str
    random_stream: str
    """What the unit's seeds derive from: the seed, or a study's own stream."""
    arm: Arm
    params: Mapping[str, Value]
    data: UnitData
    device: str
    threads: int
    weights: str
    """File of the encoder's pretrained weights; empty for none."""
    plugins: list[str]
    folder: str
    """The unit's own folder in the work folder: attempts, outcome, history, checkpoint."""
    cache: str
    """The harness's cache folder: measured layouts, features of frozen encoders."""
    layout: Layout | None = None
    """How earlier runs of this arm at this size were computed here; None to find out."""
    deterministic: bool = False
    """Whether a GPU must repeat its numbers to the last bit."""
    keep: tuple[str, ...] = ()
    """Which weights a trial keeps: ``best``, ``last``."""
    time_limit: float | None = None
    """Seconds after which the process ends, to go on from its checkpoint another time."""

    def to_json(self) -> str:
        """Return the unit as JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Unit:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        values["arm"] = arm_from_plain(values["arm"])
        values["data"] = UnitData(**values["data"])
        values["keep"] = tuple(values["keep"])
        if values["layout"] is not None:
            values["layout"] = Layout(**values["layout"])
        return cls(**values)


@dataclass(frozen=True)
class Numerics:
    """How a network's numbers are computed, for the record."""

    gpu: str | None
    """The GPU's name; None on a CPU."""
    tf32: bool | None
    deterministic: bool
    """Whether the same unit gives the same bits again."""


@dataclass(frozen=True)
class Environment:
    """What computed a unit, as far as its worker knows."""

    threads: int
    device: str = ""
    """``cpu`` or ``cuda``; empty, like `machine`, where the unit failed before that was known."""
    machine: str = ""
    """The kind of processor, such as ``x86_64``."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of libraries by name."""
    numerics: Numerics | None = None
    """None for an estimator."""
    layout: Layout | None = None
    """None for an estimator, and for a network that failed before it was chosen."""

    def plain(self) -> dict[str, Any]:
        """Return the environment as it is stored: on one level but for the layout."""
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
        """Read what `plain` returned."""
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
    """What a trial's training leaves."""

    predictions: Mapping[str, NDArray[np.float64]]
    """Predictions (n, outputs) of the scans of ``validation`` and of ``test``."""
    timings: Mapping[str, float]
    best_epoch: int | None = None
    """None, like `epochs`, for an estimator."""
    epochs: int | None = None
    history: Sequence[Mapping[str, float]] = ()
    """One entry an epoch."""


class Fitter(Protocol):
    """The fits of one unit's model."""

    ready: float
    """The clock (`time.perf_counter`) when the last training began."""
    notes: list[str]
    """What the user should know of how this was computed."""

    def environment(self) -> Environment:
        """Return what computes."""

    def score(
        self, params: Mapping[str, Value], on_epoch: Callable[[int, int, float], None]
    ) -> float:
        """Return the validation score of one setting, lower is better."""

    def trial(self, folder: Path, report: Progress) -> FitResult:
        """Fit once, predict validation and test once; kept weights are left in `folder`."""


@dataclass(frozen=True)
class Outcome:
    """How a unit ended; it travels as a folder."""

    kind: str
    key: str
    started: float
    """Seconds since 1970, like `finished`."""
    finished: float
    environment: Environment
    state: str = "done"
    """``done`` or ``failed``."""
    error: str = ""
    """Why it failed; of a study that succeeded, why some of its trials failed."""
    attempt: str = ""
    notes: Sequence[str] = ()
    """What the user should know of how this was computed."""
    timings: Mapping[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int | None = None
    history: Sequence[Mapping[str, float]] = ()
    predictions: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Of a trial that succeeded: predictions (n, outputs) of ``validation`` and ``test``."""
    best: Mapping[str, Value] | None = None
    """Of a study that succeeded: the settings it chose."""
    trials: Sequence[Mapping[str, Any]] = ()
    """Of a study: its trials, as they are stored."""

    def write(self, folder: Path) -> None:
        """Write the outcome into a folder: ``outcome.json`` and, of a trial, ``predictions.npz``.

        Raises
        ------
        ValueError
            When a number that is not finite is in it.
        """
        if self.predictions:
            arrays: dict[str, Any] = dict(self.predictions)
            with atomic_write(folder / PREDICTIONS) as stream:
                np.savez(stream, **arrays)
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "predictions"}
        content["environment"] = self.environment.plain()
        with atomic_write(folder / RESULT) as stream:
            stream.write(json.dumps(content, allow_nan=False).encode())

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """Read what `write` wrote, now or in an earlier version.

        Raises
        ------
        OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile
            When the files are torn, or those of another version that are not understood.
        """
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        content["environment"] = Environment.from_plain(content["environment"])
        if content["kind"] == "trial" and content["state"] == "done":
            with np.load(folder / PREDICTIONS, allow_pickle=False) as arrays:
                content["predictions"] = {name: arrays[name] for name in arrays.files}
        return cls(**content)
