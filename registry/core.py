"""The registry: names to cards, cards to code; built-in, entry points and plugin files."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Generic, TypeVar

from registry.cards import (
    Card,
    DatasetCard,
    EncoderCard,
    ExecutorCard,
    MetricCard,
    ModelCard,
    Target,
    Weights,
)
from registry.code import Code, code_of_entry_point, code_of_file, code_of_module
from registry.datasets import DATASETS
from registry.encoders import ENCODERS
from registry.errors import UserError
from registry.executors import EXECUTORS
from registry.models import MODELS

C = TypeVar("C", EncoderCard, ModelCard, DatasetCard, MetricCard, ExecutorCard)
F = TypeVar("F", bound=Callable[..., Any])

ENTRY_POINT_GROUP = "slicebench.plugins"
BUILT_IN = "the built-in catalogue"


_current: str | None = None
"""Origin of the plugin being loaded: what is registered meanwhile belongs to it."""


class PluginError(UserError):
    """A plugin that could not be loaded."""


class Registry(Generic[C]):
    """Cards of one kind by name.

    Parameters
    ----------
    kind : str
        What the cards are, for messages, such as ``"model"``.
    cards : iterable of cards
        The built-in catalogue.
    """

    def __init__(self, kind: str, cards: Iterable[C]) -> None:
        self.kind = kind
        self._cards: dict[str, C] = {}
        self._origins: dict[str, str] = {}
        for card in cards:
            self.add(card, BUILT_IN)

    def __iter__(self) -> Iterator[C]:
        return iter(self._cards.values())

    def __contains__(self, name: str) -> bool:
        return name in self._cards

    def add(self, card: C, origin: str) -> None:
        """Register a card; while a plugin is being loaded it belongs to the plugin.

        Raises
        ------
        UserError
            When the name is taken; the sentence names both origins.
        """
        if _current is not None:
            origin, card = _current, replace(card, plugin=_current)
        if card.name in self._cards:
            raise UserError(
                f"The {self.kind} {card.name!r} is defined twice: by {self._origins[card.name]} "
                f"and by {origin}; rename one of them."
            )
        self._cards[card.name] = card
        self._origins[card.name] = origin

    def discard(self, origin: str) -> None:
        """Forget every card of one origin."""
        for name in [n for n, o in self._origins.items() if o == origin]:
            del self._cards[name], self._origins[name]

    def origin(self, name: str) -> str:
        """Where a card came from, in words."""
        return self._origins.get(name, BUILT_IN)

    def get(self, name: str) -> C:
        """Return the card of that name.

        Raises
        ------
        UserError
            When there is none; the sentence suggests the nearest name.
        """
        if name in self._cards:
            return self._cards[name]
        raise UserError(
            f"There is no {self.kind} {name!r}{did_you_mean(name, self._cards)}; "
            f"`bench list {self.kind}s` shows what there is."
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the words ``", did you mean 'x'"``, or nothing when no name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}" if near else ""


@dataclass
class Catalogue:
    """The registries and the plugins that could not be loaded."""

    encoders: Registry[EncoderCard]
    models: Registry[ModelCard]
    datasets: Registry[DatasetCard]
    metrics: Registry[MetricCard]
    """Plugins' metrics only: the built-in ones are defined in `bench.stats.metrics`."""
    executors: Registry[ExecutorCard]
    broken: dict[str, str]
    files: list[str]
    """Plugin files in the order in which they were loaded; they travel with every unit of work."""
    code: dict[str, Code] = field(default_factory=dict)
    """What each plugin consisted of when it was loaded, by the `plugin` of its cards."""

    def encoder(self, name: str) -> EncoderCard:
        """Return an encoder's card, made from its name for ``timm/`` and ``torchvision/<name>``."""
        if name not in self.encoders and (card := library_card(name)):
            return card
        return self._get(self.encoders, name)

    def model(self, name: str) -> ModelCard:
        """Return a model's card."""
        return self._get(self.models, name)

    def dataset(self, name: str) -> DatasetCard:
        """Return a dataset's card."""
        return self._get(self.datasets, name)

    def executor(self, name: str) -> ExecutorCard:
        """Return an executor's card."""
        return self._get(self.executors, name)

    def _get(self, registry: Registry[C], name: str) -> C:
        try:
            return registry.get(name)
        except UserError as error:
            if self.broken:
                lost = "; ".join(f"{path}: {why}" for path, why in self.broken.items())
                raise UserError(f"{error} Plugins that failed to load: {lost}") from None
            raise

    def load_file(self, path: str | os.PathLike[str]) -> None:
        """Execute a plugin file or package folder, whose decorators register its cards.

        The file may import its neighbours relatively (``from .blocks import Block``). One that
        fails leaves nothing behind but its entry in `broken`.

        Raises
        ------
        UserError
            When the file does not exist or one of its names is taken.
        """
        file = Path(path).resolve()
        if file.is_dir() and (file / "__init__.py").is_file():
            file = file / "__init__.py"
        if not file.is_file():
            what = "is a folder without __init__.py" if file.is_dir() else "does not exist"
            raise UserError(f"The plugin file {path} {what}.")
        if file.suffix != ".py":
            raise UserError(
                f"The plugin file {path} is not a Python file; its name must end in .py."
            )
        if str(file) in self.files or str(file) in self.broken:
            return
        with self._loading(str(file)):
            executed = _execute(file)
            code = code_of_file(file)
            if code.files[file] != executed:
                raise PluginError(f"The plugin file {path} was edited while it was being loaded.")
            self.code[str(file)] = code
        if str(file) not in self.broken:
            self.files.append(str(file))

    def load_entry_points(self) -> None:
        """Load installed packages that announce themselves in the group ``slicebench.plugins``."""
        from importlib.metadata import entry_points

        for point in entry_points(group=ENTRY_POINT_GROUP):
            origin = f"the package entry point {point.name} ({point.value})"
            if origin in self.broken or origin in self.code:
                continue
            with self._loading(origin):
                point.load()
                self.code[origin] = code_of_entry_point(point)

    @contextmanager
    def _loading(self, origin: str) -> Iterator[None]:
        global _current
        _current = origin
        try:
            yield
        except UserError:
            self._discard(origin)
            raise
        except (Exception, SystemExit) as error:
            # Whatever a stranger's file raises is its own failure, never the harness's.
            self._discard(origin)
            where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
            self.broken[origin] = f"{type(error).__name__}: {error}{where}".split("\n")[0]
        finally:
            _current = None

    def _discard(self, origin: str) -> None:
        for registry in (self.encoders, self.models, self.datasets, self.metrics, self.executors):
            registry.discard(origin)


def library_card(name: str) -> EncoderCard | None:
    """Return the card of a model of a library, such as ``timm/<name>``; None for other names."""
    makers = {"timm/": timm_card, "torchvision/": torchvision_card}
    return next((make(name) for prefix, make in makers.items() if name.startswith(prefix)), None)


def timm_card(name: str) -> EncoderCard:
    """Card of any timm model, made from its name; its weights are those of timm's tag."""
    return EncoderCard(
        name=name,
        target="baselines.encoders:build_timm",
        summary=f"timm's {name.removeprefix('timm/')}",
        weights=Weights(source=name, licence="see the model's page", hub=name),
        pretraining="as timm's tag says",
    )


def torchvision_card(name: str) -> EncoderCard:
    """Card of any torchvision classifier; its weights are torchvision's default or its tag's."""
    published = name.removeprefix("torchvision/")
    return EncoderCard(
        name=name,
        target="baselines.encoders:build_torchvision",
        summary=f"torchvision's {published}",
        min_size=TORCHVISION_MIN_SIZES.get(published.partition(".")[0], 32),
        weights=Weights(source=name, licence="see the model's page", torchvision=published),
        pretraining="as torchvision's page says",
    )


TORCHVISION_MIN_SIZES = {
    "alexnet": 63,
    "inception_v3": 75,
    "efficientnet_v2_s": 33,
    "efficientnet_v2_m": 33,
    "efficientnet_v2_l": 33,
}
"""Smallest slices of the torchvision models that need more than 32 voxels a side."""


def resolve(target: Target) -> Callable[..., Any]:
    """Import what a card's target names.

    Raises
    ------
    UserError
        When the module or attribute does not exist.
    """
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"The target {target!r} of a card cannot be imported: {error}.") from error
    return found


def plugin_digest(card: Card) -> str:
    """Return the digest of the plugin a card came from; empty for the built-in catalogue.

    It is that of the code that was loaded, whatever has become of the files since.
    """
    return catalogue.code[card.plugin].digest if card.plugin else ""


class _AsWritten(SourceFileLoader):
    """Executes a file as it is: kept bytecode is told apart by size and second only."""

    executed = ""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        self.executed = hashlib.sha256(source).hexdigest()
        code: CodeType = self.source_to_code(source, self.path)
        return code


def _execute(file: Path) -> str:
    """Execute a plugin file; return the sha256 of what was executed.

    It is a module of a package made of its folder, or the package itself, so that relative
    imports work; neither is on Python's path.
    """
    package = file.name == "__init__.py"
    where = file.parent.parent if package else file.parent
    folder = f"slicebench_plugins_{hashlib.sha256(str(where).encode()).hexdigest()[:8]}"
    parent = sys.modules.setdefault(folder, ModuleType(folder))
    parent.__path__ = [str(where)]
    stem = re.sub(r"\W", "_", file.parent.name if package else file.stem)
    name = f"{folder}.{stem}"
    loader = _AsWritten(name, str(file))
    inside = [str(file.parent)] if package else None
    spec = importlib.util.spec_from_file_location(
        name, file, loader=loader, submodule_search_locations=inside
    )
    assert spec is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return loader.executed


catalogue = Catalogue(
    encoders=Registry("encoder", ENCODERS),
    models=Registry("model", MODELS),
    datasets=Registry("dataset", DATASETS),
    metrics=Registry("metric", []),
    executors=Registry("executor", EXECUTORS),
    broken={},
    files=[],
)
"""The one catalogue of a process."""


def _register(registry: Registry[C], card: C, function: Callable[..., Any]) -> None:
    summary = card.summary or (function.__doc__ or "").strip().split("\n")[0]
    card = replace(card, summary=summary)
    if _current is None:
        # Imported by somebody else's code; it is no part of the built-in catalogue either.
        card = replace(card, plugin=function.__module__)
        catalogue.code[function.__module__] = code_of_module(function.__module__)
    registry.add(card, function.__module__)


def encoder(name: str, **fields: Any) -> Callable[[F], F]:
    """Register the decorated ``build(card, pretrained)`` as an encoder; see `EncoderCard`."""

    def decorate(function: F) -> F:
        _register(catalogue.encoders, EncoderCard(name=name, target=function, **fields), function)
        return function

    return decorate


def model(name: str, **fields: Any) -> Callable[[F], F]:
    """Register the decorated ``build(...)`` as a model; see `ModelCard`."""

    def decorate(function: F) -> F:
        _register(catalogue.models, ModelCard(name=name, target=function, **fields), function)
        return function

    return decorate


def dataset(name: str, **fields: Any) -> Callable[[F], F]:
    """Register the decorated ``manifest(root, options)`` as a dataset; see `DatasetCard`."""

    def decorate(function: F) -> F:
        _register(catalogue.datasets, DatasetCard(name=name, target=function, **fields), function)
        return function

    return decorate


def metric(name: str, **fields: Any) -> Callable[[F], F]:
    """Register the decorated ``value(truth, prediction)`` as a metric; see `MetricCard`."""

    def decorate(function: F) -> F:
        _register(catalogue.metrics, MetricCard(name=name, target=function, **fields), function)
        return function

    return decorate


def executor(name: str, **fields: Any) -> Callable[[F], F]:
    """Register the decorated class or function as an executor; see `ExecutorCard`."""

    def decorate(function: F) -> F:
        _register(catalogue.executors, ExecutorCard(name=name, target=function, **fields), function)
        return function

    return decorate
