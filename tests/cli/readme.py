"""The commands that the README shows, run as they are written there."""

import re
import stat
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(title):
    """Return the blocks of commands of a section."""
    (section,) = re.findall(rf"^### {re.escape(title)}\n(.*?)(?=^##)", README, re.DOTALL | re.M)
    return re.findall(r"^```\n(.*?)^```", section, re.DOTALL | re.M)


def run_block(block, folder, environment):
    """Run a block in a shell, in which pip does nothing because everything is installed."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, words in (
        ("bench", f'exec "{sys.executable}" -m bench "$@"'),
        ("pip", "exec true"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{words}\n")
        (programs / name).chmod(stat.S_IRWXU)
    return subprocess.run(
        ["bash", "-e", "-c", block],
        cwd=folder,
        env={**environment, "PATH": f"{programs}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
