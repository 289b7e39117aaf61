"""The contrastive loss with a queue, against the paper's equations in loops of plain exponentials and a Python deque."""

import math
from collections import deque

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.functional import crd, crd_queue
from kdzoo.methods.crd_queue import Queues

TARGETS = torch.tensor([2, 0, 1, 0, 2, 2, 0, 0, 1, 2, 0, 2])
FACTS = DataFacts(len(TARGETS), 3, TARGETS)
STUDENT, TEACHER = Shapes(3, 5, ()), Shapes(3, 7, ())
quick = settings(max_examples=30)


def nce(scores: list[list[float]], counted: list[list[bool]], samples: int) -> float:
    """- log h(x+) - sum_k log(1 - h(x_k)), h(x) = x / (x + K / N), mean over anchors; x = exp(score) / (N mean exp(score))."""
    seen = [math.exp(x) for i, row in enumerate(scores) for j, x in enumerate(row) if i == j or counted[i][j]]
    z = samples * sum(seen) / len(seen)
    total = 0.0
    for i, row in enumerate(scores):
        prior = sum(counted[i]) / samples
        positive = math.exp(row[i]) / z
        total -= math.log(positive / (positive + prior))
        for j, x in enumerate(row):
            if counted[i][j]:
                total -= math.log(prior / (math.exp(x) / z + prior))
    return total / len(scores)


def some(batch: int, keys: int, seed: int) -> torch.Tensor:
    """Which keys count, none of them a positive of its own anchor."""
    counted = drawn(batch, keys, seed=seed) > 0
    return counted & ~torch.eye(batch, keys, dtype=torch.bool)


def built(seed: int = 0, facts: DataFacts = FACTS, **hyperparameters):
    method = create_method("crd_queue", **hyperparameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.build(STUDENT, TEACHER, facts).double(), method


def step(method, module, index: torch.Tensor, seed: int):
    """The loss of one batch, and the embeddings that the student and the teacher gave."""
    s, t = drawn(len(index), 5, seed=seed), drawn(len(index), 7, seed=seed + 100)
    given_ = outputs("student", embedding=s), outputs("teacher", embedding=t)
    return method.loss(*given_, batch_of(index, TARGETS[index], seed), module), s.numpy(), t.numpy()


@quick
@given(batch=st.integers(1, 4), more=st.integers(0, 6), samples=st.integers(3, 500), seed=st.integers(0, 1000))
def test_it_is_the_papers_equation_of_the_scores(batch, more, samples, seed):
    scores, counted = drawn(batch, batch + more, seed=seed, factor=3), some(batch, batch + more, seed + 1)
    expected = nce(scores.tolist(), counted.tolist(), samples)
    assert crd_queue(scores, counted, samples=samples).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@quick
@given(batch=st.integers(1, 4), keys=st.integers(1, 6), samples=st.integers(7, 500), seed=st.integers(0, 1000))
def test_where_every_key_but_the_batchs_own_counts_it_is_crd(batch, keys, samples, seed):
    scores = drawn(batch, batch + keys, seed=seed)
    counted = torch.cat([torch.zeros(batch, batch, dtype=torch.bool), torch.ones(batch, keys, dtype=torch.bool)], 1)
    used = torch.cat([scores.diagonal()[:, None], scores[:, batch:]], 1)
    log_z = math.log(samples * used.exp().mean())
    expected = crd(used[:, 0] - log_z, used[:, 1:] - log_z, samples=samples).item()
    assert crd_queue(scores, counted, samples=samples).item() == pytest.approx(expected, rel=1e-10)


def test_its_gradient_is_the_numerical_one():
    scores, counted = drawn(3, 7).requires_grad_(), some(3, 7, 1)
    assert torch.autograd.gradcheck(lambda x: crd_queue(x, counted, samples=50), scores)


def test_a_shift_of_all_scores_changes_nothing():
    scores, counted = drawn(3, 7), some(3, 7, 1)
    there, shifted = (crd_queue(x, counted, samples=50).item() for x in (scores, scores + 11))
    assert shifted == pytest.approx(there, rel=1e-10)


@pytest.mark.parametrize("factor", [1e3, 1e4])
def test_scores_of_any_size_stay_finite(factor):
    scores = (drawn(4, 9) * factor).float().requires_grad_()
    loss = crd_queue(scores, some(4, 9, 1), samples=10)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


def test_an_anchor_without_negatives_counts_nothing():
    scores, counted = drawn(2, 5).requires_grad_(), some(2, 5, 1)
    counted[1] = False
    crd_queue(scores, counted, samples=10).backward()
    assert crd_queue(scores, torch.zeros_like(counted), samples=10).item() == 0
    assert not scores.grad[1, [0, 2, 3, 4]].any()


def test_three_steps_are_those_of_a_deque():
    """Both anchors; negatives of other classes in the batch and among the last five; then the batch joins them."""
    module, method = built(length=5, width=3)
    remembered: deque = deque(maxlen=5)
    for seed, index in enumerate([torch.tensor([1, 4, 8]), torch.tensor([8, 0, 5, 2]), torch.tensor([3, 9])]):
        weights = {name: value.detach().numpy().copy() for name, value in module.named_parameters()}
        loss, s, t = step(method, module, index, seed)
        e = {}
        for side, h in (("s", s), ("t", t)):
            raw = h @ weights[f"embed_{side}.weight"].T + weights[f"embed_{side}.bias"]
            e[side] = np.array([row / math.sqrt(sum(row**2)) for row in raw])
        labels = TARGETS[index].tolist()
        keys = [(e["s"][i], e["t"][i], label) for i, label in enumerate(labels)] + list(remembered)
        counted = [[key[2] != label for key in keys] for label in labels]
        expected = 0.0
        for anchor, other in (("s", 1), ("t", 0)):
            scores = [[float(sum(e[anchor][i] * key[other])) / 0.07 for key in keys] for i in range(len(labels))]
            expected += nce(scores, counted, samples=12)
        assert loss.item() == pytest.approx(expected, rel=1e-8)
        remembered.extend(keys[: len(labels)])
        filled = {tuple(np.round(row.numpy(), 9)) for row, label in zip(module.queue_s, module.labels, strict=True) if label >= 0}
        assert filled == {tuple(np.round(key[0], 9)) for key in remembered}


@quick
@given(length=st.integers(1, 7), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_first_in_is_first_out_whatever_the_batches(length, sizes):
    queues, remembered = Queues(2, 2, 1, length, samples=100), deque(maxlen=length)
    start = 0
    for size in sizes:
        new = torch.arange(start, start + size)
        queues.push(new[:, None].float(), -new[:, None].float(), new)
        remembered.extend(new.tolist())
        start += size
        assert sorted(x for x in queues.labels.tolist() if x >= 0) == sorted(remembered)
        kept = queues.labels >= 0
        assert torch.equal(queues.queue_s[kept, 0], queues.labels[kept].float())
        assert torch.equal(queues.queue_t[kept, 0], -queues.labels[kept].float())


def test_negatives_are_of_other_classes_and_filled():
    queues = Queues(2, 2, 4, 6, samples=100)
    queues.push(torch.zeros(3, 4), torch.zeros(3, 4), torch.tensor([1, 0, 1]))
    counted = queues.negatives(torch.tensor([0, 1]))
    assert counted.tolist() == [
        [False, True, True, False, True, False, False, False],
        [True, False, False, True, False, False, False, False],
    ]


def test_one_image_and_an_empty_queue_leave_nothing_to_contrast():
    module, method = built()
    assert step(method, module, torch.tensor([3]), 0)[0].item() == 0
    assert step(method, module, torch.tensor([0]), 1)[0].item() > 0


def test_its_memory_does_not_grow_with_the_data():
    method = create_method("crd_queue", length=64)
    held = {
        n: sum(v.numel() for v in method.build(STUDENT, TEACHER, DataFacts(n, 3, torch.arange(n) % 3)).state_dict().values())
        for n in (100, 10_000, 100_000)
    }
    assert len(set(held.values())) == 1


def test_no_entry_is_older_than_an_epoch():
    assert len(built()[0].labels) == len(TARGETS)
    assert len(built(length=5)[0].labels) == 5


def test_gradients_reach_both_embeddings_and_the_student_but_neither_teacher_nor_queue():
    module, method = built()
    s, t = drawn(4, 5).requires_grad_(), drawn(4, 7).requires_grad_()
    index = torch.tensor([0, 3, 5, 8])
    method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), batch_of(index, TARGETS[index]), module).backward()
    assert s.grad.any()
    assert t.grad is None
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())
    assert not any(buffer.requires_grad for buffer in module.buffers())


def test_its_gradient_through_the_embeddings_is_the_numerical_one():
    module, method = built(width=4)
    index = torch.tensor([2, 7, 4])
    step(method, module, index, 0)
    module.eval()
    t = outputs("teacher", embedding=drawn(3, 7, seed=1))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return method.loss(outputs("student", embedding=x), t, batch_of(index, TARGETS[index]), module)

    assert torch.autograd.gradcheck(loss, drawn(3, 5).requires_grad_())


def test_without_training_nothing_is_remembered():
    module, method = built()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    step(method, module.eval(), torch.tensor([0, 1]), 0)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_training_goes_on_from_a_saved_state_bit_for_bit():
    batches = [torch.tensor([1, 4, 8]), torch.tensor([0, 2, 5]), torch.tensor([3, 9, 2]), torch.tensor([6, 11, 10])]
    whole, method = built(length=5)
    losses = [step(method, whole, index, seed)[0].item() for seed, index in enumerate(batches)]
    first, _ = built(length=5)
    for seed in (0, 1):
        step(method, first, batches[seed], seed)
    resumed, _ = built(seed=1, length=5)
    resumed.load_state_dict(first.state_dict())
    assert [step(method, resumed, batches[seed], seed)[0].item() for seed in (2, 3)] == losses[2:]
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_embeddings_that_begin_almost_parallel_do_not_collapse():
    """As those behind a ReLU do: a constant Z lets all scores drift together until every embedding is the same."""
    random = torch.Generator().manual_seed(0)
    targets = torch.arange(160) % 4
    seen = torch.randn(160, 12, generator=random) + 3 * torch.eye(4, 12)[targets]
    teacher_says = (seen @ torch.randn(12, 24, generator=random)).relu() + 5
    method, student = create_method("crd_queue"), torch.nn.Linear(12, 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student.reset_parameters()
        module = method.build(Shapes(4, 8, ()), Shapes(4, 24, ()), DataFacts(160, 4, targets))
    optimizer = torch.optim.SGD([*student.parameters(), *module.parameters()], lr=0.05, momentum=0.9)
    for at in range(150):
        index = torch.randperm(160, generator=random)[:32]
        given_ = outputs("student", embedding=student(seen[index]).relu() + 2), outputs("teacher", embedding=teacher_says[index])
        loss = method.loss(*given_, batch_of(index, targets[index], at), module)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        ours, theirs = module(student(seen).relu() + 2, teacher_says)
    nearest = (ours @ theirs.T).argmax(1)
    assert (targets[nearest] == targets).double().mean().item() > 0.9
    assert (ours @ ours.T).mean().item() < 0.7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precise_embeddings_and_a_cold_tau_stay_finite(dtype):
    method = create_method("crd_queue", tau=0.001)
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
        given_ = outputs("student", embedding=drawn(4, 5).float()), outputs("teacher", embedding=drawn(4, 7).float())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(method.loss(*given_, batch_of(index, TARGETS[index]), module).item())
    assert losses[0] == losses[1]


def test_data_of_one_class_have_no_negatives_and_are_refused():
    with pytest.raises(InputError, match="two classes at least"):
        create_method("crd_queue").build(STUDENT, TEACHER, DataFacts(3, 3, torch.tensor([1, 1, 1])))
