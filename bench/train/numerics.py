"""Device, precision, memory and other settings of numerical computations."""

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
        If a GPU is requested and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda requires a GPU, but torch does not find one; use --device cpu."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def gpu_count(name: str) -> int:
    """Return the number of available GPUs for a device name as in `device_for`."""
    return torch.cuda.device_count() if device_for(name).type == "cuda" else 0


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 numbers natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(cpu_flags())


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context manager for forward passes with a precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def keep_small_convolutions_exact(network: nn.Module, device: torch.device) -> None:
    """Compute convolutions of small inputs in float32 on a CPU, where bfloat16 is wrong.

    If a kernel extends over more voxels than its input has along an axis, oneDNN's bfloat16
    gradient of the weights reads uninitialised memory, which sometimes contains NaN (torch 2.14
    and 2.15 with AVX-512; see tests/train/test_bf16.py). This concerns the last and smallest
    feature maps of a network, for which float32 is as fast.
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
    """Return the layout to use without measurements.

    Depthwise convolutions, as in EfficientNet, are twice as fast with channels last on a CPU.
    """
    depthwise = any(
        isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        for module in network.modules()
    )
    return Layout("channels_last" if depthwise else "contiguous_format")


def compiled(forward: Callable[[Tensor], Tensor], mode: str) -> Callable[[Tensor], Tensor]:
    """Return a function that compiles `forward` at its first call, for a fixed shape."""
    return torch.compile(forward, dynamic=False, mode=mode)


@cache
def why_not_compiled(device: torch.device) -> str:
    """Return why `torch.compile` fails on this machine, an empty string if it works.

    It requires a C++ compiler, and a directory of temporary files from which libraries can be
    loaded.
    """
    # A random constant prevents a cached result from being used.
    number = float(int.from_bytes(os.urandom(4), "big"))
    try:
        compiled(lambda x: (x + number).sin(), "default")(torch.ones(8, device=device))
    except Exception as error:
        cause = getattr(error, "inner_exception", None) or error
        return f"{type(cause).__name__}: {cause}".split("\n")[0]
    torch.compiler.reset()
    return ""


def configure(device: torch.device, *, deterministic: bool) -> None:
    """Configure this process: no TF32, and deterministic algorithms if requested.

    Without `deterministic`, cuDNN chooses the fastest algorithms, which may differ between runs in
    the last digits. A CPU is deterministic for a given number of threads; on a CPU, freed memory
    is kept (see `keep_freed_memory`).
    """
    if device.type != "cuda":
        keep_freed_memory()
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        # cuBLAS reads this variable when it is initialised.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory for new tensors until the process ends.

    By default, glibc returns large blocks to the system immediately, and the system must provide
    zeroed pages for the next tensor. For volumes of 91 x 109 x 91 voxels, this takes as long as
    the computations of a step. Keeping the memory increases the peak of the process 1.2 to 1.8
    times (tests/speed/training_speed.py). If the user has set glibc's variable MALLOC_MMAP_MAX_,
    nothing is changed; other C libraries have no such setting. Setting that variable for worker
    processes would not help `bench predict`, which computes in a process that is already running.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_MMAP_MAX_" not in os.environ:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Return the memory that `keep_freed_memory` kept to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_vram_mb(device: torch.device) -> dict[str, int]:
    """Return the peak GPU memory of this process in MB, an empty mapping on a CPU."""
    if device.type != "cuda":
        return {}
    return {"peak_vram_mb": round(torch.cuda.max_memory_allocated(device) / 2**20)}


def libraries(cards: Iterable[Card | None] = ()) -> dict[str, str]:
    """Return the versions of the libraries that compute a network.

    Parameters
    ----------
    cards : iterable of cards
        Cards whose plugins import additional libraries.
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
    """Return the hardware, software and numerical settings in use."""
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
