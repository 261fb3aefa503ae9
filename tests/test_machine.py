"""The description of the processor, also if the system provides none."""

import platform

import pytest

from bench import machine

INTEL = """processor\t: 0
model name\t: Intel(R) Xeon(R) CPU: a part @ 2.00GHz
flags\t\t: fpu avx512_bf16 amx_bf16
vmx flags\t: vnmi

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


@pytest.mark.parametrize(
    ("said", "name", "flags"),
    [
        (INTEL, "Intel(R) Xeon(R) CPU: a part @ 2.00GHz", ["fpu", "avx512_bf16", "amx_bf16"]),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", platform.processor(), []),
        (None, platform.processor(), []),
    ],
    ids=["x86", "ARM", "no such file"],
)
def test_the_first_processor_is_described(tmp_path, monkeypatch, said, name, flags):
    file = tmp_path / "cpuinfo"
    if said is not None:
        file.write_text(said)
    monkeypatch.setattr(machine, "CPU_INFO", file)
    assert machine.cpu_name() == name
    assert machine.cpu_flags() == flags
