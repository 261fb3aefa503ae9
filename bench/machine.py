"""What the processor says of itself."""

from __future__ import annotations

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux describes its processors."""


def cpu_name() -> str:
    """Return the processor's name, empty where the system does not tell it."""
    return _cpu_info("model name") or platform.processor()


def cpu_flags() -> list[str]:
    """Return the instructions that the processor knows, none where the system does not tell."""
    return _cpu_info("flags").split()


def _cpu_info(name: str) -> str:
    """Return what the first processor says under a name."""
    try:
        with open(CPU_INFO, encoding="utf-8", errors="replace") as lines:
            line = next((line for line in lines if line.partition(":")[0].strip() == name), "")
    except OSError:
        return ""
    return line.partition(":")[2].strip()
