"""Registration with ANTs recovers a known transform."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from bench.data import formats
from bench.data.facts import measured, template_file
from bench.data.register import registered
from bench.data.volume import GRIDS, Volume, conform, to_ras

GRID = GRIDS["mni-4mm"]


def moved_template(*, skull: bool) -> tuple[Volume, np.ndarray]:
    """Return the template at 2 mm, rotated, scaled and shifted, and its original affine."""
    template = to_ras(formats.read(template_file()))
    coarse = conform(template, GRIDS["mni-2mm"], "mni")
    if skull:
        brain = coarse > 0.2 * coarse.max()
        near = ndimage.binary_dilation(brain, iterations=2)
        shell = ndimage.binary_dilation(near, iterations=4) & ~near
        coarse = coarse + 0.8 * coarse.max() * shell
    angle = np.deg2rad(10)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned[:3, 3] = (8, -20, 12)
    affine = GRIDS["mni-2mm"].affine
    return replace(
        template, data=coarse, affine=turned @ np.diag([1.06, 0.96, 1.03, 1]) @ affine
    ), affine


@pytest.mark.slow
@pytest.mark.parametrize("skull", [False, True])
def test_a_known_transform_is_found_again(skull: bool) -> None:
    scan, affine = moved_template(skull=skull)
    before = measured(conform(scan, GRID, "mni"), GRID)
    found = registered(scan)
    corners = np.array([[20, 20, 20, 1], [70, 90, 20, 1], [45, 54, 70, 1]]).T
    distance = np.linalg.norm((found.affine @ corners - affine @ corners)[:3], axis=0)
    assert distance.max() < 2
    after = measured(conform(found, GRID, "mni"), GRID)
    assert float(str(after["likeness"])) > 0.85 > 0.5 > float(str(before["likeness"]))
    assert found.info.oriented
    if not skull:
        np.testing.assert_array_equal(registered(scan).affine, found.affine)
