"""Values and gradients that public implementations gave for random inputs; where each comes from stands in public.json."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kdzoo import functional
from kdzoo.contract.methods import REGISTRY

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
CASES = json.loads((GOLDEN / "public.json").read_text())
RENAMED = {"reviewkd_hcl": "reviewkd"}
"""functions by the name that the reference values have for them"""
COVERED = [case for case in CASES if RENAMED.get(case["function"], case["function"]) in functional.names()]
ARRAYS = np.load(GOLDEN / "public.npz")
EVER = {"at": 2, "cc": 1, "fitnet": 1, "hinton": 2, "irg": 1, "logits": 1, "pkt": 1, "rkd": 2, "sp": 1}
"""cases that must never go unchecked"""


def argument(case: dict, name: str, dtype: torch.dtype) -> Tensor | list[Tensor]:
    def one(key: str) -> Tensor:
        value = torch.tensor(ARRAYS[key])
        return value.to(dtype) if value.is_floating_point() else value

    place = f"{case['id']}/{name}"
    return [one(f"{place}/{i}") for i in range(case["stages"])] if name.endswith("stages") else one(place)


def gradients(case: dict, name: str) -> list[np.ndarray]:
    place = f"{case['id']}/grad_{name}"
    return [ARRAYS[f"{place}/{i}"] for i in range(case["stages"])] if name.endswith("stages") else [ARRAYS[place]]


def listed(value: Tensor | list[Tensor]) -> list[Tensor]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize(("dtype", "loss_error", "gradient_error"), [(torch.float64, 1e-6, 1e-5), (torch.float32, 1e-4, 1e-4)])
@pytest.mark.parametrize("case", COVERED, ids=lambda case: case["id"])
def test_the_loss_and_its_gradients_agree(case, dtype, loss_error, gradient_error):
    arguments = {name: argument(case, name, dtype) for name in case["arguments"]}
    students = {name: value for name, value in arguments.items() if name.startswith("student")}
    for tensor in (t for value in students.values() for t in listed(value)):
        tensor.requires_grad_()
    loss = getattr(functional, RENAMED.get(case["function"], case["function"]))(**arguments, **case["hyperparameters"])
    loss.backward()
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(case["expected_loss"], rel=loss_error)
    for name, value in students.items():
        for got, expected in zip(listed(value), gradients(case, name), strict=True):
            assert np.linalg.norm(got.grad.double().numpy() - expected) <= gradient_error * np.linalg.norm(expected)


def test_no_case_passes_by_not_being_looked_at():
    counts = {name: sum(case["function"] == name for case in COVERED) for name in EVER}
    assert counts == EVER
    waiting = sorted({case["function"] for case in CASES} - {case["function"] for case in COVERED})
    print(f"{len(COVERED)} of {len(CASES)} cases are checked; {len(CASES) - len(COVERED)} wait for {', '.join(waiting)}")


def test_every_method_with_a_case_offers_its_function():
    assert {case["function"] for case in CASES} & set(REGISTRY.names()) <= set(functional.names())


def test_every_method_but_one_made_of_stages_has_a_function_in_its_file():
    assert set(REGISTRY.own_names()) - set(functional.names()) == {"fitnet_two_stage"}
    for name in functional.names():
        assert getattr(functional, name).__module__ == REGISTRY.get(name).__module__


def test_an_unknown_function_is_refused_with_the_nearest_name():
    with pytest.raises(AttributeError, match=r"kdzoo\.functional: unknown 'hintn'; did you mean 'hinton'"):
        functional.hintn  # noqa: B018
