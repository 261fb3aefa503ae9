"""A training step of each slice encoder in both memory formats: the ground of the fixed rule."""

import statistics
import time

import torch

from bench.plan import resolve_params
from bench.train.encoder import encoder_handle
from registry.cards import Task
from registry.core import catalogue, resolve

SHAPE = (46, 55, 46)
TASK = Task("age", "regression")


def step_seconds(encoder: str, memory_format: torch.memory_format) -> float:
    """Return the median seconds of a training step on eight volumes."""
    card = catalogue.model("slice2d-scratch")
    handle = encoder_handle(catalogue.encoder(encoder), None)
    network = resolve(card.target)(resolve_params(card, {"stride": 4}), TASK, SHAPE, handle)
    network = network.to(memory_format=memory_format)
    volumes = torch.randn(8, 1, *SHAPE)
    spent = []
    for _ in range(4):
        started = time.perf_counter()
        network(volumes).square().mean().backward()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])


if __name__ == "__main__":
    for encoder in ("efficientnet-lite0", "resnet18", "own"):
        plain = step_seconds(encoder, torch.contiguous_format)
        last = step_seconds(encoder, torch.channels_last)
        print(f"{encoder}: channels-last takes {last / plain:.2f} of the contiguous time")
