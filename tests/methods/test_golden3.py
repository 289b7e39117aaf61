"""What published programs of 2024 to 2026 gave for random inputs, for the methods that kdzoo has of them.

Where each value comes from stands in ../golden3/published.json, what the keys mean in the README beside it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from build_pages import method_page
from drawn import batch_of, outputs
from torch import Tensor

from kdzoo import functional
from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.methods.ea_hinton import entropy_weights
from kdzoo.methods.proteus import Heads
from kdzoo.methods.skd import direction
from kdzoo.methods.wkd_l import distances_by_cka, sharpen

GOLDEN = Path(__file__).resolve().parent.parent / "golden3"
CASES = {case["id"]: case for case in json.loads((GOLDEN / "published.json").read_text())}
ARRAYS = np.load(GOLDEN / "published.npz")
OURS = {
    "rsd": ("rsd", {}),
    "skd": ("skd", {}),
    "wkd_logits": ("wkd_l", {"regularization": "regularisation"}),
    "abkd": ("abkd", {"alpha": "teacher_power", "beta": "student_power"}),
    "eakd": ("ea_hinton", {"bound": "most_entropy"}),
    "eakd_dkd": ("ea_dkd", {"bound": "most_entropy"}),
    "radio": ("tokens", {}),
    "radio_summary": ("embed", {}),
}
"""the published names of functions and hyper-parameters, and kdzoo's"""
UNNAMED = ("standardize", "cosine_weight", "smooth_weight")
"""hyper-parameters of the published functions that are constants of kdzoo's"""


def array(case: Mapping[str, Any], name: str) -> Tensor:
    return torch.tensor(ARRAYS[f"{case['id']}/{name}"])


def hyperparameters(case: Mapping[str, Any]) -> dict[str, Any]:
    names = OURS[case["name"]][1]
    return {names.get(name, name): value for name, value in case["hyperparameters"].items() if name not in UNNAMED}


def check(case: Mapping[str, Any], loss: Tensor, gradients: Mapping[str, Tensor]) -> None:
    """The published loss and gradients, times the factor that the case declares."""
    factor, tolerance = case["factor"], case["tolerance"]
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(factor * case["expected_loss"], rel=tolerance["loss"])
    assert gradients.keys() == case["gradients"].keys()
    for name, got in gradients.items():
        wanted = factor * array(case, f"grad_{name}")
        assert torch.linalg.vector_norm(got - wanted) <= tolerance["gradient"] * torch.linalg.vector_norm(wanted), name


FUNCTIONS = [name for name, case in CASES.items() if case["kind"] == "function" and case["name"] in OURS]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_loss_and_gradient_are_the_published_ones(name):
    case = CASES[name]
    arguments = {argument: array(case, argument) for argument in case["arguments"]}
    for argument in case["gradients"]:
        arguments[argument].requires_grad_()
    loss = getattr(functional, OURS[case["name"]][0])(**arguments, **hyperparameters(case))
    loss.backward()
    check(case, loss, {argument: arguments[argument].grad for argument in case["gradients"]})


def test_every_method_of_these_papers_is_among_the_functions():
    assert {CASES[name]["name"] for name in FUNCTIONS} == OURS.keys()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["name"] == "skd_direction"])
def test_the_direction_term_of_skd_is_the_published_one(name):
    case = CASES[name]
    logits = array(case, "student_logits").requires_grad_()
    loss = direction(logits, array(case, "teacher_logits"), **case["hyperparameters"])
    loss.backward()
    check(case, loss, {"student_logits": logits.grad})


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["name"] == "skd_released"])
def test_skds_released_masks_are_factors_of_a_half_on_both_parts(name):
    case = CASES[name]
    student, teacher = (array(case, f"{owner}_logits") for owner in ("student", "teacher"))
    probabilities = teacher.softmax(1)
    unsure, rare = ((values <= values.quantile(0.5)).double().mean() for values in (probabilities.amax(1), probabilities.sum(0)))
    temperature, ridge = (case["hyperparameters"][key] for key in ("temperature", "ridge"))
    kl = functional.hinton(student, teacher, temperature=temperature)
    assert (unsure * kl + rare * direction(student, teacher, ridge=ridge)).item() == pytest.approx(case["expected_loss"], rel=1e-9)
    assert "factors of about a half" in method_page("skd")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["name"] == "rsd" and case["kind"] == "method"])
def test_rsd_with_its_projector_is_the_published_one(name):
    case = CASES[name]
    student, teacher = array(case, "student_embedding").requires_grad_(), array(case, "teacher_embedding")
    method = create_method("rsd", **case["hyperparameters"])
    stored = {part: array(case, f"module/{part}") for part in case["module"]}
    expansion = stored["expand.weight"].shape[0] // student.shape[1]
    method = method.model_copy(update={"expansion": expansion})
    module = (
        method.build(Shapes(5, student.shape[1], ()), Shapes(5, teacher.shape[1], ()), DataFacts(1, 5, torch.zeros(1))).double().train()
    )
    assert {part for part, _ in module.named_parameters()} <= stored.keys() <= module.state_dict().keys()
    module.load_state_dict(stored, strict=False)
    index = torch.arange(len(student))
    loss = method.loss(outputs("student", embedding=student), outputs("teacher", embedding=teacher), batch_of(index, index % 5), module)
    loss.backward()
    parts = {name: name.removeprefix("module:") for name in case["gradients"] if name.startswith("module:")}
    check(case, loss, {"student_embedding": student.grad, **{name: module.get_parameter(part).grad for name, part in parts.items()}})


def test_the_weights_by_entropy_are_the_published_ones():
    case = CASES["263_eakd_weights"]
    bound, temperature = (case["hyperparameters"][key] for key in ("bound", "entropy_temperature"))
    got = entropy_weights(array(case, "student_logits"), array(case, "teacher_logits"), temperature=temperature, most=bound)
    np.testing.assert_allclose(got.numpy(), ARRAYS["263_eakd_weights/expected_weights"], rtol=1e-8)


def test_the_costs_of_wkd_between_features_of_classes_are_the_published_ones():
    case = CASES["220_wkd_cost"]
    distances = distances_by_cka(array(case, "class_features"))
    np.testing.assert_allclose(distances.numpy(), ARRAYS["220_wkd_cost/expected_distance"], atol=1e-9)
    costs = sharpen(distances, case["hyperparameters"]["sharpen"])
    np.testing.assert_allclose(costs.numpy(), ARRAYS["220_wkd_cost/expected_cost"], atol=1e-9)


def test_where_a_power_is_0_the_released_abkd_is_half_of_the_limit_as_the_page_says():
    case = CASES["246_abkd"]
    assert (case["hyperparameters"]["alpha"], case["factor"]) == (0.5, 2.0)
    assert "with alpha = 0.5 it gives half of the limit" in method_page("abkd")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["name"] == "proteus"])
def test_proteus_with_its_heads_is_the_published_one(name):
    case = CASES[name]
    given = {argument: array(case, argument) for argument in case["arguments"]}
    for argument in case["gradients"]:
        if argument in given:
            given[argument].requires_grad_()
    ours, theirs = (given[f"{owner}_token"] for owner in ("student", "teacher"))
    patches = given.get("student_patches", torch.zeros(len(ours), 1, ours.shape[1], dtype=torch.float64))
    targets = given.get("teacher_patches", torch.zeros(len(ours), 1, theirs.shape[1], dtype=torch.float64))
    module = Heads(*(Shapes(5, x.shape[1], (StageShape(x.shape[1], 1, 1, 1.0),)) for x in (ours, theirs))).double()
    module.load_state_dict({part: array(case, f"module/{part}") for part in case["module"]}, strict=len(case["module"]) == 12)
    hidden = given.get("student_masked_patches", patches[:0])
    loss = functional.proteus(
        module.token(ours),
        module.feature(patches),
        module.patch(hidden),
        theirs,
        targets,
        given.get("mask", torch.zeros(len(hidden), patches.shape[1])) > 0,
        **case["hyperparameters"],
    )
    loss.backward()
    parts = {name: name.removeprefix("module:") for name in case["gradients"] if name.startswith("module:")}
    check(
        case,
        loss,
        {argument: given[argument].grad for argument in case["gradients"] if argument in given}
        | {name: module.get_parameter(part).grad for name, part in parts.items()},
    )


def test_theias_cosine_of_a_whole_image_is_another_loss_as_the_page_says():
    case = CASES["290_radio_image"]
    arguments = {argument: array(case, argument) for argument in case["arguments"]}
    assert abs(functional.tokens(**arguments).item() - case["expected_loss"]) > 0.01
    assert "Theia takes one for all tokens of an image" in method_page("tokens")
