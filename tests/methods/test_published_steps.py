"""Eight steps of training in float64, beside the published step written out: CE and the loss, SGD with momentum and decay.

The losses below are written from the papers and the programs behind the CIFAR-100 tables, by other means than kdzoo's: with
differences of all pairs instead of products, masks instead of taken-out classes, layers as functions. Both sides start from the
same weights and see the same images; what is compared is every step's loss and the weights at the end.
"""

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.build_objective import build_objective
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.contract.objective import Objective
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes
from kdzoo.models.network import Network, freeze
from kdzoo.models.stages import pair_stages
from kdzoo.runs.spec import NetworkSpec, ObjectiveSpec, TermSpec
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.training.optim import learning_rate, optimizer

STEPS, BATCH, SIDE, CLASSES = 8, 16, 8, 10
EVERYTHING = Need.LOGITS | Need.EMBEDDING | Need.STAGES
State = Mapping[str, Tensor]
"""the parameters of a method's module by their names"""


def hinton(student: Outputs, teacher: Outputs, targets: Tensor, state: State) -> Tensor:
    p, q = (F.softmax(z / 4, dim=1) for z in (teacher.logits, student.logits))
    return 16 * F.kl_div(q.log(), p, reduction="sum") / len(targets)


def at(student: Outputs, teacher: Outputs, targets: Tensor, state: State) -> Tensor:
    def attention(maps: Tensor) -> Tensor:
        return F.normalize(maps.pow(2).mean(1).view(len(maps), -1))

    return sum((attention(s) - attention(t)).pow(2).mean() for s, t in zip(student.stages, teacher.stages, strict=True))


def rkd(student: Outputs, teacher: Outputs, targets: Tensor, state: State) -> Tensor:
    def distances(rows: Tensor) -> Tensor:
        apart = (rows[:, None] - rows[None]).pow(2).sum(2).clamp(min=1e-12).sqrt() * (1 - torch.eye(len(rows)))
        return apart / apart[apart > 0].mean()

    def angles(rows: Tensor) -> Tensor:
        directions = F.normalize(rows[None] - rows[:, None], dim=2)
        return torch.einsum("ijd,ikd->ijk", directions, directions)

    s, t = student.embedding, teacher.embedding
    return 25 * F.smooth_l1_loss(distances(s), distances(t)) + 50 * F.smooth_l1_loss(angles(s), angles(t))


def dkd(student: Outputs, teacher: Outputs, targets: Tensor, state: State) -> Tensor:
    target = F.one_hot(targets, CLASSES).to(student.logits)

    def binary(z: Tensor) -> Tensor:
        p = F.softmax(z / 4, dim=1)
        return torch.stack([(p * target).sum(1), (p * (1 - target)).sum(1)], 1)

    def others(z: Tensor) -> Tensor:
        return F.log_softmax(z / 4 - 1000 * target, dim=1)

    of_target = F.kl_div(binary(student.logits).log(), binary(teacher.logits), reduction="batchmean")
    of_others = F.kl_div(others(student.logits), others(teacher.logits).exp(), reduction="batchmean")
    return 16 * (of_target + 8 * of_others)


def sp(student: Outputs, teacher: Outputs, targets: Tensor, state: State) -> Tensor:
    def similarity(maps: Tensor) -> Tensor:
        rows = maps.view(len(maps), -1)
        return F.normalize(torch.mm(rows, rows.t()))

    apart = similarity(teacher.stages[-1]) - similarity(student.stages[-1])
    return apart.pow(2).sum() / len(targets) ** 2


def vid(student: Outputs, teacher: Outputs, targets: Tensor, state: State) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i, (s, t) in enumerate(zip(student.stages, teacher.stages, strict=True)):
        mean = s
        for layer in (0, 2, 4):
            mean = F.conv2d(F.relu(mean) if layer else mean, state[f"means.{i}.{layer}.weight"])
        variance = (torch.log(1 + torch.exp(state[f"scales.{i}"])) + 1e-5)[None, :, None, None]
        total = total + (0.5 * ((mean - t) ** 2 / variance + torch.log(variance))).mean()
    return total


def simkd(student: Outputs, teacher: Outputs, targets: Tensor, state: State) -> Tensor:
    def norm(x: Tensor, layer: int) -> Tensor:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = (state[f"projector.{layer}.{name}"][None, :, None, None] for name in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = F.relu(norm(F.conv2d(student.stages[-1], state["projector.0.weight"]), 1))
    x = F.relu(norm(F.conv2d(x, state["projector.3.weight"], padding=1), 4))
    x = F.relu(norm(F.conv2d(x, state["projector.6.weight"]), 7))
    return F.mse_loss(x, teacher.stages[-1])


PUBLISHED: Mapping[str, tuple[float, float, Callable[..., Tensor]]] = {
    "hinton": (0.1, 0.9, hinton),
    "at": (1.0, 1000.0, at),
    "rkd": (1.0, 1.0, rkd),
    "dkd": (1.0, 1.0, dkd),
    "sp": (1.0, 3000.0, sp),
    "vid": (1.0, 1.0, vid),
    "simkd": (0.0, 1.0, simkd),
}
"""the factor on CE, that on the loss, and the loss"""


def small(name: str, seed: int) -> Network:
    made = build_network(NetworkSpec(name=name, classes=CLASSES), channels=1, side=SIDE, mean=(0.3,), std=(0.35,), seed=seed)
    return made.double()


def batches() -> list[Batch]:
    """One a step, each a step of another epoch, so that warm-ups rise."""
    random = torch.Generator().manual_seed(0)
    return [
        Batch(
            inputs=torch.randint(0, 256, (BATCH, 1, SIDE, SIDE), dtype=torch.uint8, generator=random),
            targets=torch.randint(CLASSES, (BATCH,), generator=random),
            index=torch.arange(BATCH),
            clock=Progress(step, 240, step, 240),
            generator=random,
        )
        for step in range(STEPS)
    ]


def objective_of(name: str, student: Network, teacher: Network) -> Objective:
    shapes = [measure_shapes(network, (1, SIDE, SIDE)) for network in (student, teacher)]
    card = REGISTRY.get(name).card
    term = TermSpec(method=name, version=card.version, hyperparameters={}, coefficient=card.published.term)
    spec = ObjectiveSpec(task=card.published.task, terms=(term,))
    facts = DataFacts(BATCH, CLASSES, torch.arange(BATCH) % CLASSES)
    pairs = pair_stages(*shapes, "left")
    return build_objective(spec, *shapes, pairs, facts, label_smoothing=0.0, seed=0).double()


def steps_of_kdzoo(name: str, student: Network, teacher: Network, objective: Objective) -> list[float]:
    recipe = recipe_file("crd240").resolve("resnet20", {})
    optimiser = optimizer(recipe, student, objective.groups())
    found = []
    for step, batch in enumerate(batches()):
        for group in optimiser.param_groups:
            group["lr"] = group["lr_factor"] * learning_rate(recipe, step, 240)
        with torch.no_grad():
            said = teacher(batch.inputs, objective.needs.teacher.outputs)
        losses = objective(student(batch.inputs, objective.needs.student.outputs), said, batch)
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(losses.total.item())
    return found


def published_steps(name: str, student: Network, teacher: Network, state: State) -> list[float]:
    """v <- 0.9 v + g + 5e-4 w, w <- w - 0.05 v, of everything that learns."""
    task, weight, loss = PUBLISHED[name]
    learning = [*student.parameters(), *state.values()]
    velocities = [torch.zeros_like(parameter) for parameter in learning]
    found = []
    for step, batch in enumerate(batches()):
        with torch.no_grad():
            said = teacher(batch.inputs, EVERYTHING)
        seen = student(batch.inputs, EVERYTHING)
        ramp = min((step + 1) / 20, 1.0) if name == "dkd" else 1.0
        total = weight * ramp * loss(seen, said, batch.targets, state)
        if task:
            total = total + task * F.cross_entropy(seen.logits, batch.targets)
        gradients = torch.autograd.grad(total, learning, allow_unused=True)
        with torch.no_grad():
            for parameter, velocity, gradient in zip(learning, velocities, gradients, strict=True):
                if gradient is not None:  # a classifier that no loss reaches is left alone
                    velocity.mul_(0.9).add_(gradient + 5e-4 * parameter)
                    parameter.sub_(0.05 * velocity)
        found.append(total.item())
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_eight_steps_are_the_published_ones(name):
    task, weight, _ = PUBLISHED[name]
    assert (task, weight) == (REGISTRY.get(name).card.published.task, REGISTRY.get(name).card.published.term)
    student, teacher = small("digits_student", seed=0).train(), freeze(small("digits_teacher", seed=1))
    objective = objective_of(name, student, teacher).train()
    other = copy.deepcopy(student)
    state = {n: p.detach().clone().requires_grad_() for n, p in objective.parts[name].named_parameters() if p.requires_grad}
    here, published = steps_of_kdzoo(name, student, teacher, objective), published_steps(name, other, teacher, state)
    assert here == pytest.approx(published, rel=1e-12)
    assert len(set(here)) == STEPS
    for ours, theirs in zip(student.parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-11, atol=1e-12)
    for parameter, value in state.items():
        assert torch.allclose(objective.parts[name].get_parameter(parameter), value, rtol=1e-11, atol=1e-12), parameter
