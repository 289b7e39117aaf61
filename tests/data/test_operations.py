"""Image operations against PIL, torchvision and plain NumPy; every sample as if it were alone; nothing at strength zero."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms.v2 import functional as T

from kdzoo.data.operations import (
    GEOMETRIC,
    OPERATIONS,
    PHOTOMETRIC,
    affine,
    apply_operation,
    autocontrast,
    brightness,
    contrast,
    cutout,
    equalise,
    grey,
    matrices,
    posterise,
    saturation,
    sharpness,
    solarise,
)


def images(samples=6, channels=3, height=13, width=11, seed=0) -> torch.Tensor:
    """Noise of a different reach in each sample and channel, so that autocontrast and equalise have something to do."""
    random = np.random.default_rng(seed)
    low, high = random.integers(0, 100, (samples, channels, 1, 1)), random.integers(120, 256, (samples, channels, 1, 1))
    return torch.from_numpy(random.integers(low, high, (samples, channels, height, width)).astype(np.uint8))


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy())


def pixels(image: Image.Image) -> np.ndarray:
    array = np.asarray(image).astype(int)
    return array.transpose(2, 0, 1) if array.ndim == 3 else array[None]


def whole(values) -> torch.Tensor:
    return torch.tensor(values)


FACTORS = [0.0, 0.37, 0.9, 1.0, 1.3, 1.9]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (brightness, ImageEnhance.Brightness),
        (contrast, ImageEnhance.Contrast),
        (saturation, ImageEnhance.Color),
        (sharpness, ImageEnhance.Sharpness),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_enhancements_are_pils_within_one_grey_level_which_pil_cuts_off(mine, theirs, channels):
    given = images(len(FACTORS), channels)
    seen = mine(given, whole(FACTORS)).numpy().astype(int)
    for got, image, factor in zip(seen, given, FACTORS, strict=True):
        difference = got - pixels(theirs(pil(image)).enhance(factor))
        assert set(np.unique(difference)) <= {0, 1}
        if factor == 1:
            np.testing.assert_array_equal(got, image.numpy())


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [(brightness, T.adjust_brightness), (contrast, T.adjust_contrast), (saturation, T.adjust_saturation)],
)
def test_colours_are_torchvisions_within_two_grey_levels(mine, theirs):
    """One that it cuts off, one by its luma, which is cut off too."""
    given = images(len(FACTORS))
    seen = mine(given, whole(FACTORS)).int()
    for got, image, factor in zip(seen, given, FACTORS, strict=True):
        assert int((got - theirs(image, factor).int()).abs().max()) <= 2


def test_luma_is_pils_exactly():
    given = images(20)
    for got, image in zip(grey(given), given, strict=True):
        np.testing.assert_array_equal(got.numpy(), pixels(pil(image).convert("L")))


def test_autocontrast_is_pils_within_one_grey_level_which_pil_cuts_off():
    given = images(20)
    for got, image in zip(autocontrast(given).numpy().astype(int), given, strict=True):
        assert set(np.unique(got - pixels(ImageOps.autocontrast(pil(image))))) <= {0, 1}


@given(st.integers(0, 50), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40)
def test_equalise_is_pils_exactly(seed, channels, height, width):
    given = images(2, channels, height, width, seed)
    for got, image in zip(equalise(given), given, strict=True):
        np.testing.assert_array_equal(got.numpy(), pixels(ImageOps.equalize(pil(image))))


def test_posterise_is_pils_exactly():
    bits = [1, 2, 3, 5, 7, 8]
    given = images(len(bits))
    for got, image, kept in zip(posterise(given, whole(bits)), given, bits, strict=True):
        np.testing.assert_array_equal(got.numpy(), pixels(ImageOps.posterize(pil(image), kept)))


def test_solarise_is_pils_exactly():
    thresholds = [0, 1, 77, 128, 255, 256]
    given = images(len(thresholds))
    for got, image, threshold in zip(solarise(given, whole(thresholds).float()), given, thresholds, strict=True):
        np.testing.assert_array_equal(got.numpy(), pixels(ImageOps.solarize(pil(image), threshold)))


def test_a_channel_of_one_grey_level_stays():
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    for change in (autocontrast, equalise):
        assert torch.equal(change(flat), flat)


@given(st.lists(st.floats(-1.5, 1.5), min_size=4, max_size=4), st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
@settings(max_examples=60)
def test_affine_maps_are_pils_but_where_a_pixels_edge_is_hit(entries, shift):
    a, b, d, e = entries
    given = images(1)
    matrix = torch.tensor([[[a, b, shift[0]], [d, e, shift[1]]]])
    seen = affine(given, matrix)[0].numpy()
    expected = pixels(
        pil(given[0]).transform((11, 13), Image.Transform.AFFINE, matrix.double().flatten().tolist(), Image.Resampling.NEAREST)
    )
    y, x = np.mgrid[0:13, 0:11] + 0.5
    place = np.stack([a * x + b * y + shift[0], d * x + e * y + shift[1]])
    clear = (np.abs(place - np.round(place)) > 2e-3).all(0)  # PIL counts in steps of 2^-16 of a pixel
    np.testing.assert_array_equal(seen[:, clear], expected[:, clear])


@pytest.mark.parametrize("level", [-1.0, -0.3, 0.45, 1.0])
def test_rotations_and_shears_are_torchvisions_exactly(level):
    given = images(1, height=32, width=32)
    shear = float(np.degrees(np.arctan(0.3 * level)))
    expected = {
        "rotate": T.rotate(given, 30 * level),
        "shear_x": T.affine(given, 0.0, [0, 0], 1.0, [shear, 0.0], center=[0, 0]),
        "shear_y": T.affine(given, 0.0, [0, 0], 1.0, [0.0, shear], center=[0, 0]),
    }
    for name, other in expected.items():
        seen = apply_operation(given, torch.tensor([OPERATIONS.index(name)]), torch.tensor([level]))
        assert torch.equal(seen, other), name


@pytest.mark.parametrize("level", [-1.0, -0.3, 0.45, 1.0])
def test_translations_move_by_whole_pixels_and_leave_black(level):
    given = images(1, height=32, width=20)
    for name, axis, side in (("translate_x", 2, 20), ("translate_y", 1, 32)):
        seen = apply_operation(given, torch.tensor([OPERATIONS.index(name)]), torch.tensor([level]))[0].numpy()
        shift = round(150 / 331 * side * level)
        moved = np.roll(given[0].numpy(), shift, axis)
        lost = [slice(None)] * 3
        lost[axis] = slice(0, shift) if shift > 0 else slice(side + shift, None)
        moved[tuple(lost)] = 0
        np.testing.assert_array_equal(seen, moved)


@given(st.integers(1, 14), st.integers(0, 12), st.integers(0, 10))
def test_cutout_is_the_papers_square_cut_off_at_borders(side, row, column):
    given = images(1)
    expected = given[0].numpy().copy()
    top, left = row - side // 2, column - side // 2
    expected[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    np.testing.assert_array_equal(cutout(given, torch.tensor([[row, column]]), side)[0].numpy(), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_at_level_zero_nothing_changes_but_by_autocontrast_and_equalise(channels):
    given = images(len(OPERATIONS), channels, height=24, width=20)
    seen = apply_operation(given, torch.arange(len(OPERATIONS)), torch.zeros(len(OPERATIONS)))
    changed = {name for name, before, after in zip(OPERATIONS, given, seen, strict=True) if not torch.equal(before, after)}
    assert changed == {"autocontrast", "equalise"}
    assert torch.equal(matrices(torch.arange(5), torch.zeros(5), 24, 20), torch.eye(3)[:2].expand(5, 2, 3))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_images_pass_through_every_operation(side):
    given = images(len(OPERATIONS), height=side, width=side)
    seen = apply_operation(given, torch.arange(len(OPERATIONS)), torch.ones(len(OPERATIONS)))
    assert seen.shape == given.shape
    assert seen.dtype == torch.uint8


def test_each_sample_has_its_own_operation_and_depends_on_no_other():
    random = torch.Generator().manual_seed(0)
    given = images(90)
    operation = torch.randint(len(OPERATIONS), (90,), generator=random)
    level = 2 * torch.rand(90, generator=random) - 1
    seen = apply_operation(given, operation, level)
    assert set(operation.tolist()) == set(range(len(PHOTOMETRIC) + len(GEOMETRIC)))
    for i in range(90):
        one = slice(i, i + 1)
        assert torch.equal(apply_operation(given[one], operation[one], level[one])[0], seen[i]), OPERATIONS[operation[i]]
    backwards = torch.arange(89, -1, -1)
    assert torch.equal(apply_operation(given[backwards], operation[backwards], level[backwards]), seen[backwards])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU's pixels with the CPU's")
def test_pixels_are_the_same_on_a_gpu():
    random = torch.Generator().manual_seed(0)
    given = images(400, height=32, width=32)
    operation = torch.randint(len(OPERATIONS), (400,), generator=random)
    level = 2 * torch.rand(400, generator=random) - 1
    assert torch.equal(apply_operation(given.cuda(), operation, level).cpu(), apply_operation(given, operation, level))
