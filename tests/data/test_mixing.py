"""Mixup and CutMix against plain NumPy and published draws; soft labels; what is mixed depends on seed, epoch and sample."""

import numpy as np
import pytest
import scipy.stats
import torch

from kdzoo.data.mixing import MixPlan, draw_mixes, mix, soft_targets
from kdzoo.runs.recipe import Recipe

SAMPLES, HEIGHT, WIDTH, CLASSES = 24, 9, 7, 5


def recipe(**changes) -> Recipe:
    return Recipe(epochs=1, batch_size=8, lr=0.1, **changes)


def drawn(samples: int = SAMPLES, *, height: int = HEIGHT, width: int = WIDTH, seed: int = 0, epoch: int = 0, **changes) -> MixPlan:
    found = draw_mixes(recipe(**changes), samples=samples, height=height, width=width, seed=seed, epoch=epoch)
    assert found is not None
    return found


def batch(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (SAMPLES, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=random)
    return images[index], (torch.arange(SAMPLES) * 7 % CLASSES)[index]


INDEX = torch.tensor([3, 20, 7, 0, 11, 5, 16, 9])


def test_mixup_is_the_weighted_mean_within_half_a_grey_level():
    mixes = drawn(mixup=0.8)
    images, _ = batch(INDEX)
    seen, share = mix(images, mixes, INDEX).numpy(), mixes.share.double().numpy()[INDEX.numpy()]
    assert len(set(share)) == len(INDEX)
    for i, got in enumerate(seen):
        mean = share[i] * images[i].double().numpy() + (1 - share[i]) * images[i - 1].double().numpy()
        assert np.abs(got - mean).max() <= 0.5 + 1e-4


def test_cutmix_pastes_a_box_of_one_image_into_the_other():
    mixes = drawn(cutmix=1.0)
    images, _ = batch(INDEX)
    seen = mix(images, mixes, INDEX).numpy()
    for i, sample in enumerate(INDEX.tolist()):
        top, bottom, left, right = mixes.box[sample].tolist()
        area = (bottom - top) * (right - left) / (HEIGHT * WIDTH)
        whole, piece = (images[i], images[i - 1]) if area <= 0.5 else (images[i - 1], images[i])
        expected = whole.clone()
        expected[:, top:bottom, left:right] = piece[:, top:bottom, left:right]
        np.testing.assert_array_equal(seen[i], expected.numpy())
        assert float(mixes.share[sample]) == pytest.approx(max(area, 1 - area))


@pytest.mark.parametrize("changes", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0, "mix_prob": 0.7}])
def test_shares_of_classes_are_the_images_and_sum_to_one_and_the_larger_is_the_hard_label(changes):
    mixes = drawn(**changes)
    _, targets = batch(INDEX)
    soft = soft_targets(targets, mixes, INDEX, CLASSES)
    expected = np.zeros((len(INDEX), CLASSES))
    for i, sample in enumerate(INDEX.tolist()):
        expected[i, targets[i]] += float(mixes.share[sample])
        expected[i, targets[i - 1]] += 1 - float(mixes.share[sample])
    np.testing.assert_allclose(soft.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(soft.sum(1).numpy(), 1, atol=1e-6)
    assert torch.equal(soft.gather(1, targets[:, None])[:, 0], soft.amax(1))


def test_an_image_without_a_label_has_a_share_of_no_class():
    mixes = drawn(mixup=1.0)
    _, targets = batch(INDEX)
    targets[2] = -1
    share = mixes.share[INDEX]
    labelled = torch.ones(len(INDEX))
    labelled[2], labelled[3] = 1 - share[2], share[3]
    np.testing.assert_allclose(soft_targets(targets, mixes, INDEX, CLASSES).sum(1).numpy(), labelled.numpy(), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_mixups_share_is_the_larger_part_of_a_beta_draw(alpha):
    share = drawn(5000, mixup=alpha).share.double().numpy()
    edges = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0])
    below = scipy.stats.beta(alpha, alpha).cdf
    expected = np.diff(below(edges) - below(1 - edges))
    assert scipy.stats.chisquare(np.histogram(share, edges)[0], 5000 * expected).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_cutmix_boxes_are_spread_as_in_the_published_code(alpha):
    """Its rand_bbox, drawn by NumPy: areas, corners and centres have the same distribution."""
    random, count, height, width = np.random.default_rng(0), 5000, 32, 24
    ratio = np.sqrt(1 - random.beta(alpha, alpha, count))
    cut_h, cut_w = (height * ratio).astype(int), (width * ratio).astype(int)
    y, x = random.integers(height, size=count), random.integers(width, size=count)
    theirs = np.stack(
        [
            np.clip(y - cut_h // 2, 0, height),
            np.clip(y + cut_h // 2, 0, height),
            np.clip(x - cut_w // 2, 0, width),
            np.clip(x + cut_w // 2, 0, width),
        ],
        axis=1,
    )
    mine = drawn(count, height=height, width=width, cutmix=alpha).box.numpy()
    for edge in range(4):
        assert scipy.stats.ks_2samp(mine[:, edge], theirs[:, edge]).pvalue > 0.01
    areas = [(boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) for boxes in (mine, theirs)]
    assert scipy.stats.ks_2samp(*areas).pvalue > 0.01


def test_so_many_are_mixed_half_of_them_in_each_way_and_the_others_stay():
    mixes = drawn(20_000, mixup=0.5, cutmix=1.0, mix_prob=0.6, height=32, width=32)
    cut = (mixes.inside != mixes.outside).double().mean()
    up = ((mixes.inside == mixes.outside) & (mixes.share < 1)).double().mean()
    assert float(up) == pytest.approx(0.3, abs=0.02)
    assert 0.25 < float(cut) < 0.31  # a box may be empty, or lie outside
    alone = mixes.share == 1
    images, targets = batch(torch.arange(SAMPLES))
    left = torch.nonzero(alone)[:SAMPLES, 0]
    assert torch.equal(mix(images, mixes, left), images)
    assert torch.equal(soft_targets(targets, mixes, left, CLASSES), torch.nn.functional.one_hot(targets, CLASSES).float())


def test_draws_repeat_and_differ_between_seeds_and_epochs_and_neither_way_disturbs_the_other():
    def shares(**changes):
        return tuple(drawn(mixup=0.4, **changes).share.tolist())

    assert shares() == shares()
    assert len({shares(), shares(seed=1), shares(epoch=1)}) == 3
    alone, both = drawn(mixup=0.4), drawn(mixup=0.4, cutmix=1.0)
    up = (both.inside == both.outside) & (both.share < 1)
    assert up.any()
    assert torch.equal(both.share[up], alone.share[up])
    cut = both.inside != both.outside
    assert cut.any()
    assert torch.equal(both.box[cut], drawn(cutmix=1.0).box[cut])


def test_a_recipe_without_mixing_draws_nothing():
    assert draw_mixes(recipe(), samples=9, height=8, width=8, seed=0, epoch=0) is None
