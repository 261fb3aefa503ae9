"""Provenance of results (versions, machine, code), and protection of files tracked by git."""

from __future__ import annotations

import logging
import os
import platform
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bench.machine import cpu_name
from registry.errors import UserError

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).resolve().parents[2]
"""The root of the source tree, if this code runs from a checkout."""

ANY_OWNER = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
"""Options to query a repository of any owner without running its file system monitor."""


@dataclass(frozen=True)
class Provenance:
    """Versions, machine and code revision of a command, stored with each trial."""

    slicebench: str
    python: str
    numpy: str
    optuna: str
    host: str
    system: str
    cpu: str
    git: str | None
    """Revision of slicebench's checkout; None if it was installed otherwise."""
    user_git: str | None
    """Revision of another repository that contains the working directory."""
    command: str


def provenance(argv: Sequence[str]) -> Provenance:
    """Return the provenance of results of this command."""
    here = Path(".")
    ours, theirs = _top(SOURCE, ANY_OWNER), _top(here)
    checkout = ours == SOURCE and 'name = "slicebench"' in _text(SOURCE / "pyproject.toml")
    return Provenance(
        slicebench=version("slicebench"),
        python=platform.python_version(),
        numpy=np.__version__,
        optuna=version("optuna"),
        host=socket.gethostname(),
        system=platform.platform(),
        cpu=cpu_name(),
        git=git_revision(SOURCE, ANY_OWNER) if checkout else None,
        user_git=git_revision(here) if not (checkout and theirs == SOURCE) else None,
        command=" ".join(argv),
    )


def git_revision(folder: Path, owner: Sequence[str] = ()) -> str | None:
    """Return the revision of a checkout, with ``+dirty`` if files differ; None outside of git.

    With ``owner=ANY_OWNER``, repositories of other users are accepted.
    """
    revision = _git_output(folder, *owner, "rev-parse", "HEAD")
    if revision is None:
        return None
    changes = _git_output(folder, *owner, "status", "--porcelain", "--untracked-files=no")
    return revision + ("" if changes == "" else "+dirty" if changes else "+unknown")


def refuse_tracked_file(file: Path) -> None:
    """Refuse to write results of real participants to a file that is tracked by git.

    Raises
    ------
    UserError
        If the file, or the target of a link, is tracked by git, or this cannot be determined.
    """
    file = file.resolve()
    if not file.parent.is_dir():
        return
    words = ("--literal-pathspecs", "ls-files", "--error-unmatch", "--", file.name)
    done = _git(file.parent, *ANY_OWNER, *words)
    if done is None:
        if any((folder / ".git").exists() for folder in file.parents):
            logger.warning("git cannot be run to check whether it tracks %s", file)
        return
    if done.returncode == 0:
        raise UserError(
            f"{file} is tracked by git, and results of real participants could be published by "
            "accident. Choose another file with --db."
        )
    if done.returncode != 1 and "not a git repository" not in done.stderr:
        why = done.stderr.strip().partition("\n")[0]
        raise UserError(
            f"It could not be determined whether {file} is tracked by git ({why}), in which case "
            "results of real participants could be published by accident. Choose a file in another "
            "directory with --db."
        )


def _top(folder: Path, owner: Sequence[str] = ()) -> Path | None:
    """Return the root of the repository that contains a directory."""
    top = _git_output(folder, *owner, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def _git_output(folder: Path, *words: str) -> str | None:
    """Return the output of git, None if it fails or is not installed."""
    done = _git(folder, *words)
    return done.stdout.strip() if done is not None and done.returncode == 0 else None


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str] | None:
    """Run git in a directory without writing anything; None if git is not installed.

    Variables such as GIT_DIR, which are set in hooks, refer to another directory and are removed.
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
