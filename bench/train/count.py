"""Number of parameters of a network, and of multiply-adds for one volume."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(network: nn.Module) -> int:
    """Return the number of parameters, including frozen ones and counting shared ones once."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Count the multiply-adds of the forward pass for one volume, without computing it.

    Convolutions, matrix products (linear and recurrent layers) and attention are counted, but not
    biases, normalisation, activations, pooling and interpolation. A multiplication and an addition
    count as one. A backward pass takes about twice as many if all layers are trained.

    The forward pass runs in evaluation mode on torch's meta device, so it requires neither memory
    nor computation. On this device, fused kernels such as that of an LSTM are decomposed into
    operations that torch's counter supports.

    Parameters
    ----------
    network : nn.Module
        The network on any device, which is not changed.
    shape : tuple of int
        The shape (D, H, W) of the volume.

    Returns
    -------
    int
        Multiply-adds, which are half of the floating-point operations counted by torch.

    Raises
    ------
    RuntimeError
        If the forward pass depends on the values of the volume, or uses tensors that are neither
        parameters nor buffers.
    """
    copied = _meta_copy(network).eval()
    volume = torch.empty(1, 1, *shape, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copied(volume)
    return int(counter.get_total_flops()) // 2


def _meta_copy(network: nn.Module) -> nn.Module:
    """Copy a network to the meta device without copying its values."""
    copies: dict[int, Tensor] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for parameter in network.parameters()
    }
    copies |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    # deepcopy does not copy what is in its memo.
    return copy.deepcopy(network, copies)
