"""Views: pure functions of seed, epoch and sample; crops and flips against plain NumPy; batches in a drawn order."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as T

from kdzoo.data import operations
from kdzoo.data.epoch import batches, order
from kdzoo.data.operations import OPERATIONS
from kdzoo.data.views import apply_views, draw_views, evaluation_view, has_numbered_views, view_number
from kdzoo.runs.recipe import Augment, Recipe, steps_per_epoch

EVERYTHING = {"brightness": 0.4, "contrast": 0.3, "saturation": 1.5, "randaugment": 2, "magnitude": 15.0, "cutout": 3}


def images(samples=9, channels=3, height=7, width=5, seed=0) -> torch.Tensor:
    return torch.randint(0, 256, (samples, channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40)
@given(
    st.integers(1, 4), st.sampled_from(["zero", "reflect"]), st.booleans(), st.sampled_from([1, 3]), st.integers(5, 9), st.integers(5, 9)
)
def test_pad_crop_and_flip_are_numpys(pad, padding, flip, channels, height, width):
    augment = Augment(crop="pad", pad=pad, padding=padding, flip=flip)
    pixels = images(channels=channels, height=height, width=width)
    views = draw_views(augment, samples=len(pixels), height=height, width=width, seed=1, epoch=2)
    seen = apply_views(pixels, views, torch.arange(len(pixels)), augment).numpy()
    for i, image in enumerate(pixels.numpy()):
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="constant" if padding == "zero" else "reflect")
        top, left = int(views.top[i]), int(views.left[i])
        expected = padded[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(seen[i], expected[:, :, ::-1] if views.flip[i] else expected)


def test_all_offsets_and_both_flips_are_drawn():
    augment = Augment(crop="pad", pad=1, flip=True)
    views = draw_views(augment, samples=2000, height=8, width=8, seed=0, epoch=0)
    codes = view_number(views, augment)
    assert set(codes.tolist()) == set(range(3 * 3 * 2))


def test_a_resized_crop_is_torchvisions_within_two_grey_levels():
    augment = Augment(crop="resized", size=16, min_area=0.3, flip=True)
    pixels = torch.nn.functional.interpolate(images(height=9, width=9).float(), size=(40, 32), mode="bilinear").to(torch.uint8)
    views = draw_views(augment, samples=len(pixels), height=40, width=32, seed=0, epoch=0)
    seen = apply_views(pixels, views, torch.arange(len(pixels)), augment)
    for i, image in enumerate(pixels):
        box = [int(part[i]) for part in (views.top, views.left, views.height, views.width)]
        expected = T.resized_crop(image.float(), *box, size=[16, 16], antialias=False)
        expected = expected.flip(-1) if views.flip[i] else expected
        inner = (seen[i].float() - expected).abs()[:, 1:-1, 1:-1]  # torchvision repeats the crop's border, sampling looks past it
        assert float(inner.max()) <= 2


@pytest.mark.parametrize(
    "augment",
    [
        Augment(crop="pad", pad=2, flip=True),
        Augment(crop="resized", size=6, flip=True),
        Augment(crop="pad", pad=2, flip=True, **EVERYTHING),
        Augment(crop="resized", size=6, flip=True, **EVERYTHING),
        Augment(**EVERYTHING),
    ],
)
def test_how_a_sample_looks_depends_on_no_batch(augment):
    pixels = images(samples=20, height=8, width=8)
    views = draw_views(augment, samples=20, height=8, width=8, seed=3, epoch=4)
    whole = apply_views(pixels, views, torch.arange(20), augment)
    for index in (torch.tensor([7]), torch.tensor([19, 0, 7])):
        assert torch.equal(apply_views(pixels[index], views, index, augment), whole[index])


def test_epochs_seeds_and_streams_look_different_and_repeat():
    augment = Augment(crop="pad", pad=4, flip=True)

    def codes(seed, epoch, stream="view"):
        return view_number(draw_views(augment, samples=100, height=8, width=8, seed=seed, epoch=epoch, stream=stream), augment).tolist()

    assert codes(0, 0) == codes(0, 0)
    assert len({tuple(c) for c in (codes(0, 0), codes(0, 1), codes(1, 0), codes(0, 0, "second view"))}) == 4


@pytest.mark.parametrize("base", [Augment(crop="pad", pad=2, flip=True), Augment(crop="resized", size=6, flip=True), Augment()])
@pytest.mark.parametrize("added", EVERYTHING)
def test_one_more_kind_of_augmentation_leaves_what_the_others_draw(base, added):
    def drawn(names):
        chosen = {name: value for name, value in EVERYTHING.items() if name in names and (name != "magnitude" or "randaugment" in names)}
        made = draw_views(base.model_copy(update=chosen), samples=50, height=8, width=8, seed=0, epoch=1)
        parts = {"top": made.top, "left": made.left, "flip": made.flip, "height": made.height, "width": made.width, "cut": made.cut}
        return parts | dict(made.colours) | {"operations": made.operations, "levels": made.levels}

    without, whole = drawn(set(EVERYTHING) - {added}), drawn(set(EVERYTHING))
    there = {name: value for name, value in without.items() if value is not None}
    assert len(there) >= 7
    same = {name for name in there if torch.equal(there[name], whole[name])}
    assert same == set(there) - ({"levels"} if added == "magnitude" else set())


def test_what_is_drawn_is_spread_as_it_should_be():
    samples, augment = 20_000, Augment(**EVERYTHING)
    views = draw_views(augment, samples=samples, height=10, width=6, seed=0, epoch=0)
    for name, (low, high) in {"brightness": (0.6, 1.4), "contrast": (0.7, 1.3), "saturation": (0.0, 2.5)}.items():
        assert scipy.stats.kstest(views.colours[name].numpy(), scipy.stats.uniform(low, high - low).cdf).pvalue > 0.01
    for part, choices in ((views.operations[:, 0], len(OPERATIONS)), (views.operations[:, 1], len(OPERATIONS)), (views.cut[:, 0], 10)):
        assert scipy.stats.chisquare(torch.bincount(part, minlength=choices).numpy()).pvalue > 0.01
    assert set(views.levels.flatten().tolist()) == {-0.5, 0.5}
    assert abs(float(views.levels.mean())) < 0.01
    together = views.operations[:, 0] * len(OPERATIONS) + views.operations[:, 1]
    assert scipy.stats.chisquare(torch.bincount(together, minlength=len(OPERATIONS) ** 2).numpy()).pvalue > 0.01


def test_colours_are_changed_in_order_then_operations_then_cutout():
    augment = Augment(**EVERYTHING)
    pixels = images(samples=30, height=9, width=9)
    index = torch.arange(30)
    views = draw_views(augment, samples=30, height=9, width=9, seed=0, epoch=0)
    seen = apply_views(pixels, views, index, augment)
    step = operations.brightness(pixels, views.colours["brightness"])
    step = operations.contrast(step, views.colours["contrast"])
    step = operations.saturation(step, views.colours["saturation"])
    for round_ in (0, 1):
        step = operations.apply_operation(step, views.operations[:, round_], views.levels[:, round_])
    assert torch.equal(operations.cutout(step, views.cut, 3), seen)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "randaugment", "cutout"])
def test_views_that_are_as_good_as_endless_have_no_number(name):
    augment = Augment(crop="pad", pad=1, flip=True, **{name: EVERYTHING[name]})
    assert view_number(draw_views(augment, samples=5, height=8, width=8, seed=0, epoch=0), augment) is None
    assert not has_numbered_views(Recipe(epochs=1, batch_size=2, lr=0.1, augment=augment))


def test_what_the_cache_may_remember_by_number():
    crops = Augment(crop="pad", pad=1, flip=True)
    given = {"epochs": 1, "batch_size": 2, "lr": 0.1}
    assert has_numbered_views(Recipe(**given))
    assert has_numbered_views(Recipe(**given, augment=crops))
    assert not has_numbered_views(Recipe(**given, augment=Augment(crop="resized", size=6)))
    assert not has_numbered_views(Recipe(**given, augment=crops, mixup=0.2))
    assert not has_numbered_views(Recipe(**given, augment=crops, cutmix=1.0))


def test_without_augmentation_images_are_left_alone():
    pixels = images()
    views = draw_views(Augment(), samples=len(pixels), height=7, width=5, seed=0, epoch=0)
    assert torch.equal(apply_views(pixels, views, torch.arange(len(pixels)), Augment()), pixels)
    assert torch.equal(evaluation_view(pixels, Augment()), pixels)


def test_evaluation_takes_the_central_square():
    pixels = images(height=12, width=10)
    assert torch.equal(evaluation_view(pixels, Augment(crop="resized", size=8)), pixels[..., 2:10, 1:9])
    assert evaluation_view(pixels, Augment(crop="resized", size=16)).shape[-2:] == (16, 16)


@given(st.integers(2, 300), st.integers(2, 64), st.integers(0, 9))
def test_batches_cover_an_epoch_once_but_for_a_lonely_last_sample(samples, size, epoch):
    found = list(batches(samples, size, 0, epoch))
    assert len(found) == steps_per_epoch(samples, size)
    index = torch.cat(found)
    assert len(index) == len(set(index.tolist())) >= samples - 1
    assert all(len(batch) > 1 for batch in found)
    assert torch.equal(index, order(samples, 0, epoch)[: len(index)])


@given(st.integers(1, 300), st.integers(2, 64), st.integers(0, 9))
def test_short_last_batches_are_dropped_where_a_recipe_says_so(samples, size, epoch):
    """All others are the very batches of an epoch that drops none; fewer images than a batch are one batch."""
    every, found = list(batches(samples, size, 0, epoch)), list(batches(samples, size, 0, epoch, drop_last=True))
    assert len(found) == steps_per_epoch(samples, size, drop_last=True) == max(samples // size, 1)
    assert all(torch.equal(a, b) for a, b in zip(every, found, strict=False))
    assert {len(batch) for batch in found} == {min(samples, size)}


def test_images_that_are_left_out_are_others_until_the_orders_repeat():
    """70 images in batches of 32, of which 6 are left out of an epoch."""

    def left_out(recipe, epoch):
        drawn = batches(70, recipe.batch_size, 0, recipe.drawn_as(epoch), drop_last=recipe.drop_last)
        return set(range(70)) - set(torch.cat(list(drawn)).tolist())

    once, again = (Recipe(epochs=9, batch_size=32, lr=0.1, drop_last=True, view_epochs=count) for count in (None, 3))
    every = [left_out(once, epoch) for epoch in range(9)]
    assert [len(some) for some in every] == [6] * 9
    assert len(set.union(*every)) > 30
    assert [left_out(again, epoch) for epoch in range(9)] == every[:3] * 3


@given(st.integers(10, 100), st.integers(2, 20), st.integers(0, 4))
def test_a_resumed_epoch_goes_on_with_the_very_next_batch(samples, size, start):
    whole, rest = list(batches(samples, size, 0, 1)), list(batches(samples, size, 0, 1, start=start))
    assert len(rest) == max(len(whole) - start, 0)
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], rest, strict=True))
