"""Specialists (Hinton et al. 2015, section 5): clusters, diets, and the combined distribution, against other ways of computing them."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from kdzoo.errors import InputError
from kdzoo.models.specialists import (
    active_specialists,
    class_covariance,
    combine,
    confusable_classes,
    disagreement,
    draw_specialist_images,
    specialist_targets,
)

SETS = ((0, 1, 2), (2, 3), (4, 5, 6))


def drawn(seed: int, rows: int = 6, classes: int = 8) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Log-probabilities of a generalist and of three specialists."""
    random = torch.Generator().manual_seed(seed)
    scores = [2 * torch.randn(rows, width, generator=random, dtype=torch.float64) for width in (classes, 4, 3, 4)]
    generalist, *specialists = (one.log_softmax(1) for one in scores)
    return generalist, specialists


def everyone(rows: int = 6) -> torch.Tensor:
    return torch.ones(rows, 3, dtype=torch.bool)


def test_without_an_active_specialist_the_generalist_stands():
    generalist, specialists = drawn(0)
    assert combine(generalist, specialists, SETS, ~everyone()) == pytest.approx(generalist, abs=1e-12)


def test_specialists_that_agree_with_the_generalist_change_nothing():
    generalist, _ = drawn(1)
    p = generalist.exp()
    merged = [torch.stack([*(p[:, label] for label in own), 1 - p[:, list(own)].sum(1)], 1).log() for own in SETS]
    assert combine(generalist, merged, SETS, everyone()) == pytest.approx(generalist, abs=1e-9)


def test_the_gradient_in_the_logits_is_zero_at_the_solution():
    generalist, specialists = drawn(2)
    z = combine(generalist, specialists, SETS, everyone()).requires_grad_()
    disagreement(z.log_softmax(1), generalist, specialists, SETS, everyone()).sum().backward()
    assert z.grad.abs().max() < 1e-9
    assert z.exp().sum(1).tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize("seed", range(3))
def test_scipy_finds_the_same_distribution_by_descending_equation_5(seed):
    """The objective written once more, in plain numbers; L-BFGS on the logits of one image at a time."""
    generalist, specialists = drawn(seed, rows=3)
    active = torch.tensor([[True, True, False], [False, True, True], [True, True, True]])
    found = combine(generalist, specialists, SETS, active).exp().numpy()
    for row in range(3):

        def objective(z, row=row):
            q = np.exp(z - z.max())
            q /= q.sum()
            p = generalist[row].exp().numpy()
            total = (p * np.log(p / q)).sum()
            for own, said, asked in zip(SETS, specialists, active[row], strict=True):
                if asked:
                    named = said[row].exp().numpy()
                    theirs = [*q[list(own)], 1 - q[list(own)].sum()]
                    total += sum(a * math.log(a / b) for a, b in zip(named, theirs, strict=True))
            return total

        best = minimize(objective, np.zeros(8), method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
        q = np.exp(best.x - best.x.max())
        assert found[row] == pytest.approx(q / q.sum(), abs=1e-5)
        assert objective(np.log(found[row])) <= best.fun + 1e-9


def test_networks_that_name_every_class_are_averaged():
    """The paper's closed form: if all models produce a probability for each class, q is the arithmetic mean for KL(p, q).

    A specialist of all classes but one has a dustbin of a single class.
    """
    generalist, _ = drawn(3, classes=4)
    own = ((0, 1, 2),)
    said = drawn(4, classes=4)[0]
    mean = (generalist.exp() + said.exp()) / 2
    active = torch.ones(6, 1, dtype=torch.bool)
    assert combine(generalist, [said], own, active).exp() == pytest.approx(mean, abs=1e-12)


def test_other_shapes_are_refused():
    generalist, specialists = drawn(0)
    with pytest.raises(InputError, match=r"expected log-probabilities of 3 specialists, 6 rows with 4, 3, 4 columns"):
        combine(generalist, specialists[:2], SETS, everyone())


def test_the_specialists_of_the_class_that_the_generalist_names_are_asked():
    generalist = torch.eye(8)[[2, 4, 7]]
    assert active_specialists(generalist, SETS).tolist() == [[True, True, False], [False, False, True], [False, False, False]]


def confusing(groups: tuple[tuple[int, ...], ...], images: int = 300) -> torch.Tensor:
    """Predictions that spread over one group of classes for each image."""
    random = np.random.default_rng(0)
    classes = sum(map(len, groups))
    found = np.full((images, classes), 1e-4)
    for row in found:
        group = groups[random.integers(len(groups))]
        row[list(group)] = random.dirichlet([0.5] * len(group))
    return torch.from_numpy(found / found.sum(1, keepdims=True)).log()


def test_classes_that_are_predicted_together_make_a_specialist():
    groups = ((0, 5, 9), (1, 2, 3), (4, 6, 7, 8))
    log_probs = confusing(groups)
    assert class_covariance(log_probs).numpy() == pytest.approx(np.cov(np.exp(log_probs.numpy()).T, ddof=0))
    found = confusable_classes(log_probs, 3, 3)
    assert {(0, 5, 9), (1, 2, 3)} < set(found)
    assert set(max(found, key=sum)) < {4, 6, 7, 8}
    assert confusable_classes(log_probs, 3, 3, seed=1) == confusable_classes(log_probs, 3, 3, seed=1)
    with pytest.raises(InputError, match=r"count: expected 1 to 10 .* got 11\n.*size: expected 2 to 9 of the 10 classes, got 10"):
        confusable_classes(log_probs, 11, 10)


def test_classes_that_are_seldom_named_make_specialists_as_the_others_do():
    """Half of the groups have 20 % of the probability in their images, the others 90 %."""
    random, groups = np.random.default_rng(0), [tuple(range(first, first + 5)) for first in range(0, 40, 5)]
    shares = [0.9] * 4 + [0.2] * 4
    predictions = []
    for which in random.integers(8, size=2000):
        row = np.full(40, (1 - shares[which]) / 40)
        row[list(groups[which])] += shares[which] * random.dirichlet([0.5] * 5)
        predictions.append(row)
    assert set(confusable_classes(torch.from_numpy(np.array(predictions)).log(), 8, 5)) == set(groups)


def test_a_specialist_learns_its_own_classes_and_a_dustbin_half_and_half():
    targets = torch.arange(10).repeat_interleave(20)
    own = (7, 2)
    diet = draw_specialist_images(targets, own, torch.Generator().manual_seed(0))
    named = specialist_targets(targets[diet.places], own)
    assert named.bincount().tolist() == [20, 20, 40]
    assert targets[diet.places][named == 0].unique().tolist() == [7]
    assert len(diet.places.unique()) == 80
    # shown: a half; there are: a fifth. Odds of 1 where they are 1 to 4, so that a right specialist gives the dustbin 4 times as much
    assert diet.correction == pytest.approx(math.log(4))
    corrected = (torch.tensor([0.25, 0.25, 0.5]).log() + torch.tensor([0, 0, diet.correction])).softmax(0)
    assert corrected.tolist() == pytest.approx([0.1, 0.1, 0.8])  # what there are of the classes


def test_a_specialist_of_most_classes_takes_what_is_left_and_one_without_images_is_refused():
    targets = torch.arange(10).repeat_interleave(20)
    diet = draw_specialist_images(targets, tuple(range(9)), torch.Generator())
    assert (len(diet.places), diet.correction) == (200, 0.0)
    with pytest.raises(InputError, match="of its 2 classes and of others; there are 0 and 200"):
        draw_specialist_images(targets, (11, 12), torch.Generator())
