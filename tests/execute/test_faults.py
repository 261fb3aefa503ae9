"""Faults on one machine: each is contained in its unit, said, and repaired by running again."""

import subprocess
import sys

from tests.control_group import control_group

HUNGRY = """
from registry import model

@model("hungry", kind="estimator")
def build(params, task, shape):
    class Hungry:
        def fit(self, volumes, targets):
            kept = []
            while True:
                kept.append(bytearray(2**20))
    return Hungry()
"""


def test_a_worker_killed_because_memory_ran_out_is_recognised(make, tmp_path):
    (tmp_path / "slow.py").write_text(HUNGRY)
    (tmp_path / "unit.json").write_text(make("hungry", "a" * 16).to_json())
    code = (
        "import sys; from pathlib import Path\n"
        "from bench.execute.local import LocalExecutor\n"
        "from bench.unit import Unit\n"
        "executor = LocalExecutor(1, gpus=0, preload=[], on_progress=lambda *_: None)\n"
        "unit = Unit.from_json(Path(sys.argv[1]).read_text())\n"
        "ended = executor.submit(unit).result(timeout=100)\n"
        "print(ended.exit_code, ended.cause, ended.reason)\n"
        "executor.shutdown()\n"
    )
    with control_group(megabytes=600) as join:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "unit.json")],
            capture_output=True,
            text=True,
            preexec_fn=join,
        )
    assert done.stdout == "-9 memory killed by the system because memory ran out\n", done.stderr
