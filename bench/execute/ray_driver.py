"""The process that is connected to a Ray cluster, on behalf of `bench.execute.ray.RayExecutor`.

Ray may end the process that uses it, writes to the terminal and handles signals. In a process of
its own, none of this affects the command, and all that it started ends with it.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import bench
from bench.execute.base import WorkerExit
from bench.execute.ray_job import Data, Owner, look, run_unit, write_part
from bench.execute.remote import PROGRESS, latest_attempt, read_json
from registry.errors import UserError

TICK = 0.1
"""Seconds between looking for messages of the command."""
SLOW_TICK = 2.0
"""Seconds between looking at nodes and at the progress of units."""
LOOK_SECONDS = 60.0
"""Seconds to wait for a node that has been asked what it sees."""
END_SECONDS = 5.0
"""Seconds to wait for units that have been cancelled."""
EXIT_SECONDS = 20.0
"""Seconds in which this process may end its units after the command has ended."""
OBJECT_STORE = 100 * 1024**2
"""Size of the object store of a local cluster, in bytes."""
PART = 32 * 1024**2
"""Number of bytes of a file that are copied at a time."""


@dataclass(frozen=True)
class Needs:
    """The resources of a unit."""

    cpus: int
    gpus: float = 0.0
    memory: int = 0
    """Bytes; 0 if the user requests none."""
    resources: tuple[tuple[str, float], ...] = ()
    """The user's own resources."""

    def __str__(self) -> str:
        parts = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory}
        given = {**{name: value for name, value in parts.items() if value}, **dict(self.resources)}
        return ", ".join(f"{name}={value:g}" for name, value in given.items())

    def options(self) -> dict[str, Any]:
        """Return the options of a Ray task."""
        more = {"memory": self.memory} if self.memory else {}
        resources = dict(self.resources)
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": resources, **more}

    def fit(self, node: Mapping[str, float]) -> int:
        """Return how many units fit on a node with these resources."""
        needed = {"CPU": self.cpus, "memory": self.memory, **dict(self.resources)}
        counts = [int(node.get(name, 0) // value) for name, value in needed.items() if value]
        if self.gpus:
            gpus = int(node.get("GPU", 0))
            shared = self.gpus < 1
            counts.append(gpus * int(1 / self.gpus) if shared else int(gpus // self.gpus))
        return min(counts)


@dataclass(frozen=True)
class RayUnit:
    """A unit, as the command passes it on."""

    key: str
    text: str
    """The unit as JSON."""
    folder: str
    needs: Needs
    files: tuple[str, ...]
    """The files that it reads, which are copied to nodes that do not see them."""
    plugins: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """Settings of the process."""

    address: str
    """The address of a Ray cluster; empty to start one on this machine."""
    cpus: int
    """Number of CPUs of a local cluster."""
    folder: str
    """A directory for temporary files of a local cluster."""
    log: str
    """The file for what Ray writes to standard output and error."""
    workers: int
    """Maximum number of units that run in parallel; 0 for no maximum."""
    name: str
    """A unique name of this process."""
    preload: tuple[str, ...]


@dataclass(eq=False)
class _Job:
    """A unit that has been submitted to Ray."""

    unit: RayUnit
    ref: Any
    submitted: datetime = field(default_factory=lambda: datetime.now(UTC))
    progress: Any = None

    @property
    def folder(self) -> Path:
        return Path(self.unit.folder)


class Stopped(Exception):
    """The command asked this process to end."""


def serve(pipe: Connection, settings: Settings) -> None:
    """Connect this process to Ray, and run units until the command or the cluster ends.

    Parameters
    ----------
    pipe : Connection
        The connection to the command.
    settings : Settings
        The settings.
    """
    # Ctrl-C is sent to the whole process group, but only the command handles it.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(settings.log, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_end_with_command, daemon=True).start()
    try:
        gpus = connect(settings)
    except Exception as error:
        traceback.print_exc()
        pipe.send(("refused", str(error).strip().partition("\n")[0] or type(error).__name__))
        return
    driver = RayDriver(pipe, settings)
    try:
        pipe.send(("ready", gpus))
        driver.run()
    except (Stopped, EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except UserError as error:
        driver.send("failed", str(error))
    with suppress(UserError):
        driver.stop()
    shutil.rmtree(settings.folder, ignore_errors=True)
    # A thread may still be copying a file.
    os._exit(0)


def _end_with_command() -> None:
    """End this process some time after the command has ended, even if Ray does not answer."""
    command = multiprocessing.parent_process()
    assert command is not None
    command.join()
    time.sleep(EXIT_SECONDS)
    os._exit(1)


def connect(settings: Settings) -> float:
    """Connect this process to Ray; return the number of GPUs of the cluster."""
    # Ray adds the working directory to the import path of its workers, where files of the user
    # would shadow libraries.
    os.chdir(Path(bench.__file__).parents[1])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    local: dict[str, Any] = {}
    if not settings.address:
        # Ray would otherwise store a token in the home directory.
        os.environ["RAY_AUTH_TOKEN"] = settings.name
        local = {
            "num_cpus": settings.cpus,
            "object_store_memory": OBJECT_STORE,
            "include_dashboard": False,
            "_temp_dir": settings.folder,
        }
    import ray

    ray.init(settings.address or "local", log_to_driver=False, logging_level="ERROR", **local)
    # Replaces the handler that Ray has set.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return float(ray.cluster_resources().get("GPU", 0))


class RayDriver:
    """Runs units as tasks of Ray.

    It submits as many tasks as the cluster can run in parallel, and keeps the other units.

    Parameters
    ----------
    pipe : Connection
        The connection to the command.
    settings : Settings
        The settings.
    """

    def __init__(self, pipe: Connection, settings: Settings) -> None:
        import ray

        self._pipe = pipe
        self._lock = threading.Lock()
        self._settings = settings
        # Failed attempts are stored by the command, which also decides about others.
        self._run = ray.remote(max_retries=0)(run_unit)
        self._look = ray.remote(max_retries=0, num_cpus=0)(look)
        self._write = ray.remote(max_retries=0, num_cpus=0)(write_part)
        self._queues: dict[Needs, deque[RayUnit]] = defaultdict(deque)
        self._jobs: dict[Any, _Job] = {}
        """Units that were submitted to Ray, by the reference to their result."""
        self._nodes: list[dict[str, Any]] = []
        self._looked: float = float("-inf")
        self._data: dict[str, Data] = {}
        """Files that units read, by their path."""
        self._plugins: set[str] = set()
        self._wanted: set[str] = set()
        """Paths that units need."""
        self._asked: dict[str, set[str]] = defaultdict(set)
        """Paths that nodes were asked for, by the id of the node."""
        self._looks: dict[Any, tuple[dict[str, Any], float]] = {}
        """Nodes that have not answered, and when they were asked, by the reference."""
        self._missing: dict[Data, list[dict[str, Any]]] = defaultdict(list)
        """Nodes without a file."""
        self._copier = ThreadPoolExecutor(1)
        self._copies: list[Future[None]] = []
        self._without_node: set[Needs] = set()

    def send(self, *message: Any) -> None:
        """Send a message to the command, unless it has ended."""
        with self._lock, suppress(OSError):
            self._pipe.send(message)

    def run(self) -> None:
        """Run units until the command asks for the end.

        Raises
        ------
        Stopped, EOFError
            If the command asks for the end or has ended.
        UserError
            If units cannot run on the cluster.
        """
        while True:
            self._receive()
            if time.monotonic() - self._looked > SLOW_TICK:
                self._looked = time.monotonic()
                self._look_at_nodes()
                self._report_progress()
            self._start()
            self._collect()

    def stop(self) -> None:
        """Stop all units, wait until their processes have ended, and disconnect from Ray."""
        import ray

        for job in self._jobs.values():
            ray.cancel(job.ref)
        for ended in self._wait_for([*self._jobs]):
            self.send("ended", *ended)
        for ref in self._jobs:
            ray.cancel(ref, force=True)
        for ended in self._wait_for([*self._jobs]):
            self.send("ended", *ended)
        ray.shutdown()

    # --------------------------------------------------------------- messages

    def _receive(self) -> None:
        """Act on the messages of the command."""
        while self._pipe.poll(0 if self._jobs or self._looks else TICK):
            kind, *content = self._pipe.recv()
            if kind == "stop":
                raise Stopped
            if kind == "cancel":
                self._cancel()
            if kind == "submit":
                self._take(content[0])

    def _take(self, unit: RayUnit) -> None:
        self._queues[unit.needs].append(unit)
        wanted = {str(Path(unit.folder).parent), *unit.files, *unit.plugins}
        if wanted <= self._wanted:
            return
        self._wanted |= wanted
        self._plugins.update(unit.plugins)
        for path in set(unit.files) - self._data.keys():
            with suppress(OSError):
                found = Path(path).stat()
                digest = hashlib.sha256(repr((path, found.st_size, found.st_mtime_ns)).encode())
                self._data[path] = Data(path, found.st_size, digest.hexdigest()[:16])
        # Nodes are asked before the unit is started.
        self._looked = float("-inf")

    def _cancel(self) -> None:
        """Cancel the units that have not started."""
        import ray

        cancelled = [unit.key for queue in self._queues.values() for unit in queue]
        self._queues.clear()
        waiting = [ref for ref, job in self._jobs.items() if not (job.folder / PROGRESS).exists()]
        for ref in waiting:
            ray.cancel(ref)
        for key, ended in self._wait_for(waiting):
            if ended.exit_code == -signal.SIGKILL:
                cancelled.append(key)
            else:
                self.send("ended", key, ended)
        self.send("cancelled", cancelled)

    def _report_progress(self) -> None:
        for job in self._jobs.values():
            progress = read_json(job.folder / PROGRESS)
            if progress not in (None, job.progress):
                job.progress = progress
                self.send("progress", job.unit.key, progress["words"], progress["share"])

    # ------------------------------------------------------------------ units

    def _start(self) -> None:
        """Submit as many units as can run."""
        if self._looks:
            # Nodes that have not answered may not see the directories.
            return
        for copy in [copy for copy in self._copies if copy.done()]:
            self._copies.remove(copy)
            copy.result()
        limit = self._settings.workers or math.inf
        for needs, queue in self._queues.items():
            slots = sum(needs.fit(node["Resources"]) for node in self._nodes)
            if queue and self._nodes and not slots:
                self._say_without_node(needs)
            # A pending task lets a cluster that can grow do so.
            slots = max(slots, 1)
            running = sum(job.unit.needs == needs for job in self._jobs.values())
            while queue and running < slots and len(self._jobs) < limit:
                self._submit(queue.popleft())
                running += 1

    def _submit(self, unit: RayUnit) -> None:
        (Path(unit.folder) / PROGRESS).unlink(missing_ok=True)
        owner = Owner.of(unit.folder, self._settings.name)
        data = [self._data[path] for path in unit.files if path in self._data]
        shared = data if self._settings.address else []
        ref = self._run.options(name=unit.key, **unit.needs.options()).remote(
            unit.text, shared, owner, self._settings.preload
        )
        self._jobs[ref] = _Job(unit, ref)

    def _say_without_node(self, needs: Needs) -> None:
        if not self._settings.address:
            raise UserError(
                f"This machine does not have the resources {needs}; change --ray or [ray] in "
                "bench.toml."
            )
        if needs not in self._without_node:
            self._without_node.add(needs)
            self.send("say", f"No node of the Ray cluster has {needs}; waiting for one.")

    def _collect(self) -> None:
        """Wait for a moment, and report units that have ended and answers of nodes."""
        import ray

        self._looks = {
            ref: (node, asked)
            for ref, (node, asked) in self._looks.items()
            if time.monotonic() - asked < LOOK_SECONDS
        }
        refs = [*self._jobs, *self._looks]
        ready, _ = ray.wait(refs, timeout=TICK) if refs else ([], [])
        for ref in ready:
            if ref in self._looks:
                node, _ = self._looks.pop(ref)
                self._answered(node, ref)
            else:
                job = self._jobs.pop(ref)
                self.send("ended", job.unit.key, _end_of(job))

    def _wait_for(self, refs: Sequence[Any]) -> list[tuple[str, WorkerExit]]:
        """Wait some seconds for units to end; return their keys and how they ended."""
        import ray

        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=END_SECONDS) if refs else ([], [])
        jobs = [self._jobs.pop(ref) for ref in ready]
        return [(job.unit.key, _end_of(job)) for job in jobs]

    # ------------------------------------------------------------------ nodes

    def _look_at_nodes(self) -> None:
        """Ask new nodes, and all nodes about new files, what they see."""
        import ray

        self._nodes = [node for node in ray.nodes() if node["Alive"]]
        units = [queue[0] for queue in self._queues.values() if queue]
        if not self._settings.address or not units:
            return
        owner = Owner.of(units[0].folder, self._settings.name)
        for node in self._nodes:
            unknown = self._wanted - self._asked[node["NodeID"]]
            if unknown and any(needs.fit(node["Resources"]) for needs in self._queues):
                self._asked[node["NodeID"]] |= unknown
                data = [self._data[path] for path in unknown if path in self._data]
                plugins = sorted(unknown & self._plugins)
                ref = self._look.options(scheduling_strategy=_only(node)).remote(
                    data, plugins, owner
                )
                self._looks[ref] = (node, time.monotonic())

    def _answered(self, node: dict[str, Any], ref: Any) -> None:
        """Take note of the files that a node does not see, and start copying them."""
        import ray

        try:
            for data in ray.get(ref):
                self._missing[data].append(node)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise UserError(
                f"bench does not run on the Ray node {node['NodeManagerHostname']} "
                f"({_last_line(error)}). Install the same versions of slicebench and Ray on all "
                "nodes."
            ) from None
        except ray.exceptions.RayError:
            # The node has been lost.
            return
        if not self._looks:
            for data, nodes in self._missing.items():
                self._copies.append(self._copier.submit(self._copy, data, nodes))
            self._missing.clear()

    def _copy(self, data: Data, nodes: list[dict[str, Any]]) -> None:
        """Copy a file to nodes that do not see it; their units wait for it."""
        import ray

        names = ", ".join(node["NodeManagerHostname"] for node in nodes)
        self.send("say", f"Copying {data.path} ({data.size / 1e9:.2g} GB) to {names} ...")
        with open(data.path, "rb") as stream:
            offset = 0
            while content := stream.read(PART):
                part = ray.put(content)
                refs = [
                    self._write.options(scheduling_strategy=_only(node)).remote(
                        data, f"{self._settings.name}-{node['NodeID']}", offset, part
                    )
                    for node in nodes
                ]
                offset += len(content)
                for ref, node in zip(refs, list(nodes), strict=True):
                    try:
                        ray.get(ref)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from None
                    except ray.exceptions.RayError:
                        nodes.remove(node)


def _only(node: Mapping[str, Any]) -> Any:
    """Return a scheduling strategy for tasks of one node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _end_of(job: _Job) -> WorkerExit:
    """Return how a unit ended, of which Ray has the result or the reason why there is none.

    Raises
    ------
    UserError
        If this process has lost the connection to Ray, so that no other unit can run either.
    """
    import ray

    lost = {"exit_code": -signal.SIGKILL, "cause": "lost"}
    try:
        ended: WorkerExit = ray.get(job.ref)
        return ended
    except ray.exceptions.TaskCancelledError:
        found: dict[str, Any] = {"exit_code": -signal.SIGKILL}
    except ray.exceptions.OutOfMemoryError:
        reason = "Ray stopped it because its node ran out of memory; request more with --ray memory"
        found = {"exit_code": -signal.SIGKILL, "reason": reason, "cause": "memory"}
    except ray.exceptions.NodeDiedError:
        found = {**lost, "reason": "its Ray node was lost"}
    except ray.exceptions.LocalRayletDiedError:
        raise UserError(
            "The connection to Ray was lost, because its process on this machine has ended. Run "
            "the same command again to resume."
        ) from None
    except ray.exceptions.RayTaskError as error:
        found = {"exit_code": 1, "reason": f"it could not run on its Ray node: {_last_line(error)}"}
    except ray.exceptions.RayError as error:
        reason = f"its Ray worker was lost ({type(error).__name__})"
        found = {**lost, "reason": reason}
    return WorkerExit(latest_attempt(job.folder), job.submitted, datetime.now(UTC), **found)


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2].strip()
