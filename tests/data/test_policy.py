"""timm's policies and random erasing: timm's own pixels for the same draws, and a pure function of (seed, epoch, sample)."""

import random
import threading

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from timm.data.random_erasing import RandomErasing

from kdzoo.contract.needs import Pass
from kdzoo.data.epoch import EpochPlan, Shard
from kdzoo.data.policy import apply_policy
from kdzoo.data.sources import load
from kdzoo.data.split import Splits, split
from kdzoo.data.views import apply_views, draw_views
from kdzoo.errors import InputError
from kdzoo.runs.fields import parse
from kdzoo.runs.policy_text import POLICIES, canonical_policy
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import DataSpec, Normalisation

NORM = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
TEXTS = [
    "rand-m9-mstd0.5-inc1",
    "rand-m7-n3-p0.8-tweights",
    "augmix-m5-w2-d2",
    "augmix-b1",
    "original-mstd0.5",
    "v0",
    "v0r",
    "originalr",
    "3a",
]
BLACK_IN_NEW_PILLOW = ("v0", "rand", "augmix")
"""policies that may posterise to no bits at all, for which newer versions of Pillow raise an error within timm"""


def photos(count: int, side: int = 40) -> torch.Tensor:
    """Parts of a real photograph, (count, 3, side, side) uint8."""
    photo = torch.from_numpy(load_sample_images().images[0].copy()).permute(2, 0, 1)
    return torch.stack([photo[:, 7 * number : 7 * number + side, 11 * number : 11 * number + side] for number in range(count)])


def by_timm(image: torch.Tensor, text: str, seed: int) -> torch.Tensor | None:
    """An image (3, H, W) through timm's own transform as `timm.data.create_transform` makes it; None where Pillow refuses it."""
    settings_ = {"translate_const": int(min(image.shape[1:]) * 0.45), "img_mean": (128, 102, 76)}
    make = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}.get(text.partition("-")[0], auto_augment_transform)
    if text.startswith("augmix"):
        settings_["translate_pct"] = 0.3
    policy = make(text, settings_)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        return torch.from_numpy(np.array(policy(Image.fromarray(image.permute(1, 2, 0).numpy())))).permute(2, 0, 1)
    except ValueError as error:
        if "bits" in str(error) and text.startswith(BLACK_IN_NEW_PILLOW):
            return None
        raise


@pytest.mark.parametrize("text", TEXTS)
def test_pixels_are_timms_own_for_the_same_draws(text):
    images, seeds = photos(20), torch.arange(20) * 123_456_789_012 + 5
    python, legacy = random.getstate(), np.random.get_state()[1].tolist()
    seen = apply_policy(images, text, seeds, NORM.mean)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == (python, legacy)
    theirs = [by_timm(image, text, seed) for image, seed in zip(images, seeds.tolist(), strict=True)]
    compared = [(ours, other) for ours, other in zip(seen, theirs, strict=True) if other is not None]
    assert len(compared) >= 15
    assert all(torch.equal(ours, other) for ours, other in compared)
    assert (seen != images).flatten(1).any(1).sum() >= 8


def test_an_image_without_bits_is_black():
    """v0 posterises four images in a hundred to no bits; what is done to them before and after leaves them of one colour."""
    images = photos(1).expand(400, -1, -1, -1)
    seen = apply_policy(images, "v0", torch.arange(400), NORM.mean)
    refused = [seed for seed in range(400) if by_timm(images[0], "v0", seed) is None]
    newest = [seed for seed in range(400) if len(seen[seed].unique()) == 1]
    assert set(refused) <= set(newest)
    assert 4 <= len(newest) <= 30


def test_grey_images_are_those_of_three_equal_channels():
    grey, seeds = photos(12).float().mean(1, keepdim=True).to(torch.uint8), torch.arange(12)
    for text in TEXTS:
        in_colour = apply_policy(grey.expand(-1, 3, -1, -1), text, seeds, (0.4, 0.4, 0.4))
        assert torch.equal(apply_policy(grey, text, seeds, (0.4,)), in_colour[:, :1]), text


@pytest.fixture(scope="module")
def parts() -> Splits:
    images = load("digits")
    return split(images, DataSpec(name="digits", fingerprint=images.fingerprint, classes=10, limit=60, val_fraction=0))


AUGMENT = Augment(crop="pad", pad=1, auto_augment="rand-m9-mstd0.5-inc1", erase=0.5, erase_fill="noise")


def seen_by_sample(parts: Splits, batch_size: int, shard: Shard, start: int = 0, **changes: int) -> dict[int, bytes]:
    """The pixels of every sample of an epoch that a shard sees, from batch number `start` on, with torch's threads as they are."""
    at = {"seed": 3, "epoch": 1, **changes}
    plan = EpochPlan(parts, Recipe(epochs=2, batch_size=batch_size, lr=0.1, augment=AUGMENT), passes=Pass.FIRST, shard=shard, **at)
    seen = {}
    for loaded in plan.batches(start):
        pixels = plan.gather(loaded, clock=None)[0][Pass.FIRST]
        seen |= {sample: image.numpy().tobytes() for sample, image in zip(loaded.index.tolist(), pixels, strict=True)}
    return seen


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 60), st.integers(1, 4), st.integers(0, 3))
def test_pixels_depend_neither_on_batches_nor_on_processes_nor_on_where_an_epoch_is_resumed(parts, batch_size, processes, start):
    whole = seen_by_sample(parts, 60, Shard())
    apart: dict[int, bytes] = {}
    for rank in range(processes):
        apart |= seen_by_sample(parts, batch_size, Shard(rank, processes), start)
    assert apart.items() <= whole.items()
    left = 60 - start * batch_size
    assert len(apart) in ({left, left - (60 % batch_size == 1)} if left > 1 else {0})


def test_seeds_and_epochs_look_different_and_repeat(parts):
    first = seen_by_sample(parts, 20, Shard())
    assert seen_by_sample(parts, 20, Shard()) == first
    for changes in ({"seed": 4}, {"epoch": 0}):
        other = seen_by_sample(parts, 20, Shard(), **changes)
        assert sum(other[sample] != first[sample] for sample in first) > 50


def test_a_thread_that_draws_from_the_global_generators_changes_no_pixel(parts):
    quiet, over = seen_by_sample(parts, 20, Shard()), threading.Event()

    def draw() -> None:
        while not over.is_set():
            random.seed(random.randrange(9))
            np.random.seed(np.random.randint(9))

    noisy = threading.Thread(target=draw)
    noisy.start()
    try:
        assert seen_by_sample(parts, 20, Shard()) == quiet
    finally:
        over.set()
        noisy.join()


def test_what_is_erased_is_spread_as_by_timm():
    """Areas, aspects and corners of 1,500 rectangles of each."""
    side, count = 64, 3000
    views = draw_views(Augment(erase=0.5), samples=count, height=side, width=side, seed=0, epoch=0, norm=NORM)
    random.seed(0)
    eraser = RandomErasing(0.5, device="cpu")
    theirs = []
    for _ in range(count):
        erased = (eraser(torch.ones(1, side, side))[0] == 0).nonzero()
        theirs.append([0, 0, 0, 0] if not len(erased) else [*erased.min(0).values.tolist(), *(erased.max(0).values + 1).tolist()])
    top, left, bottom, right = torch.tensor(theirs).unbind(1)
    other = torch.stack([top, bottom, left, right], 1)

    def measured(boxes: torch.Tensor) -> list[torch.Tensor]:
        boxes = boxes[boxes[:, 1] > boxes[:, 0]]
        assert abs(len(boxes) / count - 0.5) < 0.03
        height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
        assert int((height * width).max()) <= side**2 * (1 / 3) + side
        return [height * width, (height / width).log(), boxes[:, 0], boxes[:, 2]]

    for ours, of_timm in zip(measured(views.rectangles), measured(other), strict=True):
        assert scipy.stats.ks_2samp(ours.numpy(), of_timm.numpy()).pvalue > 0.01


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_a_rectangle_is_filled_and_nothing_else_changes(fill):
    images = photos(40)
    augment = Augment(erase=1, erase_fill=fill)
    views = draw_views(augment, samples=40, height=40, width=40, seed=0, epoch=0, norm=NORM)
    seen = apply_views(images, views, torch.arange(40), augment)
    inside = torch.zeros(40, 1, 40, 40, dtype=torch.bool)
    for number, (top, bottom, left, right) in enumerate(views.rectangles.tolist()):
        inside[number, 0, top:bottom, left:right] = True
    assert torch.equal(seen.where(~inside, 0), images.where(~inside, 0))
    filled = seen.transpose(0, 1)[:, inside[:, 0]].double()
    if fill == "mean":
        assert filled.unique(dim=1).flatten().tolist() == [128, 102, 76]
    else:
        assert torch.allclose(filled.mean(1), torch.tensor([127.5, 102.0, 77.5]).double(), atol=3)
        assert torch.allclose(filled.std(1), torch.full((3,), 51.0).double(), atol=4)


def test_texts_that_mean_the_same_are_one():
    for text in TEXTS:
        assert canonical_policy(text) == text
    same = ["rand-m9-mstd0.5-inc1", "rand-inc1-m9-mstd0.5", "rand-mstd0.50-n2-m9-inc1-mmax10-p0.5"]
    assert {canonical_policy(text) for text in same} == {same[0]}
    assert canonical_policy("rand-m10") == "rand"
    assert canonical_policy("augmix-m3-w3-b0") == "augmix"
    assert canonical_policy("rand-inc1-tweights") == canonical_policy("rand-tweights") == "rand-tweights"
    recipes = [Recipe(epochs=1, batch_size=2, lr=0.1, augment=Augment(auto_augment=text)) for text in same]
    assert len({recipe.canonical_text for recipe in recipes}) == 1


SECTIONS = st.from_regex(r"(m|n|p|w|d|a|b|mstd|mmax|inc)\d{1,2}(\.\d)?|t(weights|3a)", fullmatch=True)


@given(st.sampled_from(sorted(POLICIES)), st.lists(SECTIONS, max_size=4))
def test_whatever_is_taken_timm_takes_too_and_it_means_itself(head, sections):
    try:
        text = canonical_policy("-".join([head, *sections]))
    except ValueError:
        return
    assert canonical_policy(text) == text
    assert apply_policy(photos(1, 8), text, torch.tensor([0]), NORM.mean).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        (
            {"auto_augment": "rnd-m9"},
            ["augment.auto_augment: unknown policy 'rnd-m9'; did you mean 'rand'?", "augmix", "rand-m9-mstd0.5-inc1"],
        ),
        ({"auto_augment": "rand-m9-x3"}, ["rand: unknown section 'x3'", "mstdNUMBER", "tNAME"]),
        ({"auto_augment": "rand-m99"}, ["m: expected a whole number from 0 to 30, got '99'"]),
        ({"auto_augment": "rand-m9.5"}, ["m: expected a whole number", "'9.5'"]),
        ({"auto_augment": "rand-m9-m8"}, ["'m' stands twice"]),
        ({"auto_augment": "rand-tall"}, ["expected t with one of weights, 3a, 3aw, got 'tall'"]),
        ({"auto_augment": "v0-m9"}, ["v0: unknown section 'm9'; it takes mstdNUMBER"]),
        ({"auto_augment": 9}, ["valid string, got 9"]),
        ({"erase": 2}, ["augment.erase: expected a number <= 1, got 2"]),
        ({"erase_fill": "noise"}, ["augment.erase_fill: expected augment.erase"]),
        ({"erase": 0.5, "erase_fill": "nose"}, ["did you mean 'noise'?"]),
    ],
)
def test_what_is_no_policy_is_told_with_what_is_one(given_, told):
    with pytest.raises(InputError) as refused:
        parse(Augment, given_, "augment")
    assert all(words in str(refused.value) for words in told), str(refused.value)


def test_views_that_are_filled_need_the_mean_of_the_data():
    for augment in (Augment(erase=0.1), Augment(auto_augment="v0")):
        with pytest.raises(ValueError, match="need the mean"):
            draw_views(augment, samples=2, height=8, width=8, seed=0, epoch=0)
        assert augment.moves
        assert not augment.has_few_views
        assert augment.of_pixels == ["erase" if augment.erase else "auto_augment"]
