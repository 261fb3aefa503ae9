"""What is computed: arms, studies and trials as frozen values, their keys and their seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from registry.cards import Choice, Dimension, Float, Int, Task, Value


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted names, no spaces, no NaN.

    Raises
    ------
    ValueError
        When a number is not finite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )


def key_of(spec: Any) -> str:
    """Return the key of a frozen spec: 16 hex digits of the sha256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(plain(spec)).encode()).hexdigest()[:16]


def plain(spec: Any) -> Any:
    """Return a spec (or a value that is plain already) as JSON-ready plain values."""
    if isinstance(spec, Mapping):
        return {name: plain(value) for name, value in spec.items()}
    if isinstance(spec, tuple | list):
        return [plain(value) for value in spec]
    if not dataclasses.is_dataclass(type(spec)):
        return spec
    # A field that came later is left out at its neutral value: older keys stay what they are.
    return {
        field.name: plain(getattr(spec, field.name))
        for field in dataclasses.fields(spec)
        if "neutral" not in field.metadata or getattr(spec, field.name) != field.metadata["neutral"]
    }


def seed_for(part: str, *context: int | str) -> int:
    """Derive the seed of one part of the work; parts never share one.

    Parameters
    ----------
    part : str
        What is drawn: ``"subset"``, ``"init"``, ``"order"``, ``"validation"`` ...
    *context : int or str
        What it depends on, e.g. the user's seed.

    Returns
    -------
    int
        In ``[0, 2**63)``, from sha256.
    """
    text = "/".join([part, *map(str, context)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class Component:
    """A model or an encoder, as far as it decides numbers."""

    name: str
    version: int
    plugin: str = ""
    """sha256 of the plugin file it comes from; empty for the built-in catalogue."""
    weights: str = ""
    """Digest of the pretrained tensors; empty for random initialisation."""
    overlap: bool = dataclasses.field(default=False, metadata={"neutral": False})
    """True when its weights have seen the cohort of the test set, and the user allowed that."""


@dataclass(frozen=True)
class Arm:
    """Everything that two trials of one row of a table have in common: all but seed and n_train."""

    model: Component
    encoder: Component | None
    fingerprint: str
    task: Task
    params: Mapping[str, Value]
    """Every option of the model, resolved; those in `space` hold the card's value."""
    space: Mapping[str, Mapping[str, Any]]
    """Tuned dimensions as plain values; empty when nothing is tuned."""
    trials: int | None
    """Optuna trials of a study; None for a model without a search space: it fits any budget."""
    tune: str | None
    """``shared`` or ``per-seed``; None when nothing is tuned."""
    precision: str | None
    """``fp32`` or ``bf16``; None for estimators, which have none."""

    @cached_property
    def key(self) -> str:
        """The arm's key."""
        return key_of(self)

    @property
    def protocol(self) -> dict[str, Any]:
        """What arms must share to stand in one table; None means that any value fits."""
        return {
            "fingerprint": self.fingerprint,
            "target": self.task.target,
            "precision": self.precision,
            "epochs": self.params.get("epochs"),
            "length": self.params.get("length"),
            "select": self.params.get("select"),
            "val_size": self.params.get("val_size"),
            "trials": self.trials,
            "tune": self.tune,
        }


@dataclass(frozen=True)
class StudySpec:
    """The tuning of one arm at one training size; `seed` only when every seed tunes by itself."""

    arm: Arm
    n_train: int
    seed: int | None

    @classmethod
    def of(cls, arm: Arm, n_train: int, seed: int) -> StudySpec | None:
        """Return the study that tunes the trial of a seed, None where nothing is tuned."""
        if not arm.trials:
            return None
        return cls(arm, n_train, seed if arm.tune == "per-seed" else None)

    @cached_property
    def key(self) -> str:
        """The study's key."""
        return key_of(self)

    @property
    def random_stream(self) -> str:
        """What the seeds of the study derive from: never the name of a reported seed."""
        return "tune" if self.seed is None else f"tune-{self.seed}"

    @property
    def subset(self) -> str:
        """What the training subset derives from: where every seed tunes by itself, the seed's."""
        return self.random_stream if self.seed is None else str(self.seed)


@dataclass(frozen=True)
class TrialSpec:
    """One training run that is reported; a tuned one is keyed on its study, not its settings."""

    arm: Arm
    n_train: int
    seed: int
    study: str | None

    @classmethod
    def of(cls, arm: Arm, n_train: int, seed: int) -> TrialSpec:
        """Return the trial of a seed, keyed on its study where it is tuned."""
        study = StudySpec.of(arm, n_train, seed)
        return cls(arm, n_train, seed, study.key if study else None)

    @cached_property
    def key(self) -> str:
        """The trial's key."""
        return key_of(self)

    @property
    def random_stream(self) -> str:
        """What the seeds of the trial derive from."""
        return str(self.seed)

    @property
    def subset(self) -> str:
        """What the training subset derives from."""
        return self.random_stream


def dimension_to_plain(dimension: Dimension) -> dict[str, Any]:
    """Return a dimension of a search space as plain values."""
    values = dataclasses.asdict(dimension)
    if isinstance(dimension, Choice):
        values["values"] = list(dimension.values)
    return {"kind": type(dimension).__name__.lower(), **values}


def dimension_from_plain(values: Mapping[str, Any]) -> Dimension:
    """Return the dimension that `dimension_to_plain` wrote."""
    fields = {name: value for name, value in values.items() if name != "kind"}
    if values["kind"] == "choice":
        return Choice(tuple(fields["values"]))
    return Float(**fields) if values["kind"] == "float" else Int(**fields)


def arm_from_plain(values: Mapping[str, Any]) -> Arm:
    """Return the arm whose plain values were stored.

    Parameters
    ----------
    values : mapping
        As `plain` makes it of an `Arm`.
    """
    fields = dict(values)
    fields["model"] = Component(**fields["model"])
    fields["encoder"] = Component(**fields["encoder"]) if fields["encoder"] else None
    task = fields["task"]
    fields["task"] = Task(task["target"], task["kind"], tuple(task["classes"]))
    return Arm(**fields)
