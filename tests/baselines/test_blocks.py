"""The papers' block in its two orders."""

import torch
from torch.testing import assert_close

from baselines.blocks import Block


def test_pooling_before_the_norm_changes_neither_values_nor_gradients() -> None:
    torch.manual_seed(0)
    block = Block(2, 3, 8)
    x = torch.randn(4, 3, 13, 3)
    found = []
    for norm in (
        lambda y: block.max_pool(block.norm(y), [2, 1]),
        lambda y: block.pooled_norm(y, [2, 1]),
    ):
        block.zero_grad()
        values = torch.relu(norm(block.conv(x)))
        values.square().sum().backward()
        found.append((values.detach(), block.conv.weight.grad.clone()))
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
    assert_close(block(x), found[0][0], rtol=0, atol=0)


def test_a_compiled_block_equals_the_plain_one() -> None:
    torch.manual_seed(0)
    block = Block(2, 1, 4)
    x = torch.randn(2, 1, 12, 10)
    assert_close(torch.compile(block)(x), block(x), rtol=1e-4, atol=1e-5)
