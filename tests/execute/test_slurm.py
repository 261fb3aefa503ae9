"""`bench run --executor slurm` on a real cluster of one node."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import pytest

from bench.execute.base import WorkerExit
from bench.execute.remote import write_json
from bench.execute.slurm import SlurmExecutor
from bench.execute.slurm_job import ENDED, exit_to_plain
from bench.execute.slurm_queue import minutes_of, normalised, without_gpus
from bench.execute.unit import OUTCOME
from bench.store import schema
from bench.store.store import Store
from registry.errors import UserError
from tests.cli.readme import blocks, run_block
from tests.cli.running import ran
from tests.execute.slurm_cluster import NoCluster, cluster
from tests.execute.slurm_runs import GRID, LONG, SLURM, ask, jobs, run, wait_for
from tests.execute.test_kill import finish, results


def test_a_suite_gives_the_same_numbers_as_on_this_machine(tmp_path, on_cluster, grid_results):
    before = set(jobs(on_cluster, "all"))
    out = finish(run(tmp_path, on_cluster, *GRID, *SLURM, "--slurm", "gres=gpu:1"))
    assert "4 of 4 trials done" in out, out
    assert "which checks access to" in out
    assert results(tmp_path / "x.db") == grid_results
    # Two studies, then their trials, each as soon as its study is done.
    found = set(jobs(on_cluster, "all")) - before
    assert len(found) == 6
    words = ("squeue", "--noheader", "--array", "--states=all", "--format=%i %b")
    lines = [line.split() for line in ask(on_cluster, *words).splitlines()]
    assert sorted(gres for job, gres in lines if job in found) == ["N/A"] * 3 + ["gres:gpu:1"] * 3
    assert not (tmp_path / "x.db.work").exists()
    again = finish(run(tmp_path, on_cluster, *GRID, *SLURM))
    assert "Nothing to run" in again


def test_more_units_than_an_array_may_have_are_several_arrays(tmp_path, on_cluster):
    before = set(jobs(on_cluster, "all"))
    words = ("run", "--data", "synthetic-ad-4mm", "--model", "prior", "--train-sizes", "16")
    more = ("--seeds", "7", "--trials", "0", "--precision", "fp32", *SLURM)
    assert "7 of 7 trials done" in finish(run(tmp_path, on_cluster, *words, *more))
    found = sorted(job.partition("_")[2] for job in set(jobs(on_cluster, "all")) - before)
    assert found == ["0", "0", "1", "1", "2", "3", "4"]


def test_jobs_survive_the_driver_and_the_next_one_waits_for_them(
    tmp_path, on_cluster, grid_results
):
    before = set(jobs(on_cluster, "all"))
    process = run(tmp_path, on_cluster, *GRID, *SLURM)
    wait_for(lambda: len(jobs(on_cluster)) == 2)
    process.kill()
    process.wait()
    assert len(jobs(on_cluster)) == 2
    out = finish(run(tmp_path, on_cluster, *GRID, *SLURM))
    assert "4 of 4 trials done" in out
    assert results(tmp_path / "x.db") == grid_results
    assert len(set(jobs(on_cluster, "all")) - before) == 6


def test_a_job_at_its_time_limit_is_requeued_and_resumes(tmp_path, on_cluster, long_results):
    process = run(tmp_path, on_cluster, *LONG, *SLURM)
    wait_for(lambda: list((tmp_path / "x.db.work").glob("*/checkpoint.pt")))
    (job,) = jobs(on_cluster)
    ask(on_cluster, "scancel", "--signal=USR2", job)
    wait_for(lambda: "Reason=BeginTime" in ask(on_cluster, "scontrol", "show", "job", job))
    # What the job writes if Slurm kills its worker first.
    (folder,) = (file.parent for file in (tmp_path / "x.db.work").glob("*/checkpoint.pt"))
    now = datetime.now(UTC)
    write_json(folder / ENDED, exit_to_plain(WorkerExit("a" * 32, now, now, -signal.SIGKILL)))
    # Slurm would start it two minutes later. In the second of its end, it would be refused.
    ask(on_cluster, "scontrol", "update", f"JobId={job}", "StartTime=now+2")
    out = finish(process)
    assert "1 of 1 trials done" in out, out
    assert results(tmp_path / "x.db") == long_results
    assert "Restarts=1" in ask(on_cluster, "scontrol", "show", "job", job)


def test_a_job_cancelled_by_hand_is_a_failed_attempt(tmp_path, on_cluster):
    process = run(tmp_path, on_cluster, *LONG, *SLURM)
    wait_for(lambda: list((tmp_path / "x.db.work").glob("*/checkpoint.pt")))
    (job,) = jobs(on_cluster)
    ask(on_cluster, "scancel", job)
    out = finish(process)
    assert process.returncode == 1
    assert f"the Slurm job {job} was cancelled" in out
    store = Store.for_reading(tmp_path / "x.db")
    attempts = store.frame(schema.attempts)
    store.close()
    assert list(attempts["state"]) == ["killed"]


def test_ctrl_c_cancels_the_queued_jobs_and_twice_all(tmp_path, on_cluster):
    words = [*LONG, *SLURM, "--workers", "1"]
    words[words.index("--seeds") + 1] = "3"
    process = run(tmp_path, on_cluster, *words)
    wait_for(lambda: list((tmp_path / "x.db.work").glob("*/checkpoint.pt")))
    os.killpg(process.pid, signal.SIGINT)
    wait_for(lambda: len(jobs(on_cluster)) == 1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    out = finish(process)
    assert process.returncode == 1
    assert "Queued jobs are cancelled. Waiting for running trials" in out
    assert "Stopped on request" in out
    assert not jobs(on_cluster, "PENDING,RUNNING")


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, folder, environment, *words):
        self.shown = ""
        self._process, self._terminal = pty.fork()
        if not self._process:
            os.chdir(folder)
            command = [sys.executable, "-m", "bench", *words, "--db", "x.db"]
            os.execve(command[0], command, {**environment, "TERM": "xterm"})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        # At the end of the process, reading fails.
        with suppress(OSError):
            while True:
                self.shown += os.read(self._terminal, 4096).decode(errors="replace")

    def type(self, text):
        os.write(self._terminal, text.encode())

    def exit_code(self):
        code = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        self._reader.join()
        return code


@pytest.mark.parametrize("answer", ["n\n", "y\n", "\x03"])
def test_ctrl_c_on_a_terminal_asks_whether_to_cancel_the_jobs(
    tmp_path, on_cluster, long_results, answer
):
    terminal = Terminal(tmp_path, on_cluster, *LONG, *SLURM)
    wait_for(lambda: list((tmp_path / "x.db.work").glob("*/checkpoint.pt")))
    terminal.type("\x03")
    wait_for(lambda: "Cancel the jobs too? [y/N]" in terminal.shown)
    terminal.type(answer)
    assert terminal.exit_code() == 1, terminal.shown
    shown = terminal.shown
    assert "Stopped on request" in shown
    assert len(jobs(on_cluster, "RUNNING")) == (answer == "n\n")
    if answer == "n\n":
        assert "The jobs continue" in shown
        out = finish(run(tmp_path, on_cluster, *LONG, *SLURM))
        assert "1 of 1 trials done" in out, out
        assert results(tmp_path / "x.db") == long_results
    assert not list((tmp_path / "x.db.work").glob("slurm/*"))


def test_a_dry_run_prints_the_batch_scripts(bench, slurm, tmp_path):
    words = (*GRID, *SLURM, "--workers", "3", "--db", "x.db", "--dry-run")
    done = ran(bench(*words, "--slurm", "gres=gpu:1", **slurm))
    networks, estimators = re.split(r"Batch script of the first 1 unit of \w+:\n\n", done)[1:]
    for script in (networks, estimators):
        assert script.startswith("#!/bin/bash\n")
        assert "#SBATCH --time=240\n" in script
        assert f"{tmp_path}/x.db.work/slurm/bench-..." in script
    assert "#SBATCH --gres=gpu:1\n" in networks
    assert "gpu" not in estimators
    more = ran(bench(*words, "--trials", "0", **slurm))
    assert "#SBATCH --array=0-1%2\n" in more
    assert not (tmp_path / "x.db.work").exists()
    assert not jobs({**os.environ, **slurm})


@contextmanager
def own_cluster(monkeypatch, more, files):
    """Let executors use a cluster with other settings."""
    pytest.importorskip("submitit")
    try:
        with cluster(more, files) as found:
            for name, value in found.environment.items():
                monkeypatch.setenv(name, value)
            yield
    except NoCluster as error:
        pytest.skip(str(error))


@contextmanager
def executor_for(tmp_path, say=print, **options):
    work, cache = tmp_path / "work", tmp_path / "cache"
    more = {"options": options, "work": work, "cache": cache, "say": say}
    executor = SlurmExecutor(0, gpus=0, preload=[], on_progress=lambda *_: None, **more)
    try:
        yield executor
    finally:
        executor.shutdown()


NO_LARGE_ARRAYS = """
function slurm_job_submit(job, partitions, user)
    local last = string.match(job.array_inx or "", "-(%d+)")
    -- The number is that of the error for all limits of accounting.
    if last and tonumber(last) > 1 then return 2050 end
    return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, user)
    return slurm.SUCCESS
end
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "files"),
    [
        ("MaxJobCount=6\nMinJobAge=2\n", {}),
        ("JobSubmitPlugins=lua\n", {"job_submit.lua": NO_LARGE_ARRAYS}),
    ],
)
def test_units_that_slurm_does_not_accept_at_once_are_submitted_later(
    tmp_path, monkeypatch, make, more, files
):
    said = []
    with own_cluster(monkeypatch, more, files), executor_for(tmp_path, said.append) as executor:
        futures = [executor.submit(make("prior", f"{number:016d}")) for number in range(7)]
        assert [future.result(timeout=300).exit_code for future in futures] == [0] * 7
    assert len(list(tmp_path.glob(f"work/*/{OUTCOME}"))) == 7
    limited = [words for words in said if "accepts no more jobs at the moment" in words]
    assert len(limited) == bool(files)


@pytest.mark.slow
def test_a_job_beyond_its_memory_is_said_to_be_so(tmp_path, monkeypatch, make):
    more = "SelectTypeParameters=CR_CPU_Memory\nJobAcctGatherType=jobacct_gather/linux\n"
    more += "JobAcctGatherFrequency=1\nJobAcctGatherParams=OverMemoryKill\n"
    with own_cluster(monkeypatch, more, {}), executor_for(tmp_path, mem="700M") as executor:
        ended = executor.submit(make("hungry", "a" * 16)).result(timeout=120)
    assert ended.cause == "memory"
    assert "ran out of memory; request more with --slurm mem=" in ended.reason


@pytest.mark.slow
def test_a_job_that_is_held_is_said_to_be_so(tmp_path, slurm_cluster, slurm, make):
    environment, said = {**os.environ, **slurm}, []
    node = ("scontrol", "update", f"NodeName={slurm_cluster.host}")
    with executor_for(tmp_path, said.append) as executor:
        ask(environment, *node, "State=DRAIN", "Reason=test")
        future = executor.submit(make("prior", "a" * 16))
        (job,) = wait_for(lambda: jobs(environment, "PENDING"))
        ask(environment, "scontrol", "hold", job)
        wait_for(lambda: any(f"The Slurm job {job} is held (JobHeld" in words for words in said))
        ask(environment, "scontrol", "release", job)
        ask(environment, *node, "State=RESUME")
        assert future.result(timeout=300).exit_code == 0


def refused(bench, *words, **environment):
    done = bench(*GRID, *SLURM, *words, "--db", "x.db", **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    message = done.stderr.strip()
    assert message.startswith("Error: ")
    assert len(message.splitlines()) == 1, message
    return message


def test_what_slurm_does_not_accept_is_one_sentence(bench, slurm):
    message = refused(bench, "--slurm", "partition=nosuch", **slurm)
    assert "Slurm has no partition 'nosuch'" in message
    assert "one of main, gpu" in message
    message = refused(bench, "--slurm", "constraint=nosuch", **slurm)
    assert "Slurm refused the job: Batch job submission failed: Invalid feature" in message
    assert "--slurm time must be minutes" in refused(bench, "--slurm", "time=long", **slurm)
    assert "--slurm array is set by bench" in refused(bench, "--slurm", "array=1-3", **slurm)


def test_slurm_asked_for_and_absent_is_one_sentence(bench, tmp_path):
    message = refused(bench, PATH=str(tmp_path))
    assert "requires Slurm, but there is no command sbatch" in message


def test_the_precision_must_be_given(bench):
    words = [word for word in GRID if word not in ("--precision", "fp32")]
    for more in ((), ("--precision", "auto")):
        done = bench(*words, *SLURM, *more)
        assert done.returncode == 2
        assert "requires --precision fp32 or --precision bf16" in done.stderr
    done = bench(*GRID, "--slurm", "partition=gpu")
    assert "--slurm requires --executor slurm" in done.stderr


def test_a_directory_that_nodes_do_not_see_is_found_before_the_grid_is_submitted(
    tmp_path, on_cluster
):
    """The command runs with a file system mounted that the daemons do not see."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    folder = shlex.quote(str(hidden))
    mount = f"mount -t tmpfs tmpfs {folder} && cd {folder} && exec "
    command = shlex.join([sys.executable, "-m", "bench", *GRID, *SLURM])
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("needs mount namespaces")
    before = set(jobs(on_cluster, "all"))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount + command],
        env=on_cluster,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"could not write to {hidden}" in done.stderr
    assert set(jobs(on_cluster, "all")) == before


def test_the_readme_works_as_written(tmp_path, on_cluster):
    (block,) = blocks("Slurm in ten lines")
    assert len(block.splitlines()) <= 10
    assert "trials done" in ran(run_block(block, tmp_path, on_cluster))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        *(("90", 90), ("1:30", 2), ("1:30:00", 90), ("2-0", 2880), ("1-2:3", 1563)),
        *(("1-0:0:30", 1441), ("0:30", 1)),
    ],
)
def test_times_are_read_as_by_sbatch(text, minutes):
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "long", "1:2:3:4", "-5"])
def test_other_times_are_refused(text):
    with pytest.raises(UserError, match="--slurm time"):
        minutes_of(text)


def test_options_may_be_spelled_as_in_toml_or_as_flags():
    given = {"cpus_per_task": 4, "exclusive": "true", "requeue": False, "--gres": "gpu:1"}
    assert normalised(given) == {
        **{"cpus-per-task": 4, "exclusive": True, "requeue": False, "gres": "gpu:1"}
    }


def test_estimators_request_no_gpu():
    given = {
        **{"partition": "gpu", "gres": "gpu:a100:1,tmpfs:10G", "gpus-per-node": 1},
        **{"mem-per-gpu": "40G", "tres-per-task": "cpu:2,gres/gpu:1", "gpu-bind": "closest"},
    }
    assert without_gpus(given) == {
        **{"partition": "gpu", "gres": "tmpfs:10G", "tres-per-task": "cpu:2"}
    }
    assert without_gpus({"gres": "gpu", "mem": "4G"}) == {"mem": "4G"}
