"""Available and needed memory, from files of the system and from control groups of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.memory import (
    Needs,
    available_memory,
    killed_for_memory,
    parse_memory,
    workers_that_fit,
)
from registry.errors import UserError
from tests.control_group import control_group
from tests.store.conftest import make_arm

GB = 2**30
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.fixture
def system(tmp_path):
    """Return a function that writes files of /proc and /sys and returns their root."""

    def write(files: dict[str, str]) -> Path:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        return tmp_path

    return write


MACHINE = {"proc/meminfo": "MemTotal: 33554432 kB\nMemAvailable:   16777216 kB\n"}
IN_V2 = {**MACHINE, "proc/self/cgroup": "0::/job/step\n"}
IN_V1 = {**MACHINE, "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n"}


def version_2(group: str, limit: str, used: int, files: int = 0, high: str = "max"):
    stat = f"anon 1\nfile {files + 5}\ninactive_file {files}\nactive_file 0\n"
    return {
        f"{V2}/{group}/memory.max": f"{limit}\n",
        f"{V2}/{group}/memory.high": f"{high}\n",
        f"{V2}/{group}/memory.current": f"{used}\n",
        f"{V2}/{group}/memory.stat": stat,
    }


def version_1(limit: int, used: int, files: int = 0):
    stat = f"inactive_file 7\ntotal_inactive_file {files}\ntotal_active_file 0\n"
    return {
        f"{V1}/docker/abc/memory.limit_in_bytes": f"{limit}\n",
        f"{V1}/docker/abc/memory.usage_in_bytes": f"{used}\n",
        f"{V1}/docker/abc/memory.stat": stat,
    }


@pytest.mark.parametrize(
    ("files", "gigabytes"),
    [
        ({}, None),
        (MACHINE, 16),
        ({**IN_V2, **version_2("job/step", str(8 * GB), 3 * GB)}, 5),
        ({**IN_V2, **version_2("job/step", str(8 * GB), 3 * GB, files=2 * GB)}, 7),
        ({**IN_V2, **version_2("job/step", str(8 * GB), 3 * GB, high=str(4 * GB))}, 1),
        ({**IN_V2, **version_2("job/step", "max", 3 * GB)}, 16),
        ({**IN_V2, **version_2("job/step", str(64 * GB), 0)}, 16),
        ({**IN_V2, **version_2("job/step", str(2 * GB), 3 * GB)}, 0),
        (
            {
                **IN_V2,
                **version_2("job/step", str(8 * GB), GB),
                **version_2("job", str(6 * GB), 2 * GB),
            },
            4,
        ),
        ({**IN_V1, **version_1(8 * GB, 3 * GB)}, 5),
        ({**IN_V1, **version_1(8 * GB, 3 * GB, files=GB)}, 6),
        ({**IN_V1, **version_1(2**63 - 4096, 3 * GB)}, 16),
    ],
)
def test_the_smallest_limit_counts_without_pages_of_files(system, files, gigabytes):
    found = available_memory(system(files))
    assert found == (None if gigabytes is None else 1024 * gigabytes)


@pytest.mark.parametrize(
    ("files", "killed"),
    [
        ({}, 0),
        ({"proc/vmstat": "nr_free_pages 9\noom_kill 3\n"}, 3),
        ({**IN_V2, f"{V2}/job/step/memory.events": "oom 7\noom_kill 2\n"}, 2),
        ({**IN_V1, f"{V1}/docker/abc/memory.oom_control": "under_oom 0\noom_kill 4\n"}, 4),
    ],
)
def test_processes_killed_for_memory_are_counted(system, files, killed):
    assert killed_for_memory(system(files)) == killed


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_this_machine_has_memory():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    assert 0 < available_memory() <= total


def test_the_limit_of_a_control_group_of_this_machine_counts():
    code = "from bench.memory import available_memory; print(available_memory())"
    with control_group(megabytes=300) as join:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=join
        )
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 300


@pytest.mark.parametrize(
    ("text", "megabytes"), [("8G", 8192), ("500M", 500), ("1.5 GiB", 1536), ("2t", 2 * 2**20)]
)
def test_amounts_are_read(text, megabytes):
    assert parse_memory(text) == megabytes


@pytest.mark.parametrize("text", ["", "0G", "much", "-1G", "8X", "G"])
def test_other_amounts_are_refused(text):
    with pytest.raises(UserError, match="--memory must be an amount such as 8G"):
        parse_memory(text)


def test_workers_that_do_not_fit_are_not_started():
    assert workers_that_fit(4, 1024, 8 * 1024) == (4, "")
    assert workers_that_fit(1, 9 * 1024, 8 * 1024) == (1, "")
    assert workers_that_fit(4, 0, 8 * 1024) == (4, "")
    assert workers_that_fit(4, 3 * 1024, 8 * 1024) == (
        2,
        "4 workers need about 12 GB of memory, but 8 GB are available, so 2 units run at a time.",
    )
    assert workers_that_fit(2, 9 * 1024, 8 * 1024)[1].endswith("so 1 unit runs at a time.")


def test_the_need_of_an_arm_is_its_largest_or_that_of_similar_ones():
    network, other = make_arm("a"), make_arm("b")
    estimator = type(network)(**{**network.__dict__, "precision": None})
    needs = Needs([(network, 500.0), (network, 900.0), (network, 700.0)])
    assert needs.of(network) == 900
    assert needs.of(other) == 900
    assert needs.of(estimator) is None
    needs.learn(other, 2000.0)
    assert (needs.of(network), needs.of(other)) == (900, 2000)
