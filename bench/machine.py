"""Name and instruction sets of the processor."""

from __future__ import annotations

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""The file in which Linux describes the processors."""


def cpu_name() -> str:
    """Return the name of the processor, empty if it is unknown."""
    return _cpu_info("model name") or platform.processor()


def cpu_flags() -> list[str]:
    """Return the instruction sets of the processor, an empty list if they are unknown."""
    return _cpu_info("flags").split()


def _cpu_info(name: str) -> str:
    """Return an entry of the first processor in `CPU_INFO`."""
    try:
        with open(CPU_INFO, encoding="utf-8", errors="replace") as lines:
            line = next((line for line in lines if line.partition(":")[0].strip() == name), "")
    except OSError:
        return ""
    return line.partition(":")[2].strip()
