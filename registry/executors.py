"""The built-in executors, which run units of work."""

from __future__ import annotations

from registry.cards import ExecutorCard

EXECUTORS: tuple[ExecutorCard, ...] = (
    ExecutorCard(
        name="local",
        target="bench.execute.local:LocalExecutor",
        summary="processes on this machine, one per unit, distributed over its GPUs",
    ),
)
