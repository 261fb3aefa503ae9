"""Processes of this machine, as tests of executors see them."""

import os
from pathlib import Path


def parents():
    """Return the parent of each process that has not ended."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                found[int(entry.name)] = int(fields[1])
    return found


def log_of(process):
    """Return the file of a process's standard output, which is the log of a unit's attempt."""
    try:
        return os.readlink(f"/proc/{process}/fd/1")
    except OSError:
        return ""


def workers_in(folder):
    """Return the processes that run units in a directory, which is that of a unit or of many."""
    logs = {process: log_of(process) for process in parents()}
    return sorted(
        process
        for process, log in logs.items()
        if log.startswith(f"{folder}/") and "/attempt-" in log
    )
