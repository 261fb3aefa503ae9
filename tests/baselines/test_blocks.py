"""The papers' block with the norm before and after pooling."""

import pytest
import torch
from torch.testing import assert_close

from baselines.blocks import Block


@pytest.mark.parametrize(
    ("shape", "kernel"), [((13, 3), [2, 1]), ((13, 3, 8), [2, 1, 2])], ids=["2D", "3D"]
)
def test_pooling_before_the_norm_changes_neither_values_nor_gradients(shape, kernel) -> None:
    torch.manual_seed(0)
    block = Block(len(shape), 3, 8)
    x = torch.randn(4, 3, *shape)
    found = []
    for norm in (
        lambda y: block.max_pool(block.norm(y), kernel),
        lambda y: block.pooled_norm(y, kernel),
    ):
        block.zero_grad()
        values = torch.relu(norm(block.conv(x)))
        values.square().sum().backward()
        found.append((values.detach(), block.conv.weight.grad.clone()))
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
    assert_close(block(x), found[0][0], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 7)], ids=["2D", "3D"])
def test_a_compiled_block_equals_the_plain_one(shape) -> None:
    torch.manual_seed(0)
    block = Block(len(shape), 1, 4)
    x = torch.randn(2, 1, *shape)
    assert_close(torch.compile(block)(x), block(x), rtol=1e-4, atol=1e-5)
