"""Several teachers: averages of probabilities and of losses, against plain sums; and through the command line."""

import re

import numpy as np
import pytest
import torch

from kdzoo.contract.needs import Need
from kdzoo.methods.ensemble_losses import ensemble_losses
from kdzoo.methods.ensemble_probabilities import ensemble_probabilities
from kdzoo.methods.hinton import hinton
from kdzoo.models.build import build_network
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.network import freeze
from kdzoo.models.request import ensemble_ids
from kdzoo.runs.spec import NetworkSpec


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def drawn(members: int = 3, batch: int = 4, classes: int = 5):
    random = torch.Generator().manual_seed(0)
    student, *teachers = torch.randn(members + 1, batch, classes, dtype=torch.float64, generator=random) * 3
    return student, teachers


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_probabilities_are_averaged_before_the_divergence(temperature):
    student, teachers = drawn()
    p = np.mean([softmax(t.numpy() / temperature) for t in teachers], axis=0)
    q = softmax(student.numpy() / temperature)
    expected = temperature**2 * np.mean([sum(p[b, k] * np.log(p[b, k] / q[b, k]) for k in range(5)) for b in range(4)])
    assert ensemble_probabilities(student, teachers, temperature=temperature).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_losses_are_averaged_after_the_divergence(temperature):
    student, teachers = drawn()
    q = softmax(student.numpy() / temperature)
    each = []
    for teacher in teachers:
        p = softmax(teacher.numpy() / temperature)
        each.append(temperature**2 * np.mean([sum(p[b, k] * np.log(p[b, k] / q[b, k]) for k in range(5)) for b in range(4)]))
    assert ensemble_losses(student, teachers, temperature=temperature).item() == pytest.approx(np.mean(each))


def test_both_have_the_same_gradient_and_the_losses_are_larger():
    student, teachers = drawn()
    gradients = []
    for function in (ensemble_probabilities, ensemble_losses):
        leaf = student.clone().requires_grad_()
        function(leaf, teachers, temperature=2.0).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert ensemble_losses(student, teachers, temperature=2.0) > ensemble_probabilities(student, teachers, temperature=2.0)


@pytest.mark.parametrize("function", [ensemble_probabilities, ensemble_losses])
def test_one_teacher_is_hintons_loss(function):
    student, (teacher,) = drawn(members=1)
    torch.testing.assert_close(function(student, [teacher], temperature=4.0), hinton(student, teacher, temperature=4.0))


def test_an_ensembles_logits_are_the_logarithm_of_the_mean_probability():
    made = [
        freeze(build_network(NetworkSpec(name=name, classes=10), channels=1, side=8, mean=(0.5,), std=(0.25,), seed=seed))
        for seed, name in enumerate(("digits_student", "digits_teacher"))
    ]
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = freeze(Ensemble(made)).train()(images, Need.LOGITS | Need.MEMBERS | Need.STAGES)
    mean = torch.stack([network.logits(images).softmax(1) for network in made]).mean(0)
    torch.testing.assert_close(out.logits.exp(), mean)
    assert [torch.equal(member, network.logits(images)) for member, network in zip(out.members, made, strict=True)] == [True, True]
    assert [tuple(stage.shape[1:]) for stage in out.stages] == [(4, 8, 8), (8, 4, 4)]


def test_a_plus_separates_ids_and_not_the_methods_of_a_sum():
    assert ensemble_ids("none-0123456789ab+at+hinton-ba9876543210") == ["none-0123456789ab", "at+hinton-ba9876543210"]


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_two_kept_teachers_teach_together(kdzoo):
    ids = []
    for seed in (0, 1):
        said = kdzoo("train", "digits_teacher", "--data", "digits", "--epochs", "4", "--seed", seed)
        assert said.status == 0, said.out + said.err
        ids.append(re.search(r"none-[0-9a-f]{12}", said.out).group())
    pair = ("--teacher", "+".join(dict.fromkeys(ids)), "--student", "digits_student")
    said = kdzoo("bench", *pair, "--epochs", "3", "--seeds", "1", "--methods", "ensemble_probabilities,ensemble_losses,fitnet")
    assert len(set(ids)) == 2
    assert said.status == 0, said.out + said.err
    assert "ensemble_losses" in said.out


def test_a_member_that_is_not_kept_is_named(kdzoo):
    said = kdzoo("bench", "--teacher", "none-0123456789ab+none-ba9876543210", "--student", "digits_student", "--methods", "hinton")
    assert said.status == 2
    assert "no finished run 'none-0123456789ab' with its weights among the kept teachers or below results" in said.err
    assert "no finished run 'none-ba9876543210'" in said.err
