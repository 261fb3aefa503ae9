"""Cards: descriptions of models, encoders, datasets etc. that do not import their code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Target = str | Callable[..., Any]
"""A string ``"module:attribute"``, which is imported when needed, or a plugin's function."""

Value = bool | int | float | str


@dataclass(frozen=True)
class Option:
    """An option of a model (``--set key=value``) or of a dataset (``--data-set key=value``).

    Parameters
    ----------
    default : bool, int, float or str
        The default value, which also determines the type of the option.
    help : str
        A description in one line for ``bench show``.
    choices : tuple
        The allowed values, if they can be listed.
    low, high : float, optional
        Inclusive bounds of a number.
    later : bool
        Whether the option was added after the first release. It is then omitted from specs at its
        default, so that the keys of stored results do not change.
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
            If `text` cannot be converted to the type of the option, or `check` raises.
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
                raise ValueError(f"{text!r} is not {_TYPE_NAMES[kind]}") from None
        return self.check(value)

    def check(self, value: Value) -> Value:
        """Return `value`; raise ValueError if it is out of range or not one of the choices."""
        if self.choices and value not in self.choices:
            raise ValueError(f"{value!r} is not one of {', '.join(map(str, self.choices))}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            # Written so that NaN, for which all comparisons are false, is out of range.
            above = self.low is None or value >= self.low
            below = self.high is None or value <= self.high
            if not (above and below) or value != value or value in (float("inf"), -float("inf")):
                raise ValueError(f"{value} is outside {self.range_text}")
        return value

    @property
    def range_text(self) -> str:
        """The allowed values as a string."""
        if self.choices:
            return "|".join(str(c).lower() if isinstance(c, bool) else str(c) for c in self.choices)
        if isinstance(self.default, bool):
            return "true|false"
        if isinstance(self.default, str):
            return "text"
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf" if self.high is None else f"{self.high:g}"
        return f"[{low}, {high}]"


_TYPE_NAMES = {int: "an integer", float: "a number", str: "text"}


@dataclass(frozen=True)
class Float:
    """A continuous dimension of a search space."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Int:
    """An integer dimension of a search space."""

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
    """What is predicted.

    Parameters
    ----------
    target : str
        The column of the manifest: ``age``, ``diagnosis`` or ``sex``.
    kind : str
        ``"regression"`` or ``"classification"``.
    classes : tuple of str
        The classes in order, empty for regression. The second of two is the positive class.
    """

    target: str
    kind: str
    classes: tuple[str, ...] = ()

    @property
    def n_outputs(self) -> int:
        """1 for regression and for two classes (one logit), otherwise the number of classes."""
        return len(self.classes) if len(self.classes) > 2 else 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Column names of the predictions in files.

        For two classes, only the probability of the second one is predicted.
        """
        if self.kind == "regression":
            return (f"predicted_{self.target}",)
        return tuple(f"p_{name}" for name in self.classes[-self.n_outputs :])


@dataclass(frozen=True)
class Weights:
    """The source of the pretrained weights of an encoder.

    Parameters
    ----------
    source : str
        A description, for example ``"timm resnet18.tv_in1k"``.
    licence : str
        The licence stated by the publisher.
    package : str
        ``"module:relative/path"`` of a file in an installed package, or empty.
    hub : str
        Hugging Face repository of a safetensors file, used for caches and downloads, or empty.
    torchvision : str
        torchvision's ``<model>.<tag>``, used for its cache and downloads, or empty.
    sha256 : str
        Expected digest of the loaded tensors (see ``bench weights list``); empty if it is not
        checked.
    """

    source: str
    licence: str
    package: str = ""
    hub: str = ""
    torchvision: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Constraints:
    """Requirements of a model; combinations that do not meet them are not run."""

    tasks: tuple[str, ...] = ("regression", "classification")
    min_train: int = 2


@dataclass(frozen=True)
class EncoderCard:
    """A 2D encoder: ``build(card, pretrained)`` maps ``(B, C, H, W)`` to ``(B, feature_dim)``.

    `pretrained` is a state dict, or None for random initialisation.
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
    """Names of the datasets that its weights were trained on; it is not tested on them."""
    position_at: str = "output"
    plugin: str = ""
    """The plugin file or entry point that defines it, empty if it is built in."""


@dataclass(frozen=True)
class ModelCard:
    """A model to be compared.

    For a network, ``build(params, task, shape, encoder)`` returns an ``nn.Module`` from
    ``(B, 1, D, H, W)`` to ``(B, n_outputs)``. For an estimator, ``build(params, task, shape)``
    returns an object with scikit-learn's ``fit`` and ``predict`` (``predict_proba`` for classes)
    for arrays ``(N, D, H, W)``.
    """

    name: str
    target: Target
    summary: str = ""
    version: int = 1
    kind: str = "network"
    encoder: str | None = None
    """Default encoder; None for a model without one."""
    encoder_fixed: bool = False
    """True if ``--encoder`` does not apply because the encoder is part of the model."""
    pretrained: bool = False
    """Whether the encoder is initialised with pretrained weights."""
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)
    """Values that differ from the defaults of the options, including those of training."""
    space: Mapping[str, Dimension] = field(default_factory=dict)
    constraints: Constraints = Constraints()
    smoke: Mapping[str, Value] = field(default_factory=dict)
    """Settings with which the model runs in seconds, for tests and conformance checks."""
    deterministic: bool = False
    """True if the fit depends only on the training set and not on the seed."""
    plugin: str = ""


@dataclass(frozen=True)
class DatasetCard:
    """A cohort: ``manifest(root, options)`` returns a DataFrame with one row per scan."""

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

    True values are ages or class indices. Predictions are ages, probabilities of the positive
    class (N,) or probabilities of all classes (N, K). The fields have the same meaning as those of
    `bench.stats.metric.Metric`. A metric that is not smooth, such as a median, must be declared
    with ``tested=False``, because the jackknife does not estimate its variance.
    """

    name: str
    target: Target
    label: str
    higher_is_better: bool
    tasks: tuple[str, ...]
    """One or several of ``"regression"``, ``"binary"`` and ``"multiclass"``."""
    per_subject: bool = False
    """True if the function returns the contributions of the subjects (N,), to be averaged."""
    of_classes: bool = False
    """True if the function is given predicted classes instead of probabilities."""
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

    It returns a `bench.execute.base.Executor`. The arguments are those of
    `bench.execute.local.LocalExecutor`.
    """

    name: str
    target: Target
    summary: str = ""
    remote: bool = False
    """Whether units run on other machines; see `bench.execute.base.RemoteExecutor`."""
    detachable: bool = False
    """Whether units continue without the command, and the next one finds them."""
    version: int = 1
    plugin: str = ""


Card = EncoderCard | ModelCard | DatasetCard | MetricCard | ExecutorCard
