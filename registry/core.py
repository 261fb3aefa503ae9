"""The catalogue of cards: built-in ones, and those of plugin files and entry points."""

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
BUILT_IN = "slicebench"


_current: str | None = None
"""The plugin being loaded, to which cards registered in the meantime belong."""


class PluginError(UserError):
    """A plugin that could not be loaded."""


class Registry(Generic[C]):
    """Cards of one kind by name.

    Parameters
    ----------
    kind : str
        What the cards describe, for messages, such as ``"model"``.
    cards : iterable of cards
        The built-in cards.
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
        """Register a card, which belongs to the plugin that is being loaded, if any.

        Raises
        ------
        UserError
            If the name is already taken; the message names both origins.
        """
        if _current is not None:
            origin, card = _current, replace(card, plugin=_current)
        if card.name in self._cards:
            raise UserError(
                f"The {self.kind} {card.name!r} is defined twice, in {self._origins[card.name]} "
                f"and in {origin}. Rename one of them."
            )
        self._cards[card.name] = card
        self._origins[card.name] = origin

    def discard(self, origin: str) -> None:
        """Remove all cards of an origin."""
        for name in [n for n, o in self._origins.items() if o == origin]:
            del self._cards[name], self._origins[name]

    def origin(self, name: str) -> str:
        """Return where a card is defined."""
        return self._origins.get(name, BUILT_IN)

    def get(self, name: str) -> C:
        """Return the card with a name.

        Raises
        ------
        UserError
            If there is none; the message suggests the most similar name.
        """
        if name in self._cards:
            return self._cards[name]
        raise UserError(
            f"There is no {self.kind} {name!r}{did_you_mean(name, self._cards)}; "
            f"`bench list {self.kind}s` lists all {self.kind}s."
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'"``, or an empty string if no name is similar."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}" if near else ""


def counted(n: int, singular: str, plural: str = "") -> str:
    """Return a number and its noun, as in ``"1 scan"`` or ``"2 scans"``."""
    return f"{n} {singular if n == 1 else plural or singular + 's'}"


@dataclass
class Catalogue:
    """All registries, the loaded plugins, and the plugins that could not be loaded."""

    encoders: Registry[EncoderCard]
    models: Registry[ModelCard]
    datasets: Registry[DatasetCard]
    metrics: Registry[MetricCard]
    """Metrics of plugins only; the built-in ones are defined in `bench.stats.metrics`."""
    executors: Registry[ExecutorCard]
    broken: dict[str, str]
    """Why a plugin could not be loaded, by its file or entry point."""
    files: list[str]
    """Plugin files in the order in which they were loaded; passed on to every worker."""
    code: dict[str, Code] = field(default_factory=dict)
    """The code of each plugin when it was loaded, by the `plugin` of its cards."""

    def encoder(self, name: str) -> EncoderCard:
        """Return the card of an encoder, including ``timm/<name>`` and ``torchvision/<name>``."""
        if name not in self.encoders and (card := library_card(name)):
            return card
        return self._get(self.encoders, name)

    def model(self, name: str) -> ModelCard:
        """Return the card of a model."""
        return self._get(self.models, name)

    def dataset(self, name: str) -> DatasetCard:
        """Return the card of a dataset."""
        return self._get(self.datasets, name)

    def executor(self, name: str) -> ExecutorCard:
        """Return the card of an executor."""
        return self._get(self.executors, name)

    def _get(self, registry: Registry[C], name: str) -> C:
        try:
            return registry.get(name)
        except UserError as error:
            if self.broken:
                lost = "; ".join(f"{path}: {why}" for path, why in self.broken.items())
                raise UserError(f"{error} Some plugins could not be loaded: {lost}.") from None
            raise

    def load_file(self, path: str | os.PathLike[str]) -> None:
        """Execute a plugin file or package directory, which registers its cards.

        The file can import neighbouring modules (``from .blocks import Block``). If it fails, none
        of its cards is registered, and the reason is stored in `broken`.

        Raises
        ------
        UserError
            If the file does not exist or one of its names is already taken.
        """
        file = Path(path).resolve()
        if file.is_dir() and (file / "__init__.py").is_file():
            file = file / "__init__.py"
        if not file.is_file():
            what = "is a directory without __init__.py" if file.is_dir() else "does not exist"
            raise UserError(f"The plugin file {path} {what}.")
        if file.suffix != ".py":
            raise UserError(
                f"The plugin file {path} is not a Python file; its name must end with .py."
            )
        if str(file) in self.files or str(file) in self.broken:
            return
        with self._loading(str(file)):
            executed = _execute(file)
            code = code_of_file(file)
            if code.files[file] != executed:
                raise PluginError(
                    f"The plugin file {path} was edited while it was being loaded; run the command "
                    "again."
                )
            self.code[str(file)] = code
        if str(file) not in self.broken:
            self.files.append(str(file))

    def load_entry_points(self) -> None:
        """Load installed packages with an entry point in the group ``slicebench.plugins``."""
        from importlib.metadata import entry_points

        for point in entry_points(group=ENTRY_POINT_GROUP):
            origin = f"entry point {point.name} ({point.value})"
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
            # A plugin may raise anything, which must not affect other plugins.
            self._discard(origin)
            where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
            self.broken[origin] = f"{type(error).__name__}: {error}{where}".split("\n")[0]
        finally:
            _current = None

    def _discard(self, origin: str) -> None:
        for registry in (self.encoders, self.models, self.datasets, self.metrics, self.executors):
            registry.discard(origin)


def library_card(name: str) -> EncoderCard | None:
    """Return the card of an encoder from timm or torchvision; None for other names."""
    makers = {"timm/": timm_card, "torchvision/": torchvision_card}
    return next((make(name) for prefix, make in makers.items() if name.startswith(prefix)), None)


def timm_card(name: str) -> EncoderCard:
    """Return the card of a timm model ``timm/<model>[.<tag>]``."""
    return EncoderCard(
        name=name,
        target="baselines.encoders:build_timm",
        summary=f"timm's {name.removeprefix('timm/')}",
        weights=Weights(source=name, licence="see the model's page", hub=name),
        pretraining="see the tag of the timm model",
    )


def torchvision_card(name: str) -> EncoderCard:
    """Return the card of a torchvision classifier ``torchvision/<model>[.<tag>]``."""
    published = name.removeprefix("torchvision/")
    return EncoderCard(
        name=name,
        target="baselines.encoders:build_torchvision",
        summary=f"torchvision's {published}",
        min_size=TORCHVISION_MIN_SIZES.get(published.partition(".")[0], 32),
        weights=Weights(source=name, licence="see the model's page", torchvision=published),
        pretraining="see the documentation of torchvision",
    )


TORCHVISION_MIN_SIZES = {
    "alexnet": 63,
    "inception_v3": 75,
    "efficientnet_v2_s": 33,
    "efficientnet_v2_m": 33,
    "efficientnet_v2_l": 33,
}
"""Minimum slice size of torchvision models that require more than 32 voxels per side."""


def resolve(target: Target) -> Callable[..., Any]:
    """Import the target of a card.

    Raises
    ------
    UserError
        If the module or attribute does not exist.
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
    """Return the digest of the plugin that defines a card, empty for a built-in card.

    It is the digest of the code that was loaded, even if the files were changed later.
    """
    return catalogue.code[card.plugin].digest if card.plugin else ""


class _AsWritten(SourceFileLoader):
    """Executes the source of a file, because cached bytecode could be outdated.

    Python compares only the size of the source and its modification time in seconds.
    """

    executed = ""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        self.executed = hashlib.sha256(source).hexdigest()
        code: CodeType = self.source_to_code(source, self.path)
        return code


def _execute(file: Path) -> str:
    """Execute a plugin file and return the sha256 of its source.

    The file becomes a module of an artificial package for its directory (or is the package
    itself), so that relative imports work although the directory is not on the import path.
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
"""The catalogue of this process."""


def _register(registry: Registry[C], card: C, function: Callable[..., Any]) -> None:
    summary = card.summary or (function.__doc__ or "").strip().split("\n")[0]
    card = replace(card, summary=summary)
    if _current is None:
        # Registered outside of a plugin, for example in a script; not built in either.
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
