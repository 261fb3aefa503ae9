"""A Slurm cluster of one node on this machine, with its own daemons, ports and directory."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

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
MaxArraySize=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


class NoCluster(Exception):
    """Why no cluster can be started here."""


@contextmanager
def cluster():
    """Start a cluster; yields the environment variables for its commands.

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
    daemons = []
    try:
        for name in ("state", "spool"):
            (folder / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        controller, node = _free_ports(2)
        (folder / "slurm.conf").write_text(
            CONFIG.format(folder=folder, host=host, controller=controller, node=node, cpus=CPUS)
        )
        # A file that always exists instead of a GPU.
        (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        munged = (
            *("munged", "--foreground", "--force", f"--socket={folder}/munge.socket"),
            *(f"--key-file={key}", f"--pid-file={folder}/munged.pid"),
            *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
        )
        for words in (munged, ("slurmctld", "-D", "-c"), ("slurmd", "-D")):
            daemons.append(_start(words, folder, environment))
            if words is munged:
                _wait(lambda: (folder / "munge.socket").exists(), daemons, folder)
        _wait(lambda: _is_idle(environment), daemons, folder)
        yield environment
        _end_jobs(environment)
    finally:
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
    with open(folder / f"{words[0]}.out", "wb") as out:
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


def _wait(ready, daemons, folder, seconds=30):
    deadline = time.monotonic() + seconds
    while not ready():
        ended = [daemon for daemon in daemons if daemon.poll() is not None]
        if ended or time.monotonic() > deadline:
            name = (ended or daemons[-1:])[0].args[3]
            logs = [folder / f"{name}.out", folder / f"{name}.log"]
            words = "".join(log.read_text(errors="replace") for log in logs if log.exists())
            raise NoCluster(f"{name} does not start: {words[-500:]}")
        time.sleep(0.2)


def _free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
