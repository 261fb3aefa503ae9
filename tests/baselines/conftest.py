"""Encoder handles and complete settings, as passed to the builders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from registry import catalogue
from registry.cards import EncoderCard, Task
from registry.core import resolve
from registry.models import model_options

AGE = Task("age", "regression")


@dataclass
class Handle:
    card: EncoderCard
    pretrained: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        for name in ("name", "channels", "mean", "std", "min_size", "position_at"):
            setattr(self, name, getattr(self.card, name))
        zeros = torch.zeros(1, self.channels, self.min_size, self.min_size)
        with torch.no_grad():
            self.feature_dim = self.make().eval()(zeros).shape[1]

    def make(self) -> nn.Module:
        return resolve(self.card.target)(self.card, self.pretrained)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    # For networks this small, several threads would only be slower.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    def make(
        model: str,
        shape: tuple[int, int, int],
        task: Task = AGE,
        encoder: str | Handle | None = None,
        **settings: Any,
    ) -> Any:
        torch.manual_seed(0)
        card = catalogue.model(model)
        params = {name: option.default for name, option in model_options(card).items()}
        params.update({**card.defaults, **settings})
        builder = resolve(card.target)
        if card.kind == "estimator":
            return builder(params, task, shape)
        chosen = encoder or card.encoder
        handle = Handle(catalogue.encoder(chosen)) if isinstance(chosen, str) else chosen
        return builder(params, task, shape, handle)

    return make


@pytest.fixture(scope="session")
def handle() -> Callable[..., Handle]:
    return lambda name, pretrained=None: Handle(catalogue.encoder(name), pretrained)
