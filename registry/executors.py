"""The built-in executors, which run units of work."""

from __future__ import annotations

from registry.cards import ExecutorCard

EXECUTORS: tuple[ExecutorCard, ...] = (
    ExecutorCard(
        name="local",
        target="bench.execute.local:LocalExecutor",
        summary="processes on this machine, one per unit, distributed over its GPUs",
    ),
    ExecutorCard(
        name="slurm",
        target="bench.execute.slurm:SlurmExecutor",
        summary="jobs of a Slurm cluster, one per unit, submitted on a login node as job arrays",
        remote=True,
        detachable=True,
    ),
    ExecutorCard(
        name="ray",
        target="bench.execute.ray:RayExecutor",
        summary="tasks of a Ray cluster, one per unit, or of Ray on this machine",
        remote=True,
    ),
)
