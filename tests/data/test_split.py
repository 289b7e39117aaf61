"""Splits: disjoint, covering, stratified, and a pure function of content and seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.data.canonical import Raw, make_dataset
from kdzoo.data.loader import move_if_fits
from kdzoo.data.sources import load
from kdzoo.data.split import split, stratified
from kdzoo.errors import InputError
from kdzoo.runs.spec import DataSpec


def images(seed=0, samples=200, classes=4):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (samples, 4, 4, 3), dtype=np.uint8)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, samples - classes)])
    return make_dataset("x", Raw((pixels, labels), (pixels[:20], labels[:20]), tuple(map(str, range(classes)))))


def spec(made, **changes) -> DataSpec:
    return DataSpec(name=made.name, fingerprint=made.fingerprint, classes=len(made.classes), **changes)


def keys(subset) -> set[bytes]:
    return {image.numpy().tobytes() for image in subset.images}


@settings(max_examples=30)
@given(st.integers(0, 99), st.floats(0.05, 0.6), st.integers(0, 99))
def test_train_and_val_are_disjoint_and_cover_the_train_set(seed, fraction, split_seed):
    made = images(seed)
    parts = split(made, spec(made, val_fraction=fraction, split_seed=split_seed))
    assert keys(parts.train).isdisjoint(keys(parts.val))
    assert keys(parts.train) | keys(parts.val) == keys(made.train)
    assert torch.equal(made.train.targets[parts.original_index], parts.train.targets)
    assert set(parts.val.targets.tolist()) == set(range(4))


@settings(max_examples=40)
@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.floats(0.2, 0.9), st.integers(0, 99))
def test_a_stratified_draw_takes_each_class_in_its_share(sizes, share, seed):
    targets = torch.cat([torch.full((n,), label) for label, n in enumerate(sizes)])
    count = max(round(share * len(targets)), len(sizes))
    drawn = stratified(targets, count, seed, "x")
    assert len(drawn) == len(set(drawn.tolist())) == count
    for label, n in enumerate(sizes):
        assert abs(int((targets[drawn] == label).sum()) - count * n / len(targets)) <= max(1.0, len(sizes) - 1)


def test_the_same_seed_draws_the_same_and_another_another():
    made = images()
    first, second, other = (split(made, spec(made, val_fraction=0.2, split_seed=s)) for s in (0, 0, 1))
    assert torch.equal(first.val.images, second.val.images)
    assert not torch.equal(first.val.images, other.val.images)


def test_limit_and_label_fraction_do_what_they_say():
    digits = load("digits")
    parts = split(digits, spec(digits, limit=500, val_fraction=0.2, label_fraction=0.25))
    assert len(parts.train.targets) + len(parts.val.targets) == 500
    assert int((parts.train.targets >= 0).sum()) == round(0.25 * len(parts.train.targets))
    assert int((parts.val.targets < 0).sum()) == int((parts.test.targets < 0).sum()) == 0
    assert parts.facts.samples == len(parts.train.targets)


def test_samples_keep_their_keys_wherever_they_are_put():
    made = images()
    known = {image.numpy().tobytes(): key.tolist() for image, key in zip(made.train.images, made.train.keys, strict=True)}
    parts = split(made, spec(made, val_fraction=0.2, limit=150, label_fraction=0.5))
    for part in (parts.train, parts.val):
        assert [known[image.numpy().tobytes()] for image in part.images] == part.keys.tolist()
    assert torch.equal(move_if_fits(parts, torch.device("cpu"), 10**9).val.keys, parts.val.keys)


def test_nothing_is_held_out_at_fraction_zero():
    made = images()
    parts = split(made, spec(made, val_fraction=0.0))
    assert parts.val is None
    assert keys(parts.train) == keys(made.train)


@pytest.mark.parametrize("limit", [3, 201])
def test_a_limit_that_cannot_be_served_is_refused(limit):
    made = images()
    with pytest.raises(InputError, match=r"limit: expected 4 \(one per class\) to 200"):
        split(made, spec(made, limit=limit))
