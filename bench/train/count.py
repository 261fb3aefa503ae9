"""What a network costs by arithmetic alone: parameters, and multiply-adds of one volume."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(network: nn.Module) -> int:
    """Return how many numbers a network has to train, frozen ones included, shared ones once."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Count the multiply-adds of one volume's forward pass, without computing it.

    Convolutions, matrix products (linear layers, recurrent layers) and attention count; biases,
    norms, activations, poolings and interpolation do not. A multiplication and its addition are
    one. Backward passes take about twice as many again where every layer is trained.

    The pass runs in evaluation mode over a copy without numbers (torch's meta device), so it
    takes neither memory nor arithmetic, and fused kernels that torch's counter does not see on a
    real device, an LSTM's among them, come apart into the products that it does.

    Parameters
    ----------
    network : nn.Module
        On any device, in any mode; left as it is.
    shape : tuple of int
        (D, H, W); the volume is (1, 1, D, H, W).

    Returns
    -------
    int
        Multiply-adds, half of the floating-point operations that torch counts.

    Raises
    ------
    RuntimeError
        When the forward pass depends on the numbers in a volume or keeps tensors that are
        neither parameters nor buffers: there is nothing to count without computing.
    """
    hollow = _hollow(network).eval()
    volume = torch.empty(1, 1, *shape, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hollow(volume)
    return int(counter.get_total_flops()) // 2


def _hollow(network: nn.Module) -> nn.Module:
    """Copy a network onto the meta device without copying its numbers on the way."""
    copies: dict[int, Tensor] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for parameter in network.parameters()
    }
    copies |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    # deepcopy takes what it finds there for copied already.
    return copy.deepcopy(network, copies)
