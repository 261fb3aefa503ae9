"""A Ray cluster of several nodes on this machine, with its own ports and directory."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

STORE = 80 * 1024**2
"""Bytes of the object store of each node, close to the least that Ray accepts."""


class Nodes:
    """The cluster: a head without CPUs, to which commands connect, and two nodes."""

    def __init__(self, folder):
        from ray.cluster_utils import Cluster

        self.folder = folder
        # Copies of data are stored among temporary files.
        with patch.dict(os.environ, {"RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": str(folder)}):
            self._cluster = Cluster()
            self._cluster.add_node(
                num_cpus=0,
                object_store_memory=STORE,
                include_dashboard=False,
                temp_dir=str(folder / "ray"),
            )
            self._nodes = [self._add(), self._add()]

    @property
    def address(self):
        return self._cluster.address

    @property
    def copies(self):
        """The files that were copied to nodes."""
        return list(self.folder.glob("slicebench-*/*"))

    def _add(self):
        with patch.dict(os.environ, {"TMPDIR": str(self.folder)}):
            return self._cluster.add_node(num_cpus=2, object_store_memory=STORE)

    def replace(self, process):
        """Kill the node on which a process runs, and add another one."""
        ancestors = set(ancestors_of(process))
        (node,) = [each for each in self._nodes if raylet_of(each) in ancestors]
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes = [each for each in self._nodes if each is not node] + [self._add()]

    @contextmanager
    def more(self, **resources):
        """Add a node with some resources for a while."""
        with patch.dict(os.environ, {"TMPDIR": str(self.folder)}):
            node = self._cluster.add_node(object_store_memory=STORE, **resources)
        try:
            yield
        finally:
            self._cluster.remove_node(node, allow_graceful=False)

    def close(self):
        self._cluster.shutdown()


@contextmanager
def cluster():
    """Start a cluster."""
    # Paths of sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    nodes = None
    try:
        nodes = Nodes(folder)
        yield nodes
    finally:
        if nodes is not None:
            nodes.close()
        shutil.rmtree(folder, ignore_errors=True)


def raylet_of(node):
    return node.all_processes["raylet"][0].process.pid


def ancestors_of(process):
    """Yield the parent of a process, its parent, and so on."""
    while process > 1:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        process = int(fields[1])
        yield process
