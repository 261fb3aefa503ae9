"""Skipping the slices that are background in every training volume."""

import pytest
import torch

from baselines.position import position
from baselines.slices import AXES, strided, trim_empty
from registry import models


def test_slices_outside_of_the_head_are_left_out_and_the_others_keep_their_numbers():
    kept = strided(30, 3)
    assert list(kept) == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28]
    assert trim_empty(kept, {}) == kept
    found = trim_empty(kept, {"first_slice": 5, "last_slice": 22})
    assert list(found) == [7, 10, 13, 16, 19, 22]
    assert kept.index(found.start) == 2


def test_an_axis_is_the_same_one_in_models_and_harness():
    """Models do not import `bench`, so they define the axes themselves."""
    assert AXES == models.AXES
    assert [models.slice_plane(axis) for axis in AXES] == [(1, 2), (0, 2), (0, 1)]


def test_no_slice_left_is_a_sentence():
    with pytest.raises(ValueError, match="No slice is left"):
        trim_empty(strided(30, 10), {"first_slice": 6, "last_slice": 13})


def test_sinusoids_are_those_of_the_place_among_all_slices():
    whole = position("sinusoidal", norm=False, n_slices=10, features=8)
    part = position("sinusoidal", norm=False, n_slices=6, features=8, first=2)
    zeros = torch.zeros(1, 10, 8)
    assert torch.equal(part(zeros[:, 2:8]), whole(zeros)[:, 2:8])
