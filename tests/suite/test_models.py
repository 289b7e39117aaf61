"""Two models on the same images: counts by hand, the test by scipy, the interval by its known variance."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from kdzoo.errors import InputError
from kdzoo.runs.predictions import Predictions, write_predictions
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.report.two_models import compare_models

TARGETS = np.arange(1000) % 10
KEYS = np.random.default_rng(0).integers(0, 256, size=(1000, 16), dtype=np.uint8)


def kept(folder: Path, seed: int, wrong: np.ndarray, keys=KEYS, targets=TARGETS) -> RunFolder:
    """A run's folder with predictions that are right but where `wrong` says otherwise."""
    run = Run(
        student=NetworkSpec(name="resnet8", classes=10),
        teacher=None,
        data=DataSpec(name="x", fingerprint="f00d", classes=10),
        recipe=Recipe(epochs=1, batch_size=8, lr=0.1),
        objective=ObjectiveSpec(task=1.0),
        seed=seed,
    )
    place = Store(folder).run(run.id)
    place.plan(run, {})
    named = np.where(wrong, (targets + 1) % 10, targets)
    log_probs = np.full((len(targets), 10), -5.0, dtype=np.float32)
    log_probs[np.arange(len(targets)), named] = -0.1
    write_predictions(place.predictions, {"test": Predictions(log_probs, targets, keys)}, run.id)
    return place


FIRST_WRONG = np.arange(1000) < 100
SECOND_WRONG = (np.arange(1000) >= 80) & (np.arange(1000) < 130)


def test_counts_differences_and_the_exact_test(tmp_path):
    found = compare_models(kept(tmp_path, 0, FIRST_WRONG), kept(tmp_path, 1, SECOND_WRONG))
    assert (found.first_right, found.second_right) == (0.9, 0.95)
    assert (found.only_first, found.only_second) == (30, 80)
    assert found.difference == pytest.approx(0.05)
    assert found.p == pytest.approx(scipy.stats.binomtest(30, 110).pvalue)
    half = 1.96 * math.sqrt((110 / 1000 - 0.05**2) / 1000)
    assert (found.low, found.high) == pytest.approx((0.05 - half, 0.05 + half), abs=2e-3)
    assert "not their methods" in str(found)
    assert "Left out" not in str(found)


def test_images_are_paired_by_what_they_are_not_by_where_they_stand(tmp_path):
    order = np.random.default_rng(1).permutation(1000)
    found = compare_models(kept(tmp_path, 0, FIRST_WRONG), kept(tmp_path, 1, SECOND_WRONG[order], KEYS[order], TARGETS[order]))
    assert (found.only_first, found.only_second) == (30, 80)


def test_the_same_image_twice_is_two_images(tmp_path):
    keys = np.concatenate([KEYS[:500], KEYS[:500]])
    targets = np.concatenate([TARGETS[:500], TARGETS[:500]])
    found = compare_models(kept(tmp_path, 0, FIRST_WRONG, keys, targets), kept(tmp_path, 1, SECOND_WRONG, keys, targets))
    assert (found.images, found.only_first, found.only_second) == (1000, 30, 80)


def test_images_that_one_alone_was_tested_on_are_left_out_and_told(tmp_path):
    part = np.arange(50, 1000)
    found = compare_models(kept(tmp_path, 0, FIRST_WRONG), kept(tmp_path, 1, SECOND_WRONG[part], KEYS[part], TARGETS[part]))
    assert (found.images, found.only_first, found.only_second) == (950, 30, 30)
    assert "50 images that only" in str(found)


def test_other_images_other_labels_and_missing_predictions_are_refused(tmp_path):
    nothing = np.zeros(1000, dtype=bool)
    first = kept(tmp_path, 0, nothing)
    with pytest.raises(InputError, match="tested on different images"):
        compare_models(first, kept(tmp_path, 1, nothing, KEYS[::-1] ^ 255))
    with pytest.raises(InputError, match="the same images under other labels"):
        compare_models(first, kept(tmp_path, 2, nothing, targets=(TARGETS + 1) % 10))
    lost = kept(tmp_path, 3, nothing)
    lost.predictions.unlink()
    with pytest.raises(InputError, match="no predictions kept"):
        compare_models(first, lost)


def test_damaged_predictions_of_both_are_named_in_a_line_each(tmp_path):
    nothing = np.zeros(1000, dtype=bool)
    first, second = kept(tmp_path, 0, nothing), kept(tmp_path, 1, nothing)
    first.predictions.write_bytes(first.predictions.read_bytes()[:-1000])
    second.predictions.write_bytes(first.predictions.read_bytes()[::-1])
    with pytest.raises(InputError) as refused:
        compare_models(first, second)
    for folder, problem in zip((first, second), refused.value.problems, strict=True):
        assert str(folder.predictions) in problem
        assert "\n" not in problem
