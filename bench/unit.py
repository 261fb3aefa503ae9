"""A unit of work, a study or a trial, as it travels between the driver and a worker process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from bench.spec import Arm, arm_from_plain
from registry.cards import Value

Progress = Callable[[str, float], None]
"""Told what is happening, in words, and the share that is done."""


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
    draw: str
    """What the unit's seeds derive from: the seed, or a study's own draw."""
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
    layout: Mapping[str, str] | None = None
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
        fields = json.loads(text)
        fields["arm"] = arm_from_plain(fields["arm"])
        fields["data"] = UnitData(**fields["data"])
        fields["keep"] = tuple(fields["keep"])
        return cls(**fields)
