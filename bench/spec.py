"""Specifications of arms, studies and trials, with their keys and seeds."""

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
    """Return the canonical JSON of a value, with sorted names and without spaces.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )


def key_of(spec: Any) -> str:
    """Return the key of a spec: the first 16 hexadecimal digits of the sha256 of its JSON."""
    return _digest(canonical_json(plain(spec)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(spec: Any) -> Any:
    """Return a spec, or a value that is already plain, as JSON-ready values."""
    if isinstance(spec, Mapping):
        return {name: plain(value) for name, value in spec.items()}
    if isinstance(spec, tuple | list):
        return [plain(value) for value in spec]
    if not dataclasses.is_dataclass(type(spec)):
        return spec
    # A field added after the first release is omitted at its neutral value, so that the keys of
    # stored results do not change.
    return {
        field.name: plain(getattr(spec, field.name))
        for field in dataclasses.fields(spec)
        if "neutral" not in field.metadata or getattr(spec, field.name) != field.metadata["neutral"]
    }


def seed_for(part: str, *context: int | str) -> int:
    """Derive the seed for one use of random numbers; different uses have independent seeds.

    Parameters
    ----------
    part : str
        What the random numbers are for: ``"subset"``, ``"init"``, ``"order"``, ``"validation"``
        etc.
    *context : int or str
        What the seed depends on, for example the random stream of a trial and the epoch.

    Returns
    -------
    int
        A number in ``[0, 2**63)``, derived with sha256.
    """
    text = "/".join([part, *map(str, context)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class Component:
    """The code and weights of a model or an encoder, as far as they affect results."""

    name: str
    version: int
    plugin: str = ""
    """Digest of the code of the plugin, empty for built-in components."""
    weights: str = ""
    """Digest of the pretrained tensors, empty for random initialisation."""
    overlap: bool = dataclasses.field(default=False, metadata={"neutral": False})
    """True if it was pretrained on the cohort of the test set, which the user allowed."""


@dataclass(frozen=True)
class Arm:
    """A configured model on a cohort: everything about a trial except its seed and training size.

    The trials of an arm form one row of a report's tables.
    """

    model: Component
    encoder: Component | None
    fingerprint: str
    task: Task
    params: Mapping[str, Value]
    """Values of all options of the model; those in `space` have the default of the card."""
    space: Mapping[str, Mapping[str, Any]]
    """Dimensions of the search space as plain values, empty if nothing is tuned."""
    trials: int | None
    """Optuna trials per study; None for a model without a search space, which has no budget."""
    tune: str | None
    """``shared`` or ``per-seed``; None if nothing is tuned."""
    precision: str | None
    """``fp32`` or ``bf16``; None for estimators."""

    @cached_property
    def key(self) -> str:
        """The arm's key."""
        return _digest(self.canonical)

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON of the arm."""
        return canonical_json(plain(self))

    @property
    def protocol(self) -> dict[str, Any]:
        """What arms must have in common to be compared in one table; None matches any value."""
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
    """The tuning of an arm at a training size; `seed` is None if all seeds share one study."""

    arm: Arm
    n_train: int
    seed: int | None

    @classmethod
    def of(cls, arm: Arm, n_train: int, seed: int) -> StudySpec | None:
        """Return the study that tunes the trial of a seed, None if nothing is tuned."""
        if not arm.trials:
            return None
        return cls(arm, n_train, seed if arm.tune == "per-seed" else None)

    @cached_property
    def key(self) -> str:
        """The study's key."""
        return _key_of_unit(self)

    @property
    def random_stream(self) -> str:
        """The random stream of the study, which differs from those of all trials."""
        return "tune" if self.seed is None else f"tune-{self.seed}"

    @property
    def subset(self) -> str:
        """The random stream of the training subset: that of the seed if each seed is tuned."""
        return self.random_stream if self.seed is None else str(self.seed)


@dataclass(frozen=True)
class TrialSpec:
    """A reported training run; the key of a tuned one includes its study, not its settings."""

    arm: Arm
    n_train: int
    seed: int
    study: str | None

    @classmethod
    def of(cls, arm: Arm, n_train: int, seed: int) -> TrialSpec:
        """Return the trial of a seed, with its study if it is tuned."""
        study = StudySpec.of(arm, n_train, seed)
        return cls(arm, n_train, seed, study.key if study else None)

    @cached_property
    def key(self) -> str:
        """The trial's key."""
        return _key_of_unit(self)

    @property
    def random_stream(self) -> str:
        """The random stream of the trial, from which its seeds are derived."""
        return str(self.seed)

    @property
    def subset(self) -> str:
        """The random stream of the training subset."""
        return self.random_stream


def _key_of_unit(spec: StudySpec | TrialSpec) -> str:
    """Return `key_of` a study or trial, computing the long JSON of its arm only once."""
    rest = canonical_json(plain(dataclasses.replace(spec, arm=None)))  # type: ignore[arg-type]
    return _digest(rest.replace('"arm":null', f'"arm":{spec.arm.canonical}', 1))


def dimension_to_plain(dimension: Dimension) -> dict[str, Any]:
    """Return a dimension of a search space as plain values."""
    values = dataclasses.asdict(dimension)
    if isinstance(dimension, Choice):
        values["values"] = list(dimension.values)
    return {"kind": type(dimension).__name__.lower(), **values}


def dimension_from_plain(values: Mapping[str, Any]) -> Dimension:
    """Invert `dimension_to_plain`."""
    fields = {name: value for name, value in values.items() if name != "kind"}
    if values["kind"] == "choice":
        return Choice(tuple(fields["values"]))
    return Float(**fields) if values["kind"] == "float" else Int(**fields)


def arm_from_plain(values: Mapping[str, Any]) -> Arm:
    """Return an arm from its plain values.

    Parameters
    ----------
    values : mapping
        The result of `plain` for an `Arm`.
    """
    fields = dict(values)
    fields["model"] = Component(**fields["model"])
    fields["encoder"] = Component(**fields["encoder"]) if fields["encoder"] else None
    task = fields["task"]
    fields["task"] = Task(task["target"], task["kind"], tuple(task["classes"]))
    return Arm(**fields)


def label_of(spec: StudySpec | TrialSpec) -> str:
    """Return a description of a study or trial."""
    model = spec.arm.model.name
    if spec.arm.encoder is not None:
        model += f" [{spec.arm.encoder.name}]"
    if isinstance(spec, StudySpec):
        return f"{model} n={spec.n_train} tuning"
    return f"{model} n={spec.n_train} seed {spec.seed}"
