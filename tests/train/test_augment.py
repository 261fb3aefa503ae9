import numpy as np
import pytest
import torch

from bench.train.augment import OPTIONS, augmented, is_on, moved

SHAPE = (8, 10, 9)
ALL_ON = {
    "flip": True,
    "shift": 2.0,
    "rotate": 10.0,
    "intensity": 0.1,
    "noise": 0.05,
    "drop_slices": 0.3,
}
ALL_OFF = {name: type(value)(0) for name, value in ALL_ON.items()}


def scans(n=6, shape=SHAPE):
    return torch.randn((n, 1, *shape), generator=torch.Generator().manual_seed(0))


def augment(volumes, params, samples=None, random_stream="0", epoch=1):
    samples = np.arange(len(volumes)) if samples is None else np.asarray(samples)
    return augmented(volumes, samples, params, random_stream=random_stream, epoch=epoch)


def only(**options):
    return ALL_OFF | options


def each(name):
    return only(**{name: ALL_ON[name]})


def test_off_returns_the_tensor_itself():
    volumes = scans()
    assert not is_on(ALL_OFF)
    assert not is_on({})
    assert augment(volumes, ALL_OFF) is volumes


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_changes_some_volumes_but_not_the_tensor_given(name):
    volumes = scans()
    before = volumes.clone()
    assert is_on(each(name))
    result = augment(volumes, each(name))
    assert result.shape == volumes.shape
    assert result.dtype == torch.float32
    assert not torch.equal(result, volumes)
    assert torch.equal(volumes, before)


@pytest.mark.parametrize("params", [*map(each, OPTIONS), ALL_ON], ids=[*OPTIONS, "all"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_result_does_not_depend_on_the_batch(params, threads):
    volumes = scans(7, (17, 21, 19))
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = augment(volumes, params)
        for samples in ([3], [5, 3], [6, 5, 4, 3, 2, 1, 0], [0, 3, 6]):
            assert torch.equal(augment(volumes[samples], params, samples), whole[samples])
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize("name", OPTIONS)
def test_epoch_draw_and_scan_decide_the_numbers(name):
    volumes = scans(1).expand(6, 1, *SHAPE)
    first = augment(volumes, each(name))
    assert torch.equal(augment(volumes, each(name)), first)
    assert not torch.equal(augment(volumes, each(name), epoch=2), first)
    assert not torch.equal(augment(volumes, each(name), random_stream="1"), first)
    assert not torch.equal(augment(volumes, each(name), samples=np.arange(6) + 10), first)
    assert len(torch.unique(first, dim=0)) > 1


def test_an_option_leaves_the_numbers_of_another():
    volumes = scans(20)
    alone = augment(volumes, each("flip"))
    both = augment(volumes, only(flip=True, drop_slices=0.3))
    kept = ~(both == volumes.amin(dim=(1, 2, 3, 4), keepdim=True))
    assert torch.equal(both[kept], alone[kept])
    noise = augment(volumes, each("noise")) - volumes
    with_flip = augment(volumes, only(flip=True, noise=ALL_ON["noise"])) - alone
    torch.testing.assert_close(with_flip, noise, atol=1e-6, rtol=0)


def test_samples_must_match_the_volumes():
    with pytest.raises(ValueError, match="2 volumes, but 3 samples"):
        augment(scans(2), ALL_ON, [0, 1, 2])


def test_a_flip_mirrors_left_and_right_exactly_for_about_half():
    volumes = scans(200, (4, 3, 2))
    result = augment(volumes, only(flip=True))
    same = (result == volumes).flatten(1).all(1)
    mirrored = (result == volumes.flip(2)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 70 < int(mirrored.sum()) < 130


@pytest.mark.parametrize("shift", [(2, 0, 0), (0, -3, 0), (0, 0, 1), (1, -2, 3)])
def test_an_integer_shift_is_a_roll_inside(shift):
    volumes = scans(2)
    result = moved(volumes, np.tile(np.array(shift, dtype=float), (2, 1)), np.zeros((2, 3)))
    rolled = volumes.roll(shift, dims=(2, 3, 4))
    inside = (..., *[slice(3, -3)] * 3)
    torch.testing.assert_close(result[inside], rolled[inside], atol=1e-4, rtol=0)


def test_what_comes_in_from_outside_repeats_the_border():
    volumes = scans(1)
    result = moved(volumes, np.array([[3.0, 0, 0]]), np.zeros((1, 3)))
    for slice_ in range(3):
        torch.testing.assert_close(result[:, :, slice_], volumes[:, :, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turns", [1, 2, -1])
def test_a_right_angle_is_rot90(size, axis, turns):
    volumes = scans(1, (size, size, size))
    degrees = np.zeros((1, 3))
    degrees[0, axis] = 90 * turns
    result = moved(volumes, np.zeros((1, 3)), degrees)
    plane = ((axis + 1) % 3, (axis + 2) % 3)
    wanted = np.rot90(volumes[0, 0].numpy(), turns, axes=plane)
    np.testing.assert_allclose(result[0, 0].numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_turn_is_rigid_in_voxels_on_an_uneven_grid(axis):
    cube = scans(1, (5, 5, 5))
    inside = (..., slice(4, 9), slice(8, 13), slice(6, 11))
    volume = torch.zeros(1, 1, 13, 21, 17)
    volume[inside] = cube
    degrees = np.zeros((1, 3))
    degrees[0, axis] = 90
    result = moved(volume, np.zeros((1, 3)), degrees)
    wanted = torch.zeros_like(volume)
    wanted[inside] = cube.rot90(1, dims=((axis + 1) % 3 + 2, (axis + 2) % 3 + 2))
    torch.testing.assert_close(result, wanted, atol=1e-4, rtol=0)


def test_a_volume_is_turned_before_it_is_shifted_about_each_axis_in_order():
    volumes = scans(1, (9, 9, 9))
    shift = np.array([[0.0, 0.0, 2.0]])
    result = moved(volumes, shift, np.array([[90.0, 90.0, 0.0]]))
    turned = volumes.rot90(1, dims=(3, 4)).rot90(1, dims=(4, 2))
    wanted = turned.roll(2, dims=4)[..., 2:]
    torch.testing.assert_close(result[..., 2:], wanted, atol=1e-4, rtol=0)


def test_a_turn_keeps_lengths_and_moves_by_its_angle():
    """A smooth off-centre blob is rotated to the right voxel, also on a non-cubic grid."""
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in (31, 47, 25)], indexing="ij"))

    def blob(centre):
        square = ((grid - np.array(centre)[:, None, None, None]) ** 2).sum(0)
        return torch.tensor(np.exp(-square / 8), dtype=torch.float32)[None, None]

    angle = np.deg2rad(25)
    result = moved(blob((0, 10, 0)), np.array([[1.0, 0, 0]]), np.array([[0, 0, 25.0]]))[0, 0]
    centre = (grid * result.numpy()).sum((1, 2, 3)) / result.numpy().sum()
    wanted = (1 - 10 * np.sin(angle), 10 * np.cos(angle), 0)
    np.testing.assert_allclose(centre, wanted, atol=0.02)


def test_movements_stay_within_their_bounds():
    """Shifting a linear ramp adds a constant, which gives the size of the shift."""
    ramp = torch.arange(21.0).view(1, 1, 21, 1, 1).expand(100, 1, 21, 5, 5).contiguous()
    offset = (augment(ramp, only(shift=2.5)) - ramp)[:, 0, 10, 2, 2]
    assert offset.abs().max() <= 2.5 + 1e-4
    assert offset.min() < -1.5
    assert offset.max() > 1.5
    assert abs(offset.mean()) < 0.6


def test_intensity_is_one_line_a_volume_within_its_bounds():
    volumes = scans(50)
    result = augment(volumes, only(intensity=0.2))
    lines = [
        np.polyfit(x.numpy(), y.numpy(), 1)
        for x, y in zip(volumes.flatten(1).double(), result.flatten(1).double(), strict=True)
    ]
    gain, offset = np.array(lines).T
    assert np.abs(gain - 1).max() <= 0.2 + 1e-5
    assert np.abs(offset).max() <= 0.2 + 1e-5
    assert np.std(gain) > 0.05
    assert np.std(offset) > 0.05
    assert abs(np.corrcoef(gain, offset)[0, 1]) < 0.5
    fitted = gain[:, None] * volumes.flatten(1).numpy() + offset[:, None]
    np.testing.assert_allclose(result.flatten(1).numpy(), fitted, atol=1e-5)


def test_noise_has_its_deviation():
    volumes = scans(4, (20, 20, 20))
    noise = augment(volumes, only(noise=0.5)) - volumes
    for field in noise:
        assert abs(float(field.mean())) < 0.03
        assert float(field.std()) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(("axis", "dim"), [("sagittal", 2), ("coronal", 3), ("axial", 4)])
def test_dropped_slices_are_the_minimum_and_the_others_untouched(axis, dim):
    volumes = scans(50)
    result = augment(volumes, only(drop_slices=0.3) | {"axis": axis})
    rest = [d for d in (1, 2, 3, 4) if d != dim]
    dropped = (result == volumes.amin(dim=(1, 2, 3, 4), keepdim=True)).all(rest[2]).all(rest[1])
    kept = (result == volumes).all(rest[2]).all(rest[1])
    assert torch.equal(dropped, ~kept)
    assert 0.2 < float(dropped.float().mean()) < 0.4


def test_slices_are_sagittal_where_the_recipe_names_no_axis():
    volumes = scans()
    params = only(drop_slices=0.3)
    assert torch.equal(augment(volumes, params), augment(volumes, params | {"axis": "sagittal"}))


@pytest.mark.parametrize("share", [0.95, 1.0])
def test_never_all_slices_are_dropped(share):
    volumes = scans(100)
    result = augment(volumes, only(drop_slices=share))
    kept = (result == volumes).flatten(3).all(3).sum(2)
    assert int(kept.min()) == 1
    if share == 1:
        assert int(kept.max()) == 1


def test_dropped_slices_are_background_of_the_changed_intensity():
    volumes = scans(10)
    bright = augment(volumes, each("intensity"))
    result = augment(volumes, only(intensity=ALL_ON["intensity"], drop_slices=0.5))
    changed = result != bright
    lowest = bright.amin(dim=(1, 2, 3, 4), keepdim=True).expand_as(bright)
    assert bool(changed.any())
    assert torch.equal(result[changed], lowest[changed])
