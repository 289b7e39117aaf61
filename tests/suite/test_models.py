"""Two models on the same images: counts by hand, the test by scipy, the interval by its known variance."""

import math

import numpy as np
import pytest
import scipy.stats

from kdzoo.errors import InputError
from kdzoo.spec import DataSpec, NetworkSpec, ObjectiveSpec, Recipe, Run
from kdzoo.store import Store
from kdzoo.suite.models import compare_models

TARGETS = np.arange(1000) % 10


def kept(folder, seed: int, wrong: np.ndarray, fingerprint: str = "f00d", targets=TARGETS):
    """A run's folder with predictions that are right but where `wrong` says otherwise."""
    run = Run(
        student=NetworkSpec(name="resnet8", classes=10),
        teacher=None,
        data=DataSpec(name="x", fingerprint=fingerprint, classes=10),
        recipe=Recipe(epochs=1, batch_size=8, lr=0.1),
        objective=ObjectiveSpec(task=1.0),
        seed=seed,
    )
    place = Store(folder).run(run.id)
    place.plan(run, {})
    named = np.where(wrong, (targets + 1) % 10, targets)
    log_probs = np.full((len(targets), 10), -5.0, dtype=np.float16)
    log_probs[np.arange(len(targets)), named] = -0.1
    np.savez(place.predictions, test=log_probs, test_targets=targets)
    return place


def test_counts_differences_and_the_exact_test(tmp_path):
    first = kept(tmp_path, 0, np.arange(1000) < 100)
    second = kept(tmp_path, 1, (np.arange(1000) >= 80) & (np.arange(1000) < 130))
    found = compare_models(first, second)
    assert (found.first_top1, found.second_top1) == (0.9, 0.95)
    assert (found.only_first, found.only_second) == (30, 80)
    assert found.difference == pytest.approx(0.05)
    assert found.p == pytest.approx(scipy.stats.binomtest(30, 110).pvalue)
    half = 1.96 * math.sqrt((110 / 1000 - 0.05**2) / 1000)
    assert (found.low, found.high) == pytest.approx((0.05 - half, 0.05 + half), abs=2e-3)
    assert "not their methods" in str(found)


def test_other_images_and_missing_predictions_are_refused(tmp_path):
    nothing = np.zeros(1000, dtype=bool)
    first = kept(tmp_path, 0, nothing)
    with pytest.raises(InputError, match="tested on different images"):
        compare_models(first, kept(tmp_path, 1, nothing, fingerprint="beef"))
    lost = kept(tmp_path, 2, nothing)
    lost.predictions.unlink()
    with pytest.raises(InputError, match="no predictions kept"):
        compare_models(first, lost)
