"""A Slurm cluster of one node on this machine, with its own daemons, ports and directory."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

PROGRAMS = (
    "setpriv",
    "munged",
    "munge",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
)
CPUS = 4
"""Cores that the node claims to have, so that tests can run jobs in parallel on any machine."""
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000
ReturnToService=2
KillWait=2
MinJobAge=3600
MaxArraySize=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


class NoCluster(Exception):
    """Why no cluster can be started here."""


@dataclass
class Cluster:
    """A running cluster.

    Parameters
    ----------
    folder : pathlib.Path
        Its directory.
    host : str
        The name of its node.
    """

    folder: Path
    host: str
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for its commands."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self, *words: str) -> None:
        """Start a daemon."""
        self.daemons[words[0]] = _start(words, self.folder, self.environment)

    def restart_controller(self, seconds: float) -> None:
        """Kill the controller and start it again some seconds later."""
        old = self.daemons["slurmctld"]
        old.kill()
        old.wait()
        time.sleep(seconds)
        self.start("slurmctld", "-D")
        self.wait(lambda: _ask(self.environment, "sinfo", "--noheader") is not None)

    def wait(self, ready, seconds: float = 30) -> None:
        """Wait until the latest daemon is ready.

        Raises
        ------
        NoCluster
            If it does not become ready, or a daemon has ended.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            ended = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                name = (ended or list(self.daemons))[-1]
                logs = [self.folder / f"{name}.out", self.folder / f"{name}.log"]
                words = "".join(log.read_text(errors="replace") for log in logs if log.exists())
                raise NoCluster(f"{name} does not start: {words[-500:]}")
            time.sleep(0.2)


@contextmanager
def cluster(more: str = "", files: Mapping[str, str] = MappingProxyType({})):
    """Start a cluster, with more lines in its ``slurm.conf``, and with more files next to it.

    Raises
    ------
    NoCluster
        If it does not start.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise NoCluster(f"needs Slurm and MUNGE, but there is no {missing[0]}")
    if os.getuid() != 0:
        raise NoCluster("needs root to start Slurm")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    found = Cluster(folder, socket.gethostname().partition(".")[0])
    try:
        for name in ("state", "spool"):
            (folder / name).mkdir()
        controller, node = _free_ports(2)
        config = CONFIG.format(
            folder=folder, host=found.host, controller=controller, node=node, cpus=CPUS
        )
        (folder / "slurm.conf").write_text(config + more)
        # A file that always exists instead of a GPU.
        (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
        for name, text in files.items():
            (folder / name).write_text(text)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        found.start(
            *("munged", "--foreground", "--force", f"--socket={folder}/munge.socket"),
            *(f"--key-file={key}", f"--pid-file={folder}/munged.pid"),
            *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
        )
        found.wait(lambda: (folder / "munge.socket").exists())
        found.start("slurmctld", "-D", "-c")
        found.start("slurmd", "-D")
        found.wait(lambda: _is_idle(found.environment))
        yield found
        _end_jobs(found.environment)
    finally:
        daemons = list(found.daemons.values())
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(words, folder, environment):
    with open(folder / f"{words[0]}.out", "ab") as out:
        return subprocess.Popen(
            # The daemon ends even if the tests are killed.
            ("setpriv", "--pdeathsig", "TERM", *words),
            env={**os.environ, **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _ask(environment, *words):
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _is_idle(environment):
    return set((_ask(environment, "sinfo", "--noheader", "--format=%T") or "").split()) == {"idle"}


def _end_jobs(environment):
    """Cancel all jobs, whose processes would otherwise survive the daemons."""
    _ask(environment, "scancel", "--user=root")
    deadline = time.monotonic() + 30
    while _ask(environment, "squeue", "--noheader") != "" and time.monotonic() < deadline:
        time.sleep(0.2)


def _free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
