"""Numbers of processes and threads, socket directories and import paths."""

import os
import subprocess
import sys

import pytest

from bench.processes import cores, threads_per_unit

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def system(tmp_path):
    """Return a function that writes files of /proc and /sys and returns their root."""

    def write(**files: str):
        for name, content in files.items():
            file = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return tmp_path

    return write


def test_without_control_groups_the_affinity_counts(system):
    assert cores(system()) == HERE


@pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1)])
def test_a_quota_of_a_container_counts(system, quota, expected):
    root = system(proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_dot_max=quota + "\n")
    assert cores(root) == expected


def test_no_quota_is_no_limit(system):
    root = system(proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_dot_max="max 100000\n")
    assert cores(root) == HERE


def test_the_quota_of_an_outer_group_counts(system):
    root = system(
        proc__self__cgroup="0::/slurm/job_7/step_0\n",
        sys__fs__cgroup__slurm__job_7__cpu_dot_max="100000 100000\n",
        sys__fs__cgroup__slurm__job_7__step_0__cpu_dot_max="max 100000\n",
    )
    assert cores(root) == 1


def test_a_quota_of_version_1_counts(system):
    root = system(proc__self__cgroup="5:cpuset:/x\n4:cpu,cpuacct:/docker/abc\n")
    group = root / "sys/fs/cgroup/cpu,cpuacct/docker/abc"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("150000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(root) == 1
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert cores(root) == HERE


def test_threads_are_shared_by_workers_and_bounded_by_the_environment(monkeypatch):
    monkeypatch.setattr("bench.processes.cores", lambda: 16)
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    assert threads_per_unit(1) == 16
    assert threads_per_unit(3) == 5
    assert threads_per_unit(40) == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert threads_per_unit(2) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert threads_per_unit(2) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert threads_per_unit(2) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert threads_per_unit(2) == 4


def test_a_process_held_to_one_core_counts_one():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from bench.processes import cores; print(cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
