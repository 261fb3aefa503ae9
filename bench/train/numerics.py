"""Device, precision, threads: what decides how numbers are computed."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from registry.errors import UserError

PRECISIONS = ("fp32", "bf16")


def device_for(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    UserError
        When a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda was asked for, but torch finds no GPU here; use --device cpu."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def gpu_count(name: str) -> int:
    """Return how many GPUs units may use on the device named as for `device_for`."""
    return torch.cuda.device_count() if device_for(name).type == "cuda" else 0


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 natively, not by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        flags = next((line for line in lines if line.startswith("flags")), "")
    return "amx_bf16" in flags or "avx512_bf16" in flags


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which the forward pass runs at `precision`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def memory_format_for(network: nn.Module) -> torch.memory_format:
    """Return how the network's tensors lie in memory, by a fixed rule.

    Depthwise convolutions (EfficientNet's) run twice as fast channels-last on a CPU; the others
    here were slower by a tenth (``tests/speed/memory_format_speed.py``).
    """
    depthwise = any(
        isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        for module in network.modules()
    )
    return torch.channels_last if depthwise else torch.contiguous_format


def environment(device: torch.device) -> dict[str, Any]:
    """Describe what computes, for the record."""
    import timm

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "torch": torch.__version__,
        "timm": timm.__version__,
        "device": device.type,
        "gpu": gpu,
        "machine": platform.machine(),
        "tf32": torch.backends.cuda.matmul.allow_tf32 if gpu else None,
    }
