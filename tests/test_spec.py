"""A run's id: equal runs have equal ids whatever words were used, and anything that changes a number changes it."""

import ast
import copy
import inspect
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.errors import InputError
from kdzoo.runs import recipe, spec
from kdzoo.runs.canonical import canonical_json
from kdzoo.runs.fields import parse
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run, TermSpec

RESULTS = Path(__file__).resolve().parent.parent / "results"


def term(**changes):
    return TermSpec(**{"method": "hinton", "version": "1", "hyperparameters": {"temperature": 4.0}, "coefficient": 0.9, **changes})


def run(**changes) -> Run:
    values = {
        "student": NetworkSpec(name="resnet20", classes=10),
        "teacher": NetworkSpec(name="resnet56", classes=10, start="run:none-0123456789ab"),
        "data": DataSpec(name="cifar10", fingerprint="f00d", classes=10),
        "recipe": Recipe(epochs=2, batch_size=64, lr=0.1),
        "objective": ObjectiveSpec(task=0.1, terms=(term(),)),
        "seed": 0,
    }
    return Run(**{**values, **changes})


def test_id_is_the_method_and_twelve_hex_digits():
    label, _, digest = run().id.rpartition("-")
    assert label == "hinton"
    assert len(digest) == 12
    assert int(digest, 16) >= 0


def test_whole_floats_and_integers_are_one_value():
    four = run(objective=ObjectiveSpec(task=0.1, terms=(term(hyperparameters={"temperature": 4}),)))
    assert four.id == run().id


def test_a_run_survives_the_trip_through_its_file():
    text = canonical_json(run().model_dump(mode="json"))
    again = parse(Run, json.loads(text), "run")
    assert again.id == run().id
    assert again == run()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"engine": 99},
        {"data": DataSpec(name="cifar10", fingerprint="beef", classes=10)},
        {"data": DataSpec(name="cifar10", fingerprint="f00d", classes=10, split_seed=1)},
        {"recipe": Recipe(epochs=2, batch_size=64, lr=0.1, precision="bfloat16")},
        {"recipe": Recipe(epochs=2, batch_size=64, lr=0.1, augment=Augment(crop="pad", pad=4))},
        {"recipe": Recipe(epochs=2, batch_size=64, lr=0.1, augment=Augment(cutout=8))},
        {"recipe": Recipe(epochs=2, batch_size=64, lr=0.1, augment=Augment(saturation=0.4))},
        {"recipe": Recipe(epochs=2, batch_size=64, lr=0.1, augment=Augment(randaugment=2))},
        {"recipe": Recipe(epochs=2, batch_size=64, lr=0.1, mixup=0.2)},
        {"recipe": Recipe(epochs=2, batch_size=64, lr=0.1, cutmix=1.0)},
        {"objective": ObjectiveSpec(task=0.1, terms=(term(version="2"),))},
        {"objective": ObjectiveSpec(task=0.1, terms=(term(coefficient=0.8),))},
        {"student": NetworkSpec(name="resnet20", classes=10, stem="small")},
    ],
)
def test_whatever_changes_a_number_changes_the_id(changes):
    assert run(**changes).id != run().id


def test_what_a_recipe_leaves_out_is_no_part_of_an_id_and_what_it_says_is():
    plain = Recipe(epochs=2, batch_size=64, lr=0.1, augment=Augment(cutout=0, randaugment=0, brightness=0.0))
    assert run(recipe=plain).id == run().id
    assert set(plain.model_dump()["augment"]) == {"crop", "pad", "padding", "flip", "size", "min_area"}
    assert {"mixup", "cutmix", "mix_prob", "dot"}.isdisjoint(plain.model_dump())
    ids = [
        run(
            recipe=Recipe(epochs=2, batch_size=64, lr=0.1, mixup=0.2, mix_prob=probability, augment=Augment(randaugment=2, magnitude=size))
        ).id
        for probability, size in ((1.0, 9.0), (0.5, 9.0), (1.0, 10.0))
    ]
    assert len(set(ids)) == 3
    assert run(recipe=Recipe(epochs=2, batch_size=64, lr=0.1, mixup=0.2, augment=Augment(randaugment=2))).id == ids[0]


def test_a_recipe_that_mixes_survives_the_trip_through_its_file():
    whole = run(recipe=Recipe(epochs=2, batch_size=64, lr=0.1, cutmix=1.0, mix_prob=0.5, augment=Augment(randaugment=1, cutout=4)))
    again = parse(Run, json.loads(canonical_json(whole.model_dump(mode="json"))), "run")
    assert again == whole
    assert again.id == whole.id


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/runs/*/run.json")), ids=lambda file: file.parent.name)
def test_the_runs_of_the_committed_results_have_the_ids_they_had(file):
    written = json.loads(file.read_text())
    assert parse(Run, written["run"], "run").id == written["id"] == file.parent.name


def test_terms_are_in_order_and_none_twice():
    with pytest.raises(InputError, match="none twice"):
        parse(ObjectiveSpec, {"task": 1, "terms": [term().model_dump(), term().model_dump()]}, "objective")


def test_every_fault_is_reported_at_once_with_its_place_and_the_nearest_name():
    with pytest.raises(InputError) as error:
        parse(Recipe, {"epoch": 3, "batch_size": 0, "lr": True, "weight_decay": float("nan")}, "recipe")
    text = str(error.value)
    assert "recipe.epoch: unknown; did you mean 'epochs'?" in text
    assert "recipe.epochs: missing" in text
    assert "recipe.batch_size: expected a number > 0, got 0" in text
    assert "recipe.lr: expected a number, got True" in text
    assert "recipe.weight_decay" in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_canonical_json_is_a_fixed_point(value):
    once = canonical_json(value)
    assert canonical_json(json.loads(once)) == once


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": float("nan")})


@pytest.mark.parametrize("module", [spec, recipe])
def test_type_checkers_see_every_default(module):
    """`x: int = Field(0, ...)` is a required argument to them: PEP 681 knows `default=` and a plain value alone."""
    fields = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.AnnAssign)]
    hidden = [
        ast.unparse(one) for one in fields if isinstance(one.value, ast.Call) and ast.unparse(one.value.func) == "Field" and one.value.args
    ]
    assert hidden == []


def test_a_changed_copy_of_a_run_has_its_own_id_and_an_equal_one_the_same():
    """The id is kept after it was computed, but a copy that `model_copy` changes has one of its own."""
    one = run()
    first = one.id
    assert one.model_copy(update={"seed": one.seed + 1}).id == run(seed=one.seed + 1).id != first
    assert one.model_copy(deep=True).id == one.model_copy().id == first
    assert copy.deepcopy(one) == one
