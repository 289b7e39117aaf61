"""Methods that read neither labels nor class scores: embeddings, tokens, and past embeddings as classes, in plain float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.functional import embed, proteus, pseudo_classes, tokens
from kdzoo.methods.proteus import draw_mask, hide

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT, TEACHER = Shapes(5, 4, (StageShape(4, 2, 2, 4.0),)), Shapes(5, 6, (StageShape(6, 3, 3, 4.0),))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (max(np.sqrt(a @ a), 1e-4) * max(np.sqrt(b @ b), 1e-4)))


def smooth(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def expected(s: np.ndarray, t: np.ndarray, distance: str) -> float:
    rows = list(np.ndindex(s.shape[:-1]))
    cosines = sum(1 - cosine(s[row], t[row]) for row in rows) / len(rows)
    values = [s[place] - t[place] for place in np.ndindex(s.shape)]
    squares, smooths = (sum(map(one, values)) / len(values) for one in (np.square, smooth))
    return {"cosine": cosines, "squared": squares, "mixed": 0.9 * cosines + 0.1 * smooths}[distance]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.sampled_from(["cosine", "squared", "mixed"]), st.integers(0, 99))
def test_the_distance_of_embeddings_and_tokens_is_the_mean_over_vectors(batch, cells, width, distance, seed):
    s, t = drawn(batch, cells, width, seed=seed, factor=2.0), drawn(batch, cells, width, seed=seed + 1000)
    assert tokens(s, t, distance=distance).item() == pytest.approx(expected(s.numpy(), t.numpy(), distance))
    assert embed(s[:, 0], t[:, 0], distance=distance).item() == pytest.approx(expected(s[:, 0].numpy(), t[:, 0].numpy(), distance))


def test_a_vector_of_zeros_has_a_bounded_gradient_and_the_teacher_none():
    s, t = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True), drawn(2, 3).requires_grad_()
    embed(s, t, distance="mixed").backward()
    assert t.grad is None
    assert float(s.grad.abs().max()) <= 1e4


@pytest.mark.parametrize(("layers", "parts"), [(1, 2), (2, 6)])
def test_the_head_goes_from_the_students_width_to_the_teachers(layers, parts):
    method = create_method("embed", layers=layers)
    module = method.build(STUDENT, TEACHER, FACTS).double()
    assert len(module.state_dict()) == parts
    s, t = drawn(3, 4), drawn(3, 6, seed=1)
    loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    assert loss.item() == pytest.approx(expected(module(s).detach().numpy(), t.numpy(), "cosine"))


WIDTHS = (4, 2)
"""of two teachers that are joined, and by sqrt(6 / (2 * width)) their embeddings are multiplied"""


def of_one(x: torch.Tensor, place: int) -> np.ndarray:
    """What is one teacher's in (B, 6), on its own scale again."""
    begin = sum(WIDTHS[:place])
    return x[:, begin : begin + WIDTHS[place]].detach().numpy() / np.sqrt(6 / (2 * WIDTHS[place]))


@pytest.mark.parametrize("distance", ["cosine", "squared", "mixed"])
@pytest.mark.parametrize("layers", [1, 2])
def test_of_several_teachers_each_has_a_head_and_the_loss_is_the_mean_of_theirs(layers, distance):
    method = create_method("embed", layers=layers, distance=distance)
    module = method.build(STUDENT, replace(TEACHER, joined=WIDTHS), FACTS).double()
    s, t = drawn(5, 4), drawn(5, 6, seed=1)

    def gradients(teacher: torch.Tensor) -> list[torch.Tensor]:
        """Of the first teacher's head."""
        loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=teacher), None, module)
        ours = module(s)
        each = [expected(of_one(ours, place), of_one(teacher, place), distance) for place in (0, 1)]
        assert loss.item() == pytest.approx(sum(each) / 2)
        return list(torch.autograd.grad(loss, list(module.heads[0].parameters())))

    assert [len(list(head.parameters())) for head in module.heads] == [2 if layers == 1 else 6] * 2
    other = t.clone()
    other[:, 4:] = drawn(5, 2, seed=2)
    for one, another in zip(gradients(t), gradients(other), strict=True):
        torch.testing.assert_close(one, another, rtol=1e-12, atol=1e-15)
        assert one.abs().sum() > 0


def test_tokens_are_compared_on_the_teachers_grid():
    method = create_method("tokens", layers=1)
    module = method.build(STUDENT, TEACHER, FACTS).double()
    constant = drawn(3, 4)
    s, t = constant[:, :, None, None].expand(-1, -1, 2, 2), drawn(3, 6, 3, 3, seed=1)
    loss = method.loss(outputs("student", stages=[s]), outputs("teacher", stages=[t]), None, module)
    everywhere = module(constant).detach()[:, None].expand(-1, 9, -1)
    assert loss.item() == pytest.approx(expected(everywhere.numpy(), t.flatten(2).transpose(1, 2).numpy(), "mixed"))
    larger = drawn(3, 4, 6, 6)
    method.loss(outputs("student", stages=[larger]), outputs("teacher", stages=[t]), None, module).backward()


def test_pseudo_classes_are_the_cross_entropy_of_two_softmaxes_without_what_is_no_class():
    s, t = drawn(3, 6), drawn(3, 6, seed=1)
    s[:, 4:], t[:, 4:] = -torch.inf, -torch.inf
    p, q = (np.exp(x[:, :4].numpy()) / np.exp(x[:, :4].numpy()).sum(1, keepdims=True) for x in (t, s))
    s.requires_grad_()
    loss = pseudo_classes(s, t)
    assert loss.item() == pytest.approx(-(p * np.log(q)).sum(1).mean())
    loss.backward()
    assert bool(s.grad.isfinite().all())


def test_the_classes_are_the_teachers_embeddings_of_the_batch_and_the_last_ones_before_it():
    method = create_method("pseudo_classes", length=5, layers=1, tau=0.5, teacher_tau=0.25)
    module = method.build(STUDENT, Shapes(5, 4, ()), FACTS).double()
    module.head = nn.Identity()
    batches = [(drawn(3, 4, seed=2 * i), drawn(3, 4, seed=2 * i + 1)) for i in range(3)]
    past: list[np.ndarray] = []
    for s, t in batches:
        loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
        unit_s, unit_t = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (s, t))
        total = 0.0
        for i in range(3):
            keys = [*unit_t, *past[-5:]]
            p, q = (np.exp([x[i] @ key / tau for key in keys]) for x, tau in ((unit_t, 0.25), (unit_s, 0.5)))
            total -= float((p / p.sum() * np.log(q / q.sum())).sum()) / 3
        assert loss.item() == pytest.approx(total)
        past += list(unit_t)
    module.eval()
    before = module.queue.clone()
    method.loss(outputs("student", embedding=batches[0][0]), outputs("teacher", embedding=batches[0][1]), None, module)
    assert torch.equal(module.queue, before), "evaluation puts nothing in"


@pytest.mark.parametrize("method", ["embed", "tokens", "pseudo_classes", "proteus"])
def test_they_read_neither_labels_nor_scores(method):
    assert not {"targets", "logits", "classifier"} & {
        *create_method(method).card.needs.student.words,
        *create_method(method).card.needs.teacher.words,
    }


def test_proteus_is_three_means_of_squares_over_token_all_and_hidden_cells():
    token, patches, hidden = drawn(4, 5), drawn(4, 3, 5, seed=1), drawn(2, 3, 5, seed=2)
    t, targets = drawn(4, 5, seed=3), drawn(4, 3, 5, seed=4)
    mask = torch.tensor([[True, False, False], [False, True, True]])
    squares = (token - t).square().flatten().tolist()
    of_cells = (patches - targets).square().flatten().tolist()
    of_hidden = [(hidden[i, j] - targets[i, j]).square().tolist() for i, j in mask.nonzero().tolist()]
    parts = [np.mean(squares), np.mean(squares + of_cells), np.mean(of_hidden)]
    weights = dict(zip(("token_weight", "feature_weight", "patch_weight"), (0.5, 2.0, 3.0), strict=True))
    loss = proteus(token, patches, hidden, t, targets, mask, **weights)
    assert loss.item() == pytest.approx(sum(weight * part for weight, part in zip(weights.values(), parts, strict=True)))
    nothing = proteus(token, patches, hidden[:0], t, targets, mask[:0], **weights)
    assert nothing.item() == pytest.approx(0.5 * parts[0] + 2 * parts[1])


def test_half_of_the_cells_of_half_of_the_images_have_the_mean_colour():
    mask = draw_mask(3, 7, torch.Generator().manual_seed(0))
    assert mask.sum(1).tolist() == [3, 3, 3]
    assert len({tuple(row) for row in mask.tolist()}) > 1
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    cells = torch.tensor([[True, False, False, False], [False, False, True, True]])
    got = hide(images, cells, (2, 2))
    assert got.shape == (2, 3, 8, 8)
    colour = images.float().mean((0, 2, 3))[:, None, None]
    assert torch.equal(got[0, :, :4, :4], colour.expand(3, 4, 4))
    assert torch.equal(got[0, :, :, 4:], images[0, :, :, 4:].float())
    assert torch.equal(got[1, :, 4:], colour.expand(3, 4, 8))
    assert torch.equal(got[1, :, :4], images[1, :, :4].float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_embeddings_in_half_precision_are_widened_before_the_head(dtype):
    method = create_method("embed")
    module = method.build(STUDENT, TEACHER, FACTS)
    s, t = drawn(3, 4).to(dtype), drawn(3, 6, seed=1).to(dtype)
    loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    wanted = expected(module(s.float()).detach().double().numpy(), t.double().numpy(), "cosine")
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
