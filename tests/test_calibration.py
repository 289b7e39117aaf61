"""The biases of classes that a transfer set lacked: as good as any that a search tries, on the data that they are chosen on."""

import itertools

import numpy as np
import pytest
import torch

import kdzoo as zoo


def scored(seed: int, samples: int = 120, classes: int = 5, lacking: tuple[int, ...] = (3,), by: float = 3.5):
    """Scores that mostly favour the right class, with the biases of some classes too low, and the targets."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, samples)
    logits = random.normal(size=(samples, classes)) * 1.5
    logits[np.arange(samples), targets] += 2
    logits[:, list(lacking)] -= by
    return logits, targets


def right(logits: np.ndarray, targets: np.ndarray, classes: tuple[int, ...], biases) -> int:
    moved = logits.copy()
    moved[:, list(classes)] += np.asarray(biases)
    return int((moved.argmax(1) == targets).sum())


def candidates(logits: np.ndarray, label: int) -> np.ndarray:
    """A bias between every two at which some prediction changes, and one beyond each end."""
    changes = np.sort((np.delete(logits, label, 1) - logits[:, [label]]).max(1))
    return np.concatenate([[changes[0] - 1], (changes[1:] + changes[:-1]) / 2, [changes[-1] + 1]])


@pytest.mark.parametrize("seed", range(20))
def test_one_bias_makes_as_many_predictions_right_as_the_best_of_all(seed):
    logits, targets = scored(seed)
    bias = zoo.calibrate_biases(logits, targets, [3])
    best = max(right(logits, targets, (3,), [one]) for one in candidates(logits, 3))
    assert right(logits, targets, (3,), bias) == best > right(logits, targets, (3,), [0.0])
    assert 0 < float(bias) < 7


@pytest.mark.parametrize("seed", range(10))
def test_of_several_biases_neither_one_alone_nor_all_together_can_be_bettered(seed):
    lacking = (1, 3)
    logits, targets = scored(seed, lacking=lacking)
    biases = zoo.calibrate_biases(logits, targets, lacking).numpy()
    found = right(logits, targets, lacking, biases)
    moved = logits.copy()
    moved[:, lacking] += biases
    for label in lacking:
        assert max(right(moved, targets, (label,), [one]) for one in candidates(moved, label)) == found
    assert max(right(moved, targets, lacking, [one, one]) for one in np.arange(-8, 8, 0.05)) == found
    everywhere = max(right(logits, targets, lacking, pair) for pair in itertools.product(np.arange(0, 7, 0.1), repeat=2))
    assert found >= 0.97 * everywhere


def test_a_bias_that_was_taken_away_is_found_again():
    """Without noise: every sample's own class leads by 2 until one class loses 3.5; then the bias is between 1.5 and 5.5."""
    targets = torch.arange(50) % 5
    logits = 2 * torch.nn.functional.one_hot(targets, 5).double()
    logits[:, 3] -= 3.5
    bias = zoo.calibrate_biases(logits, targets, [3])
    assert bias.tolist() == [3.5]
    logits[:, [3]] += bias
    assert torch.equal(logits.argmax(1), targets)
    assert zoo.calibrate_biases(logits, targets, [0, 3]).tolist() == [0.0, 0.0]


def test_a_class_that_only_takes_from_others_is_put_one_below_all_its_margins():
    """Its own sample is beyond reach: it would be right from a bias of 5 on, which makes the two others wrong."""
    logits = torch.tensor([[3.0, 2.0], [3.0, 2.0], [0.0, 5.0]])
    assert zoo.calibrate_biases(logits, torch.tensor([1, 1, 0]), [0]).tolist() == [-2.0]


def test_equal_scores_count_as_they_are_read():
    """Of two equal scores argmax names class 0, so that 1 is right without a bias, though all 3 are with one from -2 to 0."""
    logits, targets = np.array([[1.0, 1.0], [2.0, 0.0], [1.0, 1.0]]), np.array([1, 0, 1])
    bias = zoo.calibrate_biases(logits, targets, [0])
    assert right(logits, targets, (0,), [0.0]) == 1
    assert bias.tolist() == [-1.0]
    assert right(logits, targets, (0,), bias) == 3


def test_biases_that_are_too_high_are_lowered_both():
    """The student was shown two classes alone and predicts hardly anything else (7s and 8s, in the paper)."""
    lacking = (1, 3)
    logits, targets = scored(0, lacking=lacking, by=-6)
    biases = zoo.calibrate_biases(logits, targets, lacking)
    assert (biases < -3).all()
    assert right(logits, targets, lacking, biases) > 1.5 * right(logits, targets, lacking, [0.0, 0.0])
    alone = (max(right(logits, targets, (label,), [one]) for one in candidates(logits, label)) for label in lacking)
    assert right(logits, targets, lacking, biases) > max(alone), "one bias alone would only give its images to the other class"


def test_scores_and_their_log_probabilities_have_the_same_biases_and_nothing_given_is_changed():
    logits, targets = (torch.from_numpy(part) for part in scored(1))
    before = logits.clone()
    expected = zoo.calibrate_biases(logits, targets, [3, 1])
    assert torch.allclose(zoo.calibrate_biases(logits.log_softmax(1), targets, [3, 1]), expected, atol=1e-9)
    assert torch.equal(logits, before)


def test_what_is_wrong_is_said_at_once():
    logits, targets = scored(0)
    with pytest.raises(zoo.InputError, match=r"expected logits \(N, K\) and N class numbers, got \(120, 5\) and \(60,\)"):
        zoo.calibrate_biases(logits, targets[:60], [3])
    logits[0, 0] = np.nan
    with pytest.raises(zoo.InputError) as caught:
        zoo.calibrate_biases(logits, np.where(targets == 2, 0, targets), [2, 9])
    for words in ("got NaN or infinities", "class 2 has no example among the targets", "expected class numbers from 0 to 4, got 9"):
        assert words in str(caught.value)
    assert zoo.calibrate_biases(np.eye(2), np.array([0, 1]), [0, 1]).tolist() == [0, 0]
    with pytest.raises(zoo.InputError, match="at least one class and none twice"):
        zoo.calibrate_biases(np.zeros((3, 2)), np.array([0, 1, 1]), [])
