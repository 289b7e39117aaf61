"""What a run was set to is read back from its coefficients: `setting_of(objective(x)) == x` for every method and every axis."""

import pytest

from kdzoo.contract.card import Setting
from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError
from kdzoo.suite.plan.objectives import card_record, objective, objective_at
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.plan.settings import Point
from kdzoo.suite.report.settings import setting_of

NAMES = REGISTRY.own_names()
EPOCHS = 240


def resolve(name, setting, hyperparameters=None):
    return objective(parse_request(name), setting, {name: hyperparameters or {}}, "deep", EPOCHS)


def read_back(spec, doses=None):
    return setting_of(spec, {term.method: card_record(term.method) for term in spec.all_terms}, doses or {})


def has_one_term(name):
    return len(resolve(name, Setting()).terms) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if has_one_term(name)])
def test_an_alpha_a_factor_and_a_dose(name):
    for alpha in (0.3, 0.5, 0.95):
        found = read_back(resolve(name, Setting(alpha=alpha)))
        assert (found.alpha, found.weight) == (alpha, None)
    for weight in (0.3, 3.0, 10.0):
        found = read_back(resolve(name, Setting(weight=weight)))
        assert (found.alpha, found.weight) == (None, weight)
    card = REGISTRY.get(name).card
    if not card.no_dose and card.pretrain is None:
        spec = objective_at(parse_request(name), Point(Setting(dose=0.3)), "deep", EPOCHS, ratio_of=lambda unit: 0.02)
        found = read_back(spec, {name: {"dose": 0.3}})
        assert (found.dose, found.coefficient) == (0.3, 15.0)  # 0.3 / 0.02


@pytest.mark.parametrize("name", NAMES)
def test_a_hyper_parameter(name):
    for field, declared in REGISTRY.get(name)().model_dump(mode="json").items():
        for value in other_values(declared):
            try:
                spec = resolve(name, Setting(), {field: value})
            except InputError:
                continue  # not a value that this field takes
            found = read_back(spec)
            read = found.temperature if field == "temperature" else {**found.others, **without_method(name, found.others)}.get(field)
            assert read == value, field


def other_values(declared):
    if isinstance(declared, bool):
        return [not declared]
    return [2 * declared, declared / 2] if isinstance(declared, int | float) and declared else []


def without_method(name, others):
    """A pretrain stage's hyper-parameters stand with its name before them."""
    return {key.removeprefix(f"{name}."): value for key, value in others.items()}
