"""Dropout and max-norm: what their papers' equations say, the same after a stop and in every cohort, refused where they have no place."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from trained_teachers import train_teachers

from kdzoo.contract.batch import Progress
from kdzoo.contract.needs import Need
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.network import Network
from kdzoo.models.normalisation import Normalisation
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import NetworkSpec
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.preflight import preflight
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.untrained import Untrained
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.located import Modules
from kdzoo.training.regularise import dropout_rates, limit_norms, refuse_regularisation, set_dropout
from kdzoo.training.train import Stopped

UNIT = Normalisation(mean=(0.0,), std=(1.0,))
FIRST = Progress(epoch=0, epochs=4, step=0, steps=8)
LIMIT = 0.6
PLAIN_TEACHER = {
    "teacher_recipe.epochs": 15,
    "teacher_recipe.dropout": 0,
    "teacher_recipe.input_dropout": 0,
    "teacher_recipe.dropout_schedule": "constant",
    "teacher_recipe.max_norm": None,
}
WHOLE = {"recipe.dropout": 0.5, "recipe.input_dropout": 0.2, "recipe.dropout_schedule": "linear", "recipe.max_norm": LIMIT}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def recipe(**changes) -> Recipe:
    return Recipe(**{"epochs": 4, "batch_size": 8, "lr": 0.1, **changes})


def network(name: str, side: int = 8) -> Network:
    spec = NetworkSpec(name=name, classes=10, norm=UNIT)
    return build_network(spec, channels=1, side=side, mean=(0.5,), std=(0.5,), seed=0)


def images(count: int = 16, side: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_dropout_weakens_in_equal_steps_and_stays_as_it_is_unless_asked():
    weakened = recipe(dropout=0.5, input_dropout=0.2, dropout_schedule="linear")
    assert [dropout_rates(weakened, epoch) for epoch in range(4)] == [
        pytest.approx(rates) for rates in ((0.2, 0.5), (0.15, 0.375), (0.1, 0.25), (0.05, 0.125))
    ]
    assert {dropout_rates(recipe(dropout=0.5, input_dropout=0.2), epoch) for epoch in range(4)} == {(0.2, 0.5)}


def test_an_mlp_in_training_is_its_equations_under_the_masks_that_torch_draws():
    """Each layer drops a share of its inputs and scales the rest by 1 / (1 - share), pixels at a share of their own."""
    made = network("mlp_20_12")
    set_dropout(recipe(dropout=0.5, input_dropout=0.25), FIRST, [made])
    values = {name: value.detach() for name, value in made.model.named_parameters()}
    torch.manual_seed(3)
    masks = [F.dropout(torch.ones(16, width), share) for width, share in ((64, 0.25), (20, 0.5), (12, 0.5))]
    assert [sorted(set(mask.flatten().tolist())) for mask in masks] == [[0, pytest.approx(4 / 3)], [0, 2], [0, 2]]
    x = images().flatten(1) / 255 * masks[0]
    first = (x @ values["stage1.2.weight"].T + values["stage1.2.bias"]).clamp(min=0)
    second = (first * masks[1] @ values["stage2.2.weight"].T + values["stage2.2.bias"]).clamp(min=0)
    expected = second * masks[2] @ values["classifier.weight"].T + values["classifier.bias"]
    torch.manual_seed(3)
    out = made.train()(images(), Need.LOGITS | Need.STAGES | Need.EMBEDDING)
    assert torch.allclose(out.logits, expected, atol=1e-5)
    assert [tuple(stage.shape) for stage in out.stages] == [(16, 20, 1, 1), (16, 12, 1, 1)]
    assert torch.allclose(out.stages[0].flatten(1), first, atol=1e-6)
    assert torch.allclose(out.embedding, second * masks[2], atol=1e-6)


def test_nothing_is_dropped_at_evaluation_or_where_a_recipe_does_not_say_so():
    dropping, plain = network("mlp_20_12"), network("mlp_20_12")
    set_dropout(recipe(dropout=0.5, input_dropout=0.25), FIRST, [dropping])
    set_dropout(recipe(), FIRST, [plain])
    expected = plain.eval().logits(images())
    assert torch.equal(dropping.eval().logits(images()), expected)
    assert torch.equal(plain.train().logits(images()), expected)


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 2, 2)], ids=["linear", "convolution"])
def test_max_norm_scales_the_units_above_it_down_to_it_and_leaves_the_others_bit_for_bit(shape):
    weight = torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        weight[0] *= 0.01
        weight[1] = 0
    before = weight.detach().clone()
    limit_norms([weight], 1.2)
    for unit, (row, was) in enumerate(zip(weight.detach(), before, strict=True)):
        norm = float(was.double().square().sum().sqrt())
        if norm <= 1.2:
            assert torch.equal(row, was), unit
        else:
            assert torch.allclose(row.double(), was.double() * 1.2 / norm, rtol=1e-6), unit
    assert unit == 4
    assert (before.flatten(1).norm(dim=1) > 1.2).sum() == 3


def test_max_norm_is_of_hidden_units_alone():
    assert [tuple(layer.weight.shape) for layer in network("mlp_20_12").hidden_layers] == [(20, 64), (12, 20)]
    found = network("digits_student").hidden_layers
    assert [type(layer).__name__ for layer in found] == ["Conv2d"] * 3


def test_dropout_and_max_norm_are_refused_where_a_network_has_no_place_for_them():
    with pytest.raises(InputError, match=r"recipe.input_dropout: digits_student has no dropout that a recipe can set; expected a fully"):
        refuse_regularisation(recipe(input_dropout=0.2), "digits_student", network("digits_student"))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    spec = NetworkSpec(name="module:Sequential", classes=10)
    linear = build_network(spec, channels=1, side=8, mean=(0.5,), std=(0.5,), seed=0, module=module)
    with pytest.raises(InputError, match=r"recipe.max_norm: linear has no linear or convolutional layer below its classifier"):
        refuse_regularisation(recipe(max_norm=2.0), "linear", linear)
    refuse_regularisation(recipe(max_norm=2.0), "digits_student", network("digits_student"))
    refuse_regularisation(recipe(dropout=0.5, max_norm=2.0), "mlp_20_12", network("mlp_20_12"))


def test_a_bench_refuses_them_before_any_work(tmp_path):
    made = plan(bench_config({"results": str(tmp_path), "data": "digits", "pairs": "digits", "set": {"recipe.dropout": 0.5}}, None))
    with pytest.raises(InputError, match=r"recipe.dropout: digits_teacher has no dropout that a recipe can set"):
        preflight(made, Untrained(Modules()))


def planned(folder, **options) -> Plan:
    """Two epochs of a small fully connected network on part of the digits under another, trained without regularisation."""
    given = {
        "results": str(folder),
        "name": "b",
        "data": "digits",
        "teacher": "mlp_24",
        "student": "mlp_16_12",
        "recipe": "digits",
        "epochs": 2,
        "limit": 200,
        "seeds": "1",
        "methods": "hinton,dml",
        **options,
        "set": {**PLAIN_TEACHER, **options.get("set", WHOLE)},
    }
    made = plan(bench_config(given, None))
    train_teachers(made)
    for student in made.students:
        made.store.run(student.run.id).plan(student.run, student.about)
    return made


def train(made: Plan, *groups: list[str], **options) -> None:
    for group in groups:
        train_runs(made.store, group, WorkerOptions(**options), WorkerState(), lambda _: None, lambda: False)
    assert {made.store.run(planned.run.id).state() for planned in made.students} == {"done"}


def weights(made: Plan) -> dict[str, dict[str, torch.Tensor]]:
    return {planned.run.id: load_file(made.store.run(planned.run.id).student) for planned in made.students}


def same(one: dict[str, dict[str, torch.Tensor]], other: dict[str, dict[str, torch.Tensor]]) -> bool:
    return all(torch.equal(value, other[run_id][name]) for run_id, state in one.items() for name, value in state.items())


def test_dropout_and_max_norm_end_at_the_same_bits_after_a_stop_and_in_another_cohort(tmp_path):
    """dml trains a peer of the student's architecture beside it, which is regularised as the student is."""
    whole, broken, apart = (planned(tmp_path / name) for name in ("whole", "broken", "apart"))
    ids = [planned.run.id for planned in whole.students]
    assert len(ids) == 3
    train(whole, ids)
    for stop_at in (1, 1):
        asked = iter(range(1000))
        with pytest.raises(Stopped):
            train_runs(broken.store, ids, WorkerOptions(), WorkerState(), lambda _: None, lambda at=stop_at, asked=asked: next(asked) >= at)
    train(broken, ids)
    train(apart, *([run_id] for run_id in reversed(ids)))
    assert same(weights(whole), weights(broken))
    assert same(weights(whole), weights(apart))
    for state in weights(whole).values():
        norms = [state[f"{layer}.weight"].norm(dim=1) for layer in ("stage1.2", "stage2.2")]
        assert max(float(norm.max()) for norm in norms) <= LIMIT * (1 + 1e-6)
        assert float(state["classifier.weight"].norm(dim=1).max()) > LIMIT


def test_each_setting_is_another_run_and_its_weights_are_others(tmp_path):
    states = []
    for changes in ({}, {"recipe.dropout": 0.5}, {"recipe.input_dropout": 0.2}, WHOLE):
        made = planned(tmp_path, methods="none", set=changes)
        train(made, [planned.run.id for planned in made.students])
        states += list(weights(made).items())
    assert len(states) == 8  # each setting of the student alone and of plain KD
    assert len({run_id for run_id, _ in states}) == len({state["classifier.bias"].numpy().tobytes() for _, state in states}) == 8


def test_students_that_are_one_batched_computation_drop_the_same_units(tmp_path):
    stacked, alone = planned(tmp_path / "stacked"), planned(tmp_path / "alone")
    ids = [planned.run.id for planned in alone.students]
    train(alone, ids)
    train(stacked, ids, stack_students=True)
    for run_id, state in weights(alone).items():
        for name, expected in state.items():
            assert torch.allclose(expected, weights(stacked)[run_id][name], rtol=1e-3, atol=1e-4), (run_id, name)


def test_a_rate_that_nothing_drops_is_refused_and_what_is_not_used_is_no_part_of_an_id():
    for changes, words in (
        ({"dropout_schedule": "linear"}, "dropout_schedule: expected dropout or input_dropout"),
        ({"dropout": 0.5, "learns": "head"}, "dropout: expected learns 'all'"),
        ({"max_norm": 3.0, "learns": "head"}, "max_norm: expected learns 'all'"),
        ({"dropout": 1.0}, "less than 1"),
        ({"max_norm": 0.0}, "greater than 0"),
    ):
        with pytest.raises(ValueError, match=words):
            recipe(**changes)
    keys = {"dropout", "input_dropout", "dropout_schedule", "max_norm"}
    assert keys.isdisjoint(recipe().model_dump())
    assert keys & set(recipe(dropout=0.5).model_dump()) == {"dropout"}
    assert keys & set(recipe(input_dropout=0.2, max_norm=3).model_dump()) == {"input_dropout", "max_norm"}
