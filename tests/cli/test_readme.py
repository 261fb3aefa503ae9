"""The commands that the README shows for several kinds of machines, as they are written there."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import ran

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(title):
    """Return the blocks of commands of a section."""
    (section,) = re.findall(rf"^### {re.escape(title)}\n(.*?)(?=^##)", README, re.DOTALL | re.M)
    return re.findall(r"^```\n(.*?)^```", section, re.DOTALL | re.M)


@pytest.fixture
def shell(tmp_path, environment):
    """Run a block in a shell, in which pip does nothing because everything is installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (
        ("bench", f'exec "{sys.executable}" -m bench "$@"'),
        ("pip", "exec true"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{words}\n")
        (programs / name).chmod(stat.S_IRWXU)
    found = {**environment, "PATH": f"{programs}:{environment['PATH']}"}

    def run(block):
        return subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=tmp_path,
            env=found,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def test_a_gpu_box(shell):
    (block,) = blocks("A GPU box")
    out = ran(shell(block))
    assert "4 of 4 trials done" in out


def test_an_air_gapped_site(shell):
    carried, site, home = blocks("An air-gapped site")
    assert "4 trials to run written to carried/plan." in ran(shell(carried))
    assert ran(shell(site)).count("2 of 2 trials done") == 2
    out = ran(shell(home))
    assert "4 of 4 trials of the plan are stored in home.db." in out
    assert "slice2d-imagenet" in out
