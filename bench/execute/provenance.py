"""Where numbers come from: versions, machine, code; and where results must not go."""

from __future__ import annotations

import platform
import socket
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from registry.errors import UserError


def provenance(argv: Sequence[str]) -> dict[str, Any]:
    """Describe versions, machine and code of this command, for the record of every trial."""
    return {
        "slicebench": version("slicebench"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "optuna": version("optuna"),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "git": git_revision(Path(__file__).parent),
        "command": " ".join(argv),
    }


def git_revision(folder: Path) -> str | None:
    """Return the revision of a checkout, with ``+dirty`` when files differ; None outside of git."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    if revision is None:
        return None
    return revision + ("+dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def refuse_tracked_file(file: Path) -> None:
    """Refuse to write the results of real people into a file that git publishes.

    Raises
    ------
    UserError
        When `file` is tracked by git.
    """
    if not file.exists():
        return
    tracked = subprocess.run(
        ["git", "ls-files", "--error-unmatch", file.name],
        cwd=file.absolute().parent,
        capture_output=True,
    )
    if tracked.returncode == 0:
        raise UserError(
            f"{file} is tracked by git and results on real people must not be published by "
            "accident; name another file with --db."
        )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
