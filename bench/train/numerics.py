"""Device, precision, threads: what decides how numbers are computed."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from bench.machine import cpu_flags
from bench.unit import Environment, Layout, Numerics
from registry.cards import Card
from registry.core import catalogue
from registry.errors import UserError

PRECISIONS = ("fp32", "bf16")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of mallopt's parameters in glibc's malloc.h."""


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
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(cpu_flags())


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which the forward pass runs at `precision`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def keep_small_convolutions_exact(network: nn.Module, device: torch.device) -> None:
    """Compute in float32 what a CPU gets wrong in bfloat16; to be called before bf16 on a CPU.

    Where a kernel reaches over more voxels than its input has along an axis, oneDNN's bfloat16
    gradient of the weights reads memory that nothing was written to: random numbers, now and then
    NaN (torch 2.14 and 2.15, AVX-512; tests/train/test_bf16.py shows it). These are the last,
    smallest maps of a network, which cost nothing in float32.
    """
    if device.type != "cpu":
        return
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            module.forward = _exact_if_small(module, module.forward)  # type: ignore[method-assign, assignment]


def _exact_if_small(
    module: nn.Conv1d | nn.Conv2d | nn.Conv3d, forward: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    sizes = zip(module.dilation, module.kernel_size, strict=True)
    reach = [spread * (kernel - 1) + 1 for spread, kernel in sizes]

    def run(x: Tensor) -> Tensor:
        if all(n >= r for n, r in zip(x.shape[2:], reach, strict=True)):
            return forward(x)
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return run


def rule(network: nn.Module) -> Layout:
    """Return the layout where measuring would not pay.

    Depthwise convolutions (EfficientNet's) run twice as fast channels-last on a CPU.
    """
    depthwise = any(
        isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        for module in network.modules()
    )
    return Layout("channels_last" if depthwise else "contiguous_format")


def compiled(forward: Callable[[Tensor], Tensor], mode: str) -> Callable[[Tensor], Tensor]:
    """Return `forward` compiled on first use, for one shape."""
    return torch.compile(forward, dynamic=False, mode=mode)


@cache
def why_not_compiled(device: torch.device) -> str:
    """Return why `torch.compile` fails here, empty where it works.

    It needs a C++ compiler and a folder of temporary files in which libraries may be loaded.
    """
    # A number of its own, so that nothing compiled earlier is found.
    number = float(int.from_bytes(os.urandom(4), "big"))
    try:
        compiled(lambda x: (x + number).sin(), "default")(torch.ones(8, device=device))
    except Exception as error:
        cause = getattr(error, "inner_exception", None) or error
        return f"{type(cause).__name__}: {cause}".split("\n")[0]
    torch.compiler.reset()
    return ""


def configure(device: torch.device, *, deterministic: bool) -> None:
    """Set the switches of a process: float32 is float32 (no TF32), determinism if asked for.

    Without `deterministic` cuDNN tries its algorithms and keeps the fastest, which may differ
    from run to run in the last digits. A CPU is deterministic for one number of threads; its
    process keeps freed memory.
    """
    if device.type != "cuda":
        keep_freed_memory()
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        # cuBLAS reads it when its first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free for the next ones, until the process ends.

    glibc gives large blocks back to the system at once, and the system hands out zeros page by
    page at the next touch. At 91 x 109 x 91 this takes as long as the arithmetic of a step; kept,
    the process's peak is 1.2 to 1.8 times as high (tests/speed/training_speed.py). Who has set
    glibc's own MALLOC_MMAP_MAX_ has decided; other C libraries have no such switch. The
    environment of the worker processes would do the same for them, but `bench predict` computes
    in a process that runs already.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_MMAP_MAX_" not in os.environ:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Give back once what `keep_freed_memory` holds, where other work begins."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_vram_mb(device: torch.device) -> dict[str, int]:
    """Return the most GPU memory this process held, in MB; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    return {"peak_vram_mb": round(torch.cuda.max_memory_allocated(device) / 2**20)}


def libraries(cards: Iterable[Card | None] = ()) -> dict[str, str]:
    """Return the versions of what computes a network: torch, timm, numpy, slicebench.

    Parameters
    ----------
    cards : iterable of cards
        Those of a plugin add the libraries that its files import.
    """
    import numpy
    import timm

    plugins = [catalogue.code[card.plugin] for card in cards if card is not None and card.plugin]
    theirs = {name for code in plugins for name in code.libraries}
    found = {name: getattr(sys.modules.get(name), "__version__", "") for name in theirs}
    return {
        **{name: str(number) for name, number in found.items()},
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": numpy.__version__,
        "slicebench": version("slicebench"),
    }


def environment(device: torch.device, threads: int, layout: Layout | None) -> Environment:
    """Describe what computes, for the record."""
    import timm

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return Environment(
        threads=threads,
        device=device.type,
        machine=platform.machine(),
        versions={"torch": torch.__version__, "timm": timm.__version__},
        numerics=Numerics(
            gpu=gpu,
            tf32=torch.backends.cuda.matmul.allow_tf32 if gpu else None,
            deterministic=torch.are_deterministic_algorithms_enabled() if gpu else True,
        ),
        layout=layout,
    )
