"""Cards: everything the harness knows of a model, an encoder or a dataset before importing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Target = str | Callable[..., Any]
"""A lazy ``"module:attribute"`` or, from a plugin file, the function itself."""

Value = bool | int | float | str


@dataclass(frozen=True)
class Option:
    """One setting of a model or of the training recipe, set by ``--set key=value``.

    Parameters
    ----------
    default : bool, int, float or str
        The value used when nobody sets it; its type is the type of the option.
    help : str
        One line for ``bench show``.
    choices : tuple
        The allowed values, if they can be listed.
    low, high : float, optional
        Inclusive bounds of a number.
    later : bool
        Whether the option came after the first release: at its default it is left out of specs,
        so that older keys stay what they are.
    """

    default: Value
    help: str
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    later: bool = False

    def parse(self, text: str) -> Value:
        """Read a value from the command line.

        Raises
        ------
        ValueError
            When `text` is not of the option's type, or `check` refuses it.
        """
        kind = type(self.default)
        value: Value
        if kind is bool:
            words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            if text.lower() not in words:
                raise ValueError(f"{text!r} is neither true nor false")
            value = words[text.lower()]
        else:
            try:
                value = kind(text)
            except ValueError:
                raise ValueError(f"{text!r} is not {_ARTICLE[kind]}") from None
        return self.check(value)

    def check(self, value: Value) -> Value:
        """Return `value`, or raise ValueError when it is out of range or not a choice."""
        if self.choices and value not in self.choices:
            raise ValueError(f"{value!r} is not one of {', '.join(map(str, self.choices))}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            # Written so that NaN, which compares false with everything, is refused too.
            above = self.low is None or value >= self.low
            below = self.high is None or value <= self.high
            if not (above and below) or value != value or value in (float("inf"), -float("inf")):
                raise ValueError(f"{value} is outside {self.range_text}")
        return value

    @property
    def range_text(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return "|".join(str(c).lower() if isinstance(c, bool) else str(c) for c in self.choices)
        if isinstance(self.default, bool):
            return "true|false"
        if isinstance(self.default, str):
            return "text"
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf" if self.high is None else f"{self.high:g}"
        return f"[{low}, {high}]"


_ARTICLE = {int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Float:
    """A continuous dimension of a search space."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Int:
    """A whole-number dimension of a search space."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """A categorical dimension of a search space."""

    values: tuple[Value, ...]


Dimension = Float | Int | Choice


@dataclass(frozen=True)
class Task:
    """What is predicted: a plain value that models receive.

    Parameters
    ----------
    target : str
        The manifest's column: ``age``, ``diagnosis`` or ``sex``.
    kind : str
        ``"regression"`` or ``"classification"``.
    classes : tuple of str
        The classes in order; the last one of two is the positive class. Empty for regression.
    """

    target: str
    kind: str
    classes: tuple[str, ...] = ()

    @property
    def n_outputs(self) -> int:
        """1 for regression and for two classes (one logit), else the number of classes."""
        return len(self.classes) if len(self.classes) > 2 else 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the predictions in files: years, or the probability of each class.

        Of two classes only the probability of the second is predicted.
        """
        if self.kind == "regression":
            return (f"predicted_{self.target}",)
        return tuple(f"p_{name}" for name in self.classes[-self.n_outputs :])


@dataclass(frozen=True)
class Weights:
    """Where the pretrained tensors of an encoder come from; nothing here is fetched silently.

    Parameters
    ----------
    source : str
        What they are, e.g. ``"timm resnet18.tv_in1k"``.
    licence : str
        Their licence, as their publisher states it.
    package : str
        ``"module:relative/path"`` of a file inside an installed package, or empty.
    hub : str
        Hugging Face repository of a safetensors file, for caches and downloads, or empty.
    torchvision : str
        torchvision's ``<model>.<tag>`` of the weights, for its cache and its downloads, or empty.
    sha256 : str
        Digest over the loaded tensors by name (see ``bench weights list``), filled only from a
        file someone had; empty means that it is recorded at first use.
    """

    source: str
    licence: str
    package: str = ""
    hub: str = ""
    torchvision: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Constraints:
    """What a model needs; the plan drops what cannot run, with a reason."""

    tasks: tuple[str, ...] = ("regression", "classification")
    min_train: int = 2


@dataclass(frozen=True)
class EncoderCard:
    """A 2D encoder: ``build(card, pretrained)`` maps ``(B, C, H, W)`` to ``(B, feature_dim)``.

    `pretrained` is None for random initialisation, else the state dict that was found.
    """

    name: str
    target: Target
    summary: str = ""
    version: int = 1
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    min_size: int = 32
    weights: Weights | None = None
    pretraining: str = ""
    pretrained_on: tuple[str, ...] = ()
    """Cohorts (names of datasets) whose scans its weights have seen: it is not tested on them."""
    position_at: str = "output"
    plugin: str = ""
    """The plugin file or entry point it came from, empty for the built-in catalogue."""


@dataclass(frozen=True)
class ModelCard:
    """A model under comparison.

    A network is ``build(params, task, shape, encoder) -> nn.Module`` from ``(B, 1, D, H, W)`` to
    ``(B, n_outputs)``; an estimator is ``build(params, task, shape)`` with scikit-learn's ``fit``
    and ``predict`` (``predict_proba`` for classes) on ``(N, D, H, W)`` arrays.
    """

    name: str
    target: Target
    summary: str = ""
    version: int = 1
    kind: str = "network"
    encoder: str | None = None
    """Default encoder; None for a model that takes none."""
    encoder_fixed: bool = False
    """True where ``--encoder`` does not apply because the encoder is the model's definition."""
    pretrained: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)
    """Values that differ from the options' own defaults, training recipe included."""
    space: Mapping[str, Dimension] = field(default_factory=dict)
    constraints: Constraints = Constraints()
    smoke: Mapping[str, Value] = field(default_factory=dict)
    """Settings under which the model runs in seconds, for tests and conformance checks."""
    deterministic: bool = False
    """True when the same training set always gives the same fit, whatever the seed."""
    plugin: str = ""


@dataclass(frozen=True)
class DatasetCard:
    """A cohort: ``manifest(root, options) -> DataFrame``, one row a scan."""

    name: str
    target: Target
    summary: str = ""
    version: int = 1
    targets: tuple[str, ...] = ("age", "diagnosis", "sex")
    default_target: str = "age"
    needs_root: bool = True
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)
    synthetic: bool = False
    plugin: str = ""


@dataclass(frozen=True)
class MetricCard:
    """A metric: ``value(truth, prediction)`` from (N,) and (N,) or (N, K) arrays to a number.

    Truths are ages or class indices; predictions are ages, probabilities of the positive class
    (N,) or of every class (N, K). The fields are those of `bench.stats.metric.Metric`. A function
    that is not smooth, such as a median, is not to be tested: its jackknife variance is wrong.
    """

    name: str
    target: Target
    label: str
    higher_is_better: bool
    tasks: tuple[str, ...]
    """Of ``"regression"``, ``"binary"`` and ``"multiclass"``."""
    per_subject: bool = False
    """True where the function returns each subject's contribution (N,), whose mean is the value."""
    of_classes: bool = False
    """True where the function is given the class of each subject instead of probabilities."""
    unit: str = ""
    ranked: bool = True
    tested: bool = True
    bounds: tuple[float, float] = (float("-inf"), float("inf"))
    summary: str = ""
    version: int = 1
    plugin: str = ""


@dataclass(frozen=True)
class ExecutorCard:
    """Where units of work run: ``build(workers, *, gpus, preload, on_progress)``.

    It returns a `bench.execute.base.Executor`; the arguments are those of the local one.
    """

    name: str
    target: Target
    summary: str = ""
    version: int = 1
    plugin: str = ""


Card = EncoderCard | ModelCard | DatasetCard | MetricCard | ExecutorCard
