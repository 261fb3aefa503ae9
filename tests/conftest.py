import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests must not fail because the machine is busy.
settings.register_profile(
    "slicebench", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("slicebench")

# The width that pytest-xdist or a user's shell sets is not that of the expected reports.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache for the whole session, so that the synthetic cohort is created once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def environment(cache):
    """The environment of a user without configuration or internet access."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("BENCH_")},
        "BENCH_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache / "hub"),
        "TORCH_HOME": str(cache / "torch"),
    }


@pytest.fixture
def bench(tmp_path, environment):
    """Run the command in a process of its own; returns the finished process."""

    def run(*words: str, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "bench", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**environment, **more},
            timeout=600,
        )

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark tests that run the command as slow; skip those that need git or a GPU without one."""
    for item in items:
        if "environment" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
    if shutil.which("git") is None:
        for item in items:
            if item.get_closest_marker("git"):
                item.add_marker(pytest.mark.skip(reason="needs git"))
    # Importing torch takes seconds, so it is only done where a test is marked.
    wanted = [item for item in items if item.get_closest_marker("gpu")]
    if not wanted:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
