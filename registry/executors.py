"""The built-in executors: where the units of a run work."""

from __future__ import annotations

from registry.cards import ExecutorCard

EXECUTORS: tuple[ExecutorCard, ...] = (
    ExecutorCard(
        name="local",
        target="bench.execute.local:LocalExecutor",
        summary="processes on this machine, one a unit, spread over its GPUs",
    ),
)
