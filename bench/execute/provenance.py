"""Where numbers come from: versions, machine, code; and where results must not go."""

from __future__ import annotations

import logging
import os
import platform
import socket
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import cpu_name
from registry.errors import UserError

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).resolve().parents[2]
"""Our source tree, where this code runs from a checkout of it."""

ANY_OWNER = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
"""Options with which git answers about anybody's repository, and runs nothing of theirs."""


def provenance(argv: Sequence[str]) -> dict[str, Any]:
    """Describe versions, machine and code of this command, for the record of every trial.

    ``git`` is the revision of our own checkout, None where this code was installed otherwise;
    ``user_git`` is that of another repository in which the command was given.
    """
    here = Path(".")
    ours, theirs = _top(SOURCE, ANY_OWNER), _top(here)
    checkout = ours == SOURCE and 'name = "slicebench"' in _text(SOURCE / "pyproject.toml")
    return {
        "slicebench": version("slicebench"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "optuna": version("optuna"),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "git": git_revision(SOURCE, ANY_OWNER) if checkout else None,
        "user_git": git_revision(here) if not (checkout and theirs == SOURCE) else None,
        "command": " ".join(argv),
    }


def git_revision(folder: Path, owner: Sequence[str] = ()) -> str | None:
    """Return the revision of a checkout, with ``+dirty`` when files differ; None outside of git.

    `owner` is `ANY_OWNER` where it does not matter whose the repository is.
    """
    revision = _git_output(folder, *owner, "rev-parse", "HEAD")
    if revision is None:
        return None
    changes = _git_output(folder, *owner, "status", "--porcelain", "--untracked-files=no")
    return revision + ("" if changes == "" else "+dirty" if changes else "+unknown")


def refuse_tracked_file(file: Path) -> None:
    """Refuse to write the results of real people into a file that git publishes.

    Raises
    ------
    UserError
        When the file, or the one that it is a link to, is tracked by git, or git cannot say.
    """
    file = file.resolve()
    if not file.parent.is_dir():
        return
    words = ("--literal-pathspecs", "ls-files", "--error-unmatch", "--", file.name)
    done = _git(file.parent, *ANY_OWNER, *words)
    if done is None:
        if any((folder / ".git").exists() for folder in file.parents):
            logger.warning("git could not be asked whether it tracks %s", file)
        return
    if done.returncode == 0:
        raise UserError(
            f"{file} is tracked by git and results on real people must not be published by "
            "accident; name another file with --db."
        )
    if done.returncode != 1 and "not a git repository" not in done.stderr:
        why = done.stderr.strip().partition("\n")[0]
        raise UserError(
            f"Whether git tracks {file} cannot be found out ({why}), and results on real people "
            "must not be published by accident; name a file elsewhere with --db."
        )


def _top(folder: Path, owner: Sequence[str] = ()) -> Path | None:
    """Return the top of the repository that a folder lies in."""
    top = _git_output(folder, *owner, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def _git_output(folder: Path, *words: str) -> str | None:
    """Return what git says, None if it does not know or is not there."""
    done = _git(folder, *words)
    return done.stdout.strip() if done is not None and done.returncode == 0 else None


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str] | None:
    """Run git in a folder; None without git.

    What the environment tells git (in a hook, say) is about another folder; nothing is written.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=20,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""
