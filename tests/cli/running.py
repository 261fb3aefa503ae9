"""What the tests of commands share."""

from __future__ import annotations

import subprocess


def ran(done: subprocess.CompletedProcess, code: int = 0) -> str:
    """Return what a finished command printed, after a look at its exit code and for a traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout
