"""The contrastive loss with its memory, against the paper's equations in loops of plain exponentials."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.functional import crd
from kdzoo.methods.crd import Contrast, picked_scores, scores_by_entries, scores_by_product
from kdzoo.training.cost import saved_bytes

TARGETS = torch.tensor([2, 0, 1, 0, 2, 2, 0, 0, 1, 2, 0, 2])
FACTS = DataFacts(len(TARGETS), 3, TARGETS)
STUDENT, TEACHER = Shapes(3, 5, ()), Shapes(3, 7, ())


def nce(positive: float, negatives: list[float], samples: int) -> float:
    """- log h(x+) - sum_k log(1 - h(x_k)), h(x) = x / (x + K / N), for scores that are no logarithms."""
    prior = len(negatives) / samples
    return -math.log(positive / (positive + prior)) - sum(math.log(prior / (x + prior)) for x in negatives)


def built(seed: int = 0, facts: DataFacts = FACTS, **hyperparameters) -> tuple[torch.nn.Module, object]:
    method = create_method("crd", **hyperparameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.build(STUDENT, TEACHER, facts).double(), method


def step(method, module, index: torch.Tensor, seed: int):
    """The loss of one batch, and the embeddings that the student and the teacher gave."""
    s, t = drawn(len(index), 5, seed=seed), drawn(len(index), 7, seed=seed + 100)
    given = outputs("student", embedding=s), outputs("teacher", embedding=t)
    return method.loss(*given, batch_of(index, TARGETS[index], seed), module), s.numpy(), t.numpy()


@settings(max_examples=30)
@given(batch=st.integers(1, 4), negatives=st.integers(1, 6), samples=st.integers(7, 500), seed=st.integers(0, 1000))
def test_it_is_the_papers_equation_of_the_scores(batch, negatives, samples, seed):
    hit, missed = drawn(batch, seed=seed), drawn(batch, negatives, seed=seed + 1)
    by_hand = [nce(math.exp(p), [math.exp(x) for x in row], samples) for p, row in zip(hit.tolist(), missed.tolist(), strict=True)]
    assert crd(hit, missed, samples=samples).item() == pytest.approx(sum(by_hand) / batch, rel=1e-10)


def test_its_gradient_is_the_numerical_one():
    hit, missed = drawn(3).requires_grad_(), drawn(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, n: crd(p, n, samples=50), (hit, missed))


def test_scores_of_any_size_stay_finite():
    hit, missed = torch.tensor([-1e4, 1e4]).requires_grad_(), torch.tensor([[1e4], [-1e4]]).requires_grad_()
    loss = crd(hit, missed, samples=10)
    loss.backward()
    assert loss.item() == pytest.approx(1e4, rel=1e-3)
    assert torch.isfinite(hit.grad).all()
    assert torch.isfinite(missed.grad).all()


def test_two_steps_are_those_of_the_paper_and_the_published_code():
    """Z from the first batch alone, sums over K, means over B, both anchors, banks that follow with momentum 0.5."""
    module, method = built(negatives=4, width=3)
    banks = {"s": module.bank_s.numpy().copy(), "t": module.bank_t.numpy().copy()}
    z: dict[str, float] = {}
    for seed, index in enumerate([torch.tensor([1, 4, 8]), torch.tensor([8, 0])]):
        picked = module.negatives(index, 4, torch.Generator().manual_seed(seed)).tolist()
        weights = {name: value.detach().numpy().copy() for name, value in module.named_parameters()}
        loss, s, t = step(method, module, index, seed)
        e = {}
        for side, h in (("s", s), ("t", t)):
            raw = h @ weights[f"embed_{side}.weight"].T + weights[f"embed_{side}.bias"]
            e[side] = np.array([row / math.sqrt(sum(row**2)) for row in raw])
        expected = 0.0
        for anchor, memory in (("s", "t"), ("t", "s")):
            scores = [
                [math.exp(sum(e[anchor][row] * banks[memory][sample]) / 0.07) for sample in [i, *others]]
                for row, (i, others) in enumerate(zip(index.tolist(), picked, strict=True))
            ]
            z.setdefault(anchor, 12 * sum(map(sum, scores)) / (5 * len(index)))
            expected += sum(nce(row[0] / z[anchor], [x / z[anchor] for x in row[1:]], 12) for row in scores) / len(index)
        assert loss.item() == pytest.approx(expected, rel=1e-9)
        for side in ("s", "t"):
            for row, i in enumerate(index.tolist()):
                mixed = 0.5 * banks[side][i] + 0.5 * e[side][row]
                banks[side][i] = mixed / math.sqrt(sum(mixed**2))
            np.testing.assert_allclose(getattr(module, f"bank_{side}").numpy(), banks[side], rtol=1e-10)
            assert getattr(module, f"log_z_{side}").item() == pytest.approx(math.log(z[side]))


@settings(max_examples=30)
@given(batch=st.integers(1, 4), samples=st.integers(1, 9), picks=st.integers(1, 12), width=st.integers(1, 5), seed=st.integers(0, 1000))
def test_both_ways_to_scores_are_the_products_with_the_picked_entries_and_so_are_their_gradients(batch, samples, picks, width, seed):
    """Entries may come twice; a gradient of an anchor is the sum of its entries, each times its score's."""
    anchors, bank = drawn(batch, width, seed=seed), drawn(samples, width, seed=seed + 1)
    picked = torch.randint(0, samples, (batch, picks), generator=torch.Generator().manual_seed(seed))
    factors = drawn(batch, picks, seed=seed + 2)
    scores, slopes = np.zeros((batch, picks)), np.zeros((batch, width))
    for row, column in np.ndindex(batch, picks):
        entry = bank[picked[row, column]].numpy()
        scores[row, column] = sum(anchors[row].numpy() * entry)
        slopes[row] += factors[row, column].item() * entry
    for way in (scores_by_product, scores_by_entries, picked_scores):
        leaf = anchors.clone().requires_grad_()
        found = way(leaf, bank, picked)
        (found * factors).sum().backward()
        np.testing.assert_allclose(found.detach().numpy(), scores, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(leaf.grad.numpy(), slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("picks", "kept"), [(1000, 4000 * 128), (50, 8 * 50 * 128)], ids=["a copy of the bank", "picked entries"])
def test_of_both_ways_to_scores_the_smaller_one_is_taken(picks, kept):
    """Of a bank of 4,000: neither all of it for a few entries, nor 128 numbers for every score of many; indices are small beside it."""
    anchors, bank = drawn(8, 128).float().requires_grad_(), drawn(4000, 128, seed=1).float()
    picked = torch.randint(0, 4000, (8, picks), generator=torch.Generator().manual_seed(0))
    with saved_bytes() as saved:
        picked_scores(anchors, bank, picked)
    assert 4 * kept <= sum(saved.values()) < 1.2 * 4 * kept


def test_gradients_reach_both_embeddings_and_the_student_but_neither_teacher_nor_banks():
    module, method = built()
    s, t = drawn(4, 5).requires_grad_(), drawn(4, 7).requires_grad_()
    index = torch.tensor([0, 3, 5, 9])
    method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), batch_of(index, TARGETS[index]), module).backward()
    assert s.grad.any()
    assert t.grad is None
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())
    assert {name for name, _ in module.named_parameters()} == {"embed_s.weight", "embed_s.bias", "embed_t.weight", "embed_t.bias"}


def test_its_gradient_through_the_embeddings_is_the_numerical_one():
    module, method = built(negatives=3, width=4)
    index = torch.tensor([2, 7])
    step(method, module, index, 0)
    module.eval()
    t = outputs("teacher", embedding=drawn(2, 7, seed=1))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return method.loss(outputs("student", embedding=x), t, batch_of(index, TARGETS[index]), module)

    assert torch.autograd.gradcheck(loss, drawn(2, 5).requires_grad_())


@settings(max_examples=30)
@given(
    classes=st.integers(2, 5),
    counts=st.lists(st.integers(1, 6), min_size=5, max_size=5),
    wanted=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_negatives_come_from_other_classes_only_also_where_classes_differ_in_size(classes, counts, wanted, seed):
    random = torch.Generator().manual_seed(seed)
    targets = torch.tensor([c for c in range(classes) for _ in range(counts[c])])
    targets = targets[torch.randperm(len(targets), generator=random)]
    module = Contrast(2, 2, 2, targets, classes)
    index = torch.arange(len(targets))
    count = min(wanted, module.available)
    drawn_ = module.negatives(index, count, random)
    assert module.available == len(targets) - max(counts[:classes])
    assert drawn_.shape == (len(targets), count)
    assert (targets[drawn_] != targets[:, None]).all()


def test_as_many_negatives_as_there_are_means_each_once():
    targets = torch.tensor([0, 1, 2] * 50)
    module = Contrast(2, 2, 2, targets, 3)
    found = module.negatives(torch.arange(150), module.available, torch.Generator().manual_seed(0))
    for sample, others in enumerate(found.tolist()):
        assert sorted(others) == [other for other in range(150) if targets[other] != targets[sample]]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_every_sample_of_other_classes_is_equally_likely(count):
    module = Contrast(2, 2, 2, TARGETS, 3)
    rounds = 20000
    found = module.negatives(torch.full((rounds,), 2), count, torch.Generator().manual_seed(0))
    shares = torch.bincount(found.flatten(), minlength=12).double() / rounds
    others = TARGETS != 1
    assert (shares[~others] == 0).all()
    expected = count / int(others.sum())
    assert (shares[others] - expected).abs().max().item() < 5 * math.sqrt(expected * (1 - expected) / rounds)


def test_the_same_generator_draws_the_same_negatives_and_rows_differ():
    module = Contrast(2, 2, 2, torch.arange(1000) % 10, 10)
    one, two = (module.negatives(torch.zeros(3, dtype=torch.long), 20, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1])


def test_the_banks_begin_uniform_with_unit_mean_square_length():
    module = Contrast(4, 4, 128, torch.arange(2000) % 10, 10)
    for bank in (module.bank_s, module.bank_t):
        assert bank.abs().max().item() <= math.sqrt(3 / 128)
        assert bank.abs().max().item() > 0.999 * math.sqrt(3 / 128)
        assert bank.square().sum(1).mean().item() == pytest.approx(1, abs=0.01)
    assert not torch.equal(module.bank_s, module.bank_t)


def test_without_training_nothing_is_remembered():
    module, method = built()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    step(method, module.eval(), torch.tensor([0, 1]), 0)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_what_it_remembers_is_saved_and_loaded():
    module, method = built()
    step(method, module, torch.tensor([0, 1]), 0)
    assert {"bank_s", "bank_t", "log_z_s", "log_z_t"} <= set(module.state_dict())
    other, _ = built(seed=1)
    other.load_state_dict(module.state_dict())
    losses = [step(method, each, torch.tensor([1, 5]), 1)[0].item() for each in (module, other)]
    assert losses[0] == losses[1]


def test_building_it_under_one_seed_gives_one_start():
    one, two = built(seed=3)[0].state_dict(), built(seed=3)[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precise_embeddings_and_a_cold_tau_stay_finite(dtype):
    method = create_method("crd", tau=0.001)
    module = method.build(STUDENT, TEACHER, FACTS)
    s, t = drawn(4, 5).to(dtype), drawn(4, 7).to(dtype)
    index = torch.arange(4)
    loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), batch_of(index, TARGETS[index]), module)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_autocast_does_not_lower_the_scores():
    losses = []
    for enabled in (False, True):
        module, method = built()
        module.float()
        index = torch.arange(4)
        given = outputs("student", embedding=drawn(4, 5).float()), outputs("teacher", embedding=drawn(4, 7).float())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(method.loss(*given, batch_of(index, TARGETS[index]), module).item())
    assert losses[0] == losses[1]


def test_one_sample_is_a_batch():
    module, method = built()
    assert torch.isfinite(step(method, module, torch.tensor([3]), 0)[0])


def test_data_of_one_class_have_no_negatives_and_are_refused():
    with pytest.raises(InputError, match="two classes at least"):
        create_method("crd").build(STUDENT, TEACHER, DataFacts(3, 3, torch.tensor([1, 1, 1])))
