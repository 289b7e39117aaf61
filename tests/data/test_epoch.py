"""An epoch's order, views, mixes and partners stand in one plan, which gives the same images whichever way they are asked for."""

import pytest
import torch

from kdzoo.contract.needs import Pass
from kdzoo.data.epoch import EpochPlan
from kdzoo.data.mixing import draw_mixes, mix
from kdzoo.data.sources import load
from kdzoo.data.split import Splits, split
from kdzoo.data.views import apply_views, draw_views
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import DataSpec

SAMPLES, BATCH, SEED, EPOCH = 50, 16, 7, 2
AUGMENT = Augment(crop="pad", pad=1, flip=True)
MIXED = {"mixup": 0.5, "cutmix": 1.0, "mix_prob": 0.8}


@pytest.fixture(scope="module")
def parts() -> Splits:
    images = load("digits")
    return split(images, DataSpec(name="digits", fingerprint=images.fingerprint, classes=10, limit=SAMPLES))


def planned(parts: Splits, **changes: object) -> EpochPlan:
    recipe = Recipe(epochs=4, batch_size=BATCH, lr=0.1, augment=AUGMENT, **changes)
    return EpochPlan(parts, recipe, SEED, EPOCH, Pass.SECOND_VIEW | Pass.PARTNER)


def test_the_batches_of_an_epoch_show_every_sample_once(parts):
    samples = len(parts.train.targets)
    batches = list(planned(parts).batches())
    assert torch.cat([batch.index for batch in batches]).sort().values.tolist() == list(range(samples))
    assert torch.cat([batch.positions for batch in batches]).tolist() == list(range(samples))
    assert len(batches[-1].index) == samples % BATCH > 0
    whole = list(planned(parts, drop_last=True).batches())
    assert [batch.index.tolist() for batch in whole] == [batch.index.tolist() for batch in batches[:-1]]


@pytest.mark.parametrize("changes", [{}, MIXED], ids=["plain", "mixed"])
def test_a_pass_shows_each_sample_as_the_streams_of_its_name_draw_it(parts, changes):
    """Against the drawing functions themselves, called with the names that are in every cache and checkpoint."""
    plan, images = planned(parts, **changes), parts.train.images

    loaded = next(iter(plan.batches(1)))
    inputs, batch = plan.gather(loaded, clock=None)
    samples, height, width = len(images), *images.shape[2:]
    at = {"samples": samples, "height": height, "width": width, "seed": SEED, "epoch": EPOCH}
    for which, stream in (("FIRST", "view"), ("SECOND_VIEW", "second view"), ("PARTNER", "partner view")):
        shown = plan.passes[Pass[which]].samples[loaded.index]
        expected = apply_views(images[shown], draw_views(AUGMENT, stream=stream, **at), shown, AUGMENT)
        if changes:
            expected = mix(expected, draw_mixes(plan.recipe, **at), loaded.index)
        assert torch.equal(inputs[Pass[which]], expected)
        assert torch.equal(plan.inputs_at(Pass[which], loaded.positions), expected)
        if which == "PARTNER":
            assert torch.equal(parts.train.targets[shown], batch.targets)
            assert not torch.equal(shown, loaded.index)


def test_any_positions_give_what_the_batches_gave_there(parts):
    """So a shard, or a teacher whose block is filled with rows of later batches, sees the very images that students see."""
    plan = planned(parts)
    at_once = {which: torch.cat([plan.gather(loaded, clock=None)[0][which] for loaded in plan.batches()]) for which in Pass}
    some = torch.randperm(len(plan.order), generator=torch.Generator().manual_seed(0))[:11]
    for which in Pass:
        assert torch.equal(plan.inputs_at(which, some), at_once[which][some])
    loaded = plan.load(some)
    assert torch.equal(loaded.index, plan.order[some])
    assert torch.equal(plan.gather(loaded, clock=None)[0][Pass.PARTNER], at_once[Pass.PARTNER][some])


def test_views_are_numbered_where_there_is_an_end_to_them(parts):
    plan = planned(parts)
    seen = plan.inputs_at(Pass.FIRST, torch.arange(len(plan.order)))
    views = plan.view_indices(Pass.FIRST)
    assert int(views.max()) < 3 * 3 * 2
    again = EpochPlan(parts, plan.recipe, SEED, EPOCH + 1, Pass.FIRST)
    later = again.inputs_at(Pass.FIRST, again.order.argsort())[plan.order]  # by sample, and back to this epoch's order
    same = again.view_indices(Pass.FIRST)[again.order.argsort()][plan.order] == views
    assert same.any()
    assert torch.equal(later[same], seen[same])
    assert planned(parts, **MIXED).view_indices(Pass.FIRST) is None
