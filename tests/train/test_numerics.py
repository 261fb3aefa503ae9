"""Numerical settings of a process."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from bench.train.numerics import configure
if sys.argv[1] == "configured":
    configure(torch.device("cpu"), deterministic=False)
touch = lambda: [torch.ones(16_000_000) for _ in range(3)]
for _ in range(4):
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * 3 * 16_000_000 * 4 // 4096
"""That ten rounds touch, each tensor larger than what glibc ever keeps of itself (32 MiB)."""


def faults(how: str, **variables: str) -> int:
    """Count the memory pages that the system provides to a new process."""
    words = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, **variables}
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a switch of glibc")
@pytest.mark.slow
def test_memory_of_freed_tensors_is_used_again() -> None:
    if faults("as it is") < PAGES / 2:
        pytest.skip("huge pages or another allocator: nothing to see on this machine")
    assert faults("configured") < PAGES / 4
    assert faults("configured", MALLOC_MMAP_MAX_="65536") > PAGES / 2
