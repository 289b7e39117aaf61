"""Views: pure functions of seed, epoch and sample; crops and flips against plain NumPy; batches in a drawn order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as T

from kdzoo.data.loader import batches, order, steps_per_epoch
from kdzoo.data.views import apply, center, draw, view_code
from kdzoo.spec import Augment


def images(samples=9, channels=3, height=7, width=5, seed=0) -> torch.Tensor:
    return torch.randint(0, 256, (samples, channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4), st.sampled_from(["zero", "reflect"]), st.booleans(), st.sampled_from([1, 3]), st.integers(5, 9), st.integers(5, 9)
)
def test_pad_crop_and_flip_are_numpys(pad, padding, flip, channels, height, width):
    augment = Augment(crop="pad", pad=pad, padding=padding, flip=flip)
    pixels = images(channels=channels, height=height, width=width)
    views = draw(augment, samples=len(pixels), height=height, width=width, seed=1, epoch=2)
    seen = apply(pixels, views, torch.arange(len(pixels)), augment).numpy()
    for i, image in enumerate(pixels.numpy()):
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="constant" if padding == "zero" else "reflect")
        top, left = int(views.top[i]), int(views.left[i])
        expected = padded[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(seen[i], expected[:, :, ::-1] if views.flip[i] else expected)


def test_all_offsets_and_both_flips_are_drawn():
    augment = Augment(crop="pad", pad=1, flip=True)
    views = draw(augment, samples=2000, height=8, width=8, seed=0, epoch=0)
    codes = view_code(views, augment)
    assert set(codes.tolist()) == set(range(3 * 3 * 2))


def test_a_resized_crop_is_torchvisions_within_two_grey_levels():
    augment = Augment(crop="resized", size=16, min_area=0.3, flip=True)
    pixels = torch.nn.functional.interpolate(images(height=9, width=9).float(), size=(40, 32), mode="bilinear").to(torch.uint8)
    views = draw(augment, samples=len(pixels), height=40, width=32, seed=0, epoch=0)
    seen = apply(pixels, views, torch.arange(len(pixels)), augment)
    for i, image in enumerate(pixels):
        box = [int(part[i]) for part in (views.top, views.left, views.height, views.width)]
        expected = T.resized_crop(image.float(), *box, size=[16, 16], antialias=False)
        expected = expected.flip(-1) if views.flip[i] else expected
        inner = (seen[i].float() - expected).abs()[:, 1:-1, 1:-1]  # torchvision repeats the crop's border, sampling looks past it
        assert float(inner.max()) <= 2


@pytest.mark.parametrize("augment", [Augment(crop="pad", pad=2, flip=True), Augment(crop="resized", size=6, flip=True)])
def test_how_a_sample_looks_depends_on_no_batch(augment):
    pixels = images(samples=20, height=8, width=8)
    views = draw(augment, samples=20, height=8, width=8, seed=3, epoch=4)
    whole = apply(pixels, views, torch.arange(20), augment)
    for index in (torch.tensor([7]), torch.tensor([19, 0, 7])):
        assert torch.equal(apply(pixels[index], views, index, augment), whole[index])


def test_epochs_seeds_and_streams_look_different_and_repeat():
    augment = Augment(crop="pad", pad=4, flip=True)

    def codes(seed, epoch, stream="view"):
        return view_code(draw(augment, samples=100, height=8, width=8, seed=seed, epoch=epoch, stream=stream), augment).tolist()

    assert codes(0, 0) == codes(0, 0)
    assert len({tuple(c) for c in (codes(0, 0), codes(0, 1), codes(1, 0), codes(0, 0, "second view"))}) == 4


def test_without_augmentation_images_are_left_alone():
    pixels = images()
    views = draw(Augment(), samples=len(pixels), height=7, width=5, seed=0, epoch=0)
    assert torch.equal(apply(pixels, views, torch.arange(len(pixels)), Augment()), pixels)
    assert torch.equal(center(pixels, Augment()), pixels)


def test_evaluation_takes_the_central_square():
    pixels = images(height=12, width=10)
    assert torch.equal(center(pixels, Augment(crop="resized", size=8)), pixels[..., 2:10, 1:9])
    assert center(pixels, Augment(crop="resized", size=16)).shape[-2:] == (16, 16)


@given(st.integers(2, 300), st.integers(2, 64), st.integers(0, 9))
def test_batches_cover_an_epoch_once_but_for_a_lonely_last_sample(samples, size, epoch):
    found = list(batches(samples, size, 0, epoch))
    assert len(found) == steps_per_epoch(samples, size)
    index = torch.cat(found)
    assert len(index) == len(set(index.tolist())) >= samples - 1
    assert all(len(batch) > 1 for batch in found)
    assert torch.equal(index, order(samples, 0, epoch)[: len(index)])


@given(st.integers(10, 100), st.integers(2, 20), st.integers(0, 4))
def test_a_resumed_epoch_goes_on_with_the_very_next_batch(samples, size, start):
    whole, rest = list(batches(samples, size, 0, 1)), list(batches(samples, size, 0, 1, start=start))
    assert len(rest) == max(len(whole) - start, 0)
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], rest, strict=True))
