"""What published programs gave for random inputs: functions, whole methods with their modules, CRD's banks and BSS's attack.

Where each value comes from stands in ../golden2/published.json, what the keys mean in the README beside it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from build_pages import method_page
from drawn import batch_of as batch_at
from drawn import outputs
from torch import Tensor, nn

from kdzoo import functional
from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.method import Method
from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.methods.bss import attack

GOLDEN = Path(__file__).resolve().parent.parent / "golden2"
CASES = json.loads((GOLDEN / "published.json").read_text())
ARRAYS = np.load(GOLDEN / "published.npz")
PAST_WARM_UPS = (120, 240, 0, 1)
"""where training stands in cases that do not say it"""


def of_kind(*kinds: str) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in CASES if case["kind"] in kinds]


def array(case: Mapping[str, Any], name: str) -> Tensor:
    return torch.tensor(ARRAYS[f"{case['id']}/{name}"])


def argument(case: Mapping[str, Any], name: str) -> Tensor | list[Tensor]:
    """A tensor, or as many as the case lists."""
    kind = case["arguments"][name]
    return [array(case, f"{name}/{i}") for i in range(len(kind))] if isinstance(kind, list) else array(case, name)


def listed(value: Tensor | list[Tensor]) -> list[Tensor]:
    return value if isinstance(value, list) else [value]


def below(case: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """The arrays of a case whose names begin with the prefix, by the rest of the name."""
    start = f"{case['id']}/{prefix}"
    return {key.removeprefix(start): torch.tensor(ARRAYS[key]) for key in ARRAYS.files if key.startswith(start)}


def check(case: Mapping[str, Any], loss: Tensor, found: Mapping[str, Iterable[Tensor]]) -> None:
    """The loss and the gradients, found by their names, against the published ones, times the factor that the case declares."""
    factor, tolerance = case["factor"], case["tolerance"]
    if factor == 0:
        return
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(factor * case["expected_loss"], rel=tolerance["loss"])
    assert found.keys() == case["gradients"].keys()
    for name, gradients in found.items():
        number = case["gradients"][name]
        expected = [array(case, f"grad_{name}/{i}") for i in range(number)] if number else [array(case, f"grad_{name}")]
        for got, wanted in zip(gradients, expected, strict=True):
            apart = torch.linalg.vector_norm(got - factor * wanted)
            assert apart <= tolerance["gradient"] * factor * torch.linalg.vector_norm(wanted), name


# Functions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", of_kind("function"))
def test_a_functions_loss_and_gradients_are_the_published_ones(case):
    arguments = {name: argument(case, name) for name in case["arguments"]}
    for name in case["gradients"]:
        for tensor in listed(arguments[name]):
            tensor.requires_grad_()
    loss = getattr(functional, case["name"])(**arguments, **case["hyperparameters"])
    loss.backward()
    check(case, loss, {name: [tensor.grad for tensor in listed(arguments[name])] for name in case["gradients"]})


# Methods --------------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """The network of the cases that look at gradients of images, in 0..255 and normalised with a mean of 0.5 and a deviation of 0.2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.linear = nn.Linear(96, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.conv((images / 255 - 0.5) / 0.2).tanh().flatten(1))


def linear(case: Mapping[str, Any], owner: str) -> nn.Linear:
    """The classifier of a case, of the student or the teacher."""
    state = below(case, f"{owner}_classifier.") or below(case, "classifier.")
    made = nn.Linear(*reversed(state["weight"].shape)).double()
    made.load_state_dict(state)
    return made


def small(case: Mapping[str, Any], owner: str) -> Small:
    made = Small().double()
    made.load_state_dict(below(case, f"{owner}_network/"))
    return made


def seen(case: Mapping[str, Any], owner: str) -> Outputs:
    """What one network of a case gave; the student's can be differentiated."""
    values: dict[str, Any] = {
        name.removeprefix(f"{owner}_"): argument(case, name) for name in case["arguments"] if name.startswith(f"{owner}_")
    }
    if owner == "student":
        for tensor in (t for value in values.values() for t in listed(value)):
            tensor.requires_grad_()
    if f"{owner}_classifier" in case:
        values["classifier"] = linear(case, owner)
    if case.get("embedding") == "mean of last stage" and owner == "student":
        values["embedding"] = values["stages"][-1].mean((2, 3))
    if case.get("logits_of_stage"):
        values["logits"] = values["classifier"](values["stages"][-1].mean((2, 3)))
    if case.get("networks") == "small":
        values["network"] = small(case, owner)
    return outputs(owner, **values)


def shapes(case: Mapping[str, Any], given: Outputs, classes: int, owner: str) -> Shapes:
    maps = given.get(Need.STAGES) or given.get(Need.PREACT) or []
    stages = tuple(StageShape(m.shape[1], m.shape[2], m.shape[3], 32 / m.shape[2]) for m in maps)
    embedding = given.get(Need.EMBEDDING)
    width = embedding.shape[1] if embedding is not None else stages[-1].channels if stages else 0
    classifier = linear(case, owner) if f"{owner}_classifier" in case or (owner == "teacher" and "classifier" in case) else None
    return Shapes(classes, case.get("ofa_width", width), stages, classifier=classifier)


def load(module: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Give the module the stored values; every one has a place, and every parameter that learns has a value."""
    learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert learning <= stored.keys() <= module.state_dict().keys()
    module.load_state_dict(stored, strict=False)


def class_number(case: Mapping[str, Any], given: Outputs) -> int:
    logits = given.get(Need.LOGITS)
    return case["classifier"][1] if "classifier" in case else logits.shape[1] if logits is not None else 10


def batch_of(case: Mapping[str, Any], clock: Progress) -> Batch:
    images = array(case, "images") if "images" in case["arguments"] else torch.zeros(1)
    targets = array(case, "targets") if "targets" in case["arguments"] else torch.zeros(1, dtype=torch.int64)
    random = torch.Generator().manual_seed(case.get("generator_seed", 0))
    return Batch(inputs=images, targets=targets, index=torch.arange(len(targets)), clock=clock, generator=random)


def factor_of(method: Method, case: Mapping[str, Any], clock: Progress) -> float:
    """What the loss is multiplied with: the ramp, and the published factor where the case has it."""
    return method.ramp(clock) * (method.card.published.term if case.get("coefficient") else 1.0)


def built(case: Mapping[str, Any], method: Method, student: Outputs, teacher: Outputs) -> nn.Module:
    """The method's module with the stored values, in training mode."""
    classes = class_number(case, student)
    sides = [shapes(case, given, classes, owner) for given, owner in ((student, "student"), (teacher, "teacher"))]
    module = method.build(*sides, DataFacts(10, classes, torch.arange(10) % classes)).double().train()
    load(module, below(case, "module/"))
    if case.get("frozen_margins"):
        module.margins.eval()
    return module


def gradients_of(name: str, student: Outputs, module: nn.Module) -> list[Tensor]:
    """The gradients that a case calls `name`: of a module's, a network's or a classifier's parameter, or of what the student gave."""
    owner, _, part = name.partition(":")
    if owner == "module":
        return [module.get_parameter(part).grad]
    if owner == "network":
        return [student.network.get_parameter(part).grad]
    if name.startswith("student_classifier."):
        return [student.classifier.get_parameter(name.removeprefix("student_classifier.")).grad]
    return [tensor.grad for tensor in listed(student.get(Need[name.removeprefix("student_").upper()]))]


@pytest.mark.parametrize("case", of_kind("method"))
def test_a_methods_loss_and_gradients_are_the_published_ones(case):
    method, student, teacher = create_method(case["name"], **case["hyperparameters"]), seen(case, "student"), seen(case, "teacher")
    module, clock = built(case, method, student, teacher), Progress(*case.get("clock", PAST_WARM_UPS))
    factor = method.card.published.term if case.get("coefficient") else 1.0
    loss = method.loss(student, teacher, batch_of(case, clock), module) * method.ramp(clock) * factor
    loss.backward()
    check(case, loss, {name: gradients_of(name, student, module) for name in case["gradients"]})
    if "deploy" in case["arguments"]:
        assert torch.allclose(method.deploy(student, module), array(case, "deploy"), rtol=1e-5, atol=1e-8)


# Banks and attacks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", of_kind("crd"))
def test_banks_and_normalisers_are_the_published_ones_after_three_steps(case, monkeypatch):
    method = create_method("crd", **case["hyperparameters"])
    sides = [Shapes(case["classes"], size, ()) for size in case["sizes"]]
    labels = torch.arange(case["samples"]) % case["classes"]
    memory = method.build(*sides, DataFacts(case["samples"], case["classes"], labels)).double().train()
    load(memory, below(case, "module/"))
    for step in range(case["steps"]):
        given = array(case, f"step{step}/student_embedding").requires_grad_()
        student, teacher = outputs("student", embedding=given), outputs("teacher", embedding=array(case, f"step{step}/teacher_embedding"))
        index, drawn = (array(case, f"step{step}/{name}") for name in ("index", "negatives"))
        monkeypatch.setattr(memory, "negatives", lambda *_, drawn=drawn: drawn)
        memory.zero_grad()
        loss = method.loss(student, teacher, batch_at(index, labels[index]), memory)
        loss.backward()
        assert loss.item() == pytest.approx(array(case, f"step{step}/loss").item(), rel=case["tolerance"]["loss"])
        prefix = f"step{step}/"
        for name in (name for name in case["gradients"] if name.startswith(prefix)):
            got = given.grad if name.endswith("embedding") else memory.get_parameter(name.removeprefix(f"{prefix}module:")).grad
            wanted = array(case, f"grad_{name}")
            assert torch.linalg.vector_norm(got - wanted) <= case["tolerance"]["gradient"] * torch.linalg.vector_norm(wanted), name
    for name, wanted in below(case, "after:").items():
        assert torch.allclose(memory.get_buffer(name), wanted, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("case", of_kind("attack"))
def test_the_attack_moves_images_to_where_the_published_one_does(case):
    images, base, other = (array(case, name) for name in ("images", "base", "other"))
    moved = attack(small(case, "teacher"), images, base, other, **case["hyperparameters"])
    wanted = array(case, "moved")
    assert (wanted != images).any()
    assert (moved - wanted).abs().max() < 1e-5  # of 255


# What departs, and what is covered ------------------------------------------------------------------------------------


def classes_of(case: Mapping[str, Any]) -> float:
    return float(array(case, "teacher_logits").shape[1])


def unbiased(case: Mapping[str, Any]) -> float:
    batch, _, height, width = array(case, "teacher_stages/0").shape
    cells = batch * height * width
    return cells / (cells - 1)


DEPARTURES = {
    "deit_soft": (classes_of, "divides by B x K, so that its loss is K times weaker"),
    "pkd": (unbiased, "its loss is (n - 1) / n of the paper's 1 - r"),
    "dist": (lambda case: 0.0, "the loss differs by 0.005 % and its gradient by 0.6 %"),
}
"""the factor between kdzoo's loss and the published one as a formula (0 where there is none), and how the method's page tells it"""


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES if case["agree"] == "declared"])
def test_a_departure_has_the_factor_that_the_methods_page_tells(case):
    factor, words = DEPARTURES[case["name"]]
    assert case["factor"] == pytest.approx(factor(case))
    assert words in method_page(case["name"])


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES if case["factor"] == 0])
def test_where_no_factor_is_told_the_difference_is_what_the_page_says(case):
    logits = array(case, "student_logits").requires_grad_()
    loss = functional.dist(logits, array(case, "teacher_logits"), **case["hyperparameters"])
    loss.backward()
    wanted = array(case, "grad_student_logits")
    assert loss.item() == pytest.approx(case["expected_loss"], rel=6e-5)
    assert torch.linalg.vector_norm(logits.grad - wanted) < 6e-3 * torch.linalg.vector_norm(wanted)


def test_every_case_is_looked_at():
    assert Counter(case["kind"] for case in CASES) == {"function": 63, "method": 24, "crd": 1, "attack": 1}
    assert {case["agree"] for case in CASES} == {"yes", "declared"}
    assert {case["name"].removesuffix("_attack") for case in CASES} <= set(REGISTRY.names())
