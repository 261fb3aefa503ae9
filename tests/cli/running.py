"""Functions shared by tests of commands."""

from __future__ import annotations

import subprocess


def ran(done: subprocess.CompletedProcess, code: int = 0) -> str:
    """Return the output of a command after checking its exit code and for tracebacks."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout
