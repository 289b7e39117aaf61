"""crd240 is the recipe of CRD's tables: its schedule, constants, rates, weights of single pairs, and its teachers' files."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError
from kdzoo.files import CONFIGS
from kdzoo.models.pairs import PAIRS
from kdzoo.models.placement import Placement
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import Run
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.recipe_files import RecipeFile, recipe_file
from kdzoo.suite.plan.refit import wants_refit
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.report.settings import setting_of
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.optim import learning_rate
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_student import student_network
from kdzoo.training.run_teacher import load_teacher

GOLDEN = Path(__file__).resolve().parent.parent / "golden2"
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
"""as RepDistiller and what came after it have them"""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder with a CIFAR-100 of noise: two training images a class and one test image."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (root / "cifar100").mkdir()
    for part, copies in (("train", 2), ("test", 1)):
        labels = np.tile(np.arange(100), copies)
        np.savez(root / "cifar100" / f"{part}.npz", images=rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8), labels=labels)
    return root


@pytest.fixture
def crd(place, images):
    """A plan by crd240 on these images, with other options where they are given."""

    def made(**options) -> Plan:
        asked = {"data": "cifar100", "data_root": str(images), "recipe": "crd240", "results": str(place / "results"), "seeds": [0]}
        return plan(bench_config({**asked, **options}, None))

    return made


def of(made: Plan, method: str) -> Run:
    (run,) = [planned.run for planned in made.students if planned.run.objective.label == method]
    return run


def published_rate(step: int, rate: float) -> float:
    """RepDistiller's adjust_learning_rate at a step of 3 an epoch, whose epochs count from 1: a tenth for each milestone that is past."""
    epoch = step // 3 + 1
    return rate * 0.1 ** sum(epoch > milestone for milestone in (150, 180, 210))


@pytest.mark.parametrize(("student", "rate"), [("resnet20", 0.05), ("vgg8", 0.05), ("mobilenetv2_half", 0.01), ("shufflenetv2", 0.01)])
def test_the_rate_is_the_published_one_at_720_of_720_steps(student, rate):
    recipe = recipe_file("crd240").resolve(student, {})
    found = [learning_rate(recipe, step, 720) for step in range(720)]
    assert found == pytest.approx([published_rate(step, rate) for step in range(720)], rel=1e-12)


def test_the_rate_is_that_of_torchs_own_scheduler():
    recipe = recipe_file("crd240").resolve("resnet20", {})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.05)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [150, 180, 210], 0.1)
    for epoch in range(240):
        assert learning_rate(recipe, epoch * 782, 240 * 782) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["crd240", "aber200"])
def test_with_any_number_of_epochs_the_rate_changes_between_epochs_alone(name):
    file = recipe_file(name)
    shares = [Fraction(milestone) for milestone in file.recipe["milestones"]]  # binary fractions, so exact
    for epochs in (*range(1, 13), 30, 100, 117, 160, 239, 240):
        recipe = file.resolve("resnet20", {"epochs": epochs})
        ends = [max(1, math.floor(share * epochs + Fraction(1, 2))) for share in shares]
        for steps in (1, 7):
            found = [learning_rate(recipe, step, steps * epochs) for step in range(steps * epochs)]
            expected = [recipe.lr * 0.1 ** sum(step // steps >= end for end in ends) for step in range(steps * epochs)]
            np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=f"{epochs} epochs of {steps} steps")


def test_a_first_stage_ends_before_the_rate_drops(crd):
    run = of(crd(pairs="resnet56/resnet20", methods="ab"), "ab")
    first = run.pretrain_run.recipe
    assert (first.epochs, first.lr) == (30, 0.05)
    assert {learning_rate(first, step, 90) for step in range(90)} == {0.05}


def test_everything_is_as_published(crd):
    made = crd(pairs="resnet56/resnet20", methods="dkd")
    run = of(made, "dkd")
    expected = {
        "epochs": 240,
        "batch_size": 64,
        "lr": 0.05,
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "decay": "all",
        "gamma": 0.1,
        "mean": MEAN,
        "std": STD,
        "label_smoothing": 0.0,
        "ema": None,
        "precision": "float32",
    }
    (teacher,) = made.teachers.values()
    for recipe in (run.recipe, teacher.run.recipe):
        assert {name: getattr(recipe, name) for name in expected} == expected
        crop = recipe.augment
        assert (crop.crop, crop.pad, crop.padding, crop.flip, crop.has_few_views) == ("pad", 4, "zero", True, True)
    assert (run.data.val_fraction, teacher.run.data.val_fraction) == (0, 0)
    assert of(crd(pairs="resnet56/resnet20", methods="at"), "at").objective.pairing == "left"


def test_networks_take_images_with_the_recipes_constants_and_other_data_keep_their_own(crd, place):
    made = crd(pairs="resnet20/resnet8", methods="none", limit=120)
    write_plan(made)
    located = LocatedRun.read(made.store.run(of(made, "none").id))
    loaded, _ = load_run_data(located)
    student = student_network(located, loaded, Modules())
    assert student.mean.flatten().tolist() == pytest.approx(MEAN)
    assert student.std.flatten().tolist() == pytest.approx(STD)
    assert recipe_file("crd240").resolve("resnet20", {}, "cifar10").mean is None
    assert "mean" not in recipe_file("crd240").resolve("resnet20", {}, "cifar10").model_dump()


def test_two_recipes_of_other_constants_do_not_share_what_a_worker_keeps(crd):
    kept = WorkerState()
    means = []
    for mean in (None, [0.1, 0.2, 0.3]):
        changes = {} if mean is None else {"recipe.mean": mean, "recipe.std": [0.2, 0.2, 0.2]}
        made = crd(pairs="resnet20/resnet8", methods="none", set=changes)
        write_plan(made)
        located = LocatedRun.read(made.store.run(of(made, "none").id))
        means.append(kept.data(located, WorkerOptions(device="cpu", threads=1))[0].mean)
    assert means == [MEAN, (0.1, 0.2, 0.3)]


def test_constants_of_another_number_of_channels_are_refused_by_name(crd):
    made = crd(pairs="resnet20/resnet8", methods="none", set={"recipe.mean": [0.5], "recipe.std": [0.5]})
    write_plan(made)
    with pytest.raises(InputError, match=r"recipe\.mean: expected as many numbers as cifar100 has channels, 3, got \[0\.5\]"):
        load_run_data(LocatedRun.read(made.store.run(of(made, "none").id)))
    with pytest.raises(InputError, match=r"expected as many numbers as std has"):
        crd(pairs="resnet20/resnet8", set={"recipe.mean": [0.5, 0.5]})


@pytest.mark.parametrize(
    ("pair", "dkd", "reviewkd"),
    [
        ("resnet56/resnet20", 2, 0.6),
        ("resnet110/resnet32", 2, 1),
        ("cifar_vgg13/vgg8", 6, 5),
        ("wrn_40_2/wrn_16_2", 6, 5),
        ("wrn_40_2/wrn_40_1", 6, 5),
        ("resnet32x4/resnet8x4", 8, 5),
        ("resnet32x4/shufflenetv2", 8, 8),
        ("cifar_vgg13/mobilenetv2_half", 6, 5),
        ("cifar_resnet50/mobilenetv2_half", 8, 5),
        ("wrn_40_2/shufflenetv1", 8, 5),
    ],
)
def test_a_pair_has_the_weights_that_papers_give_it(crd, pair, dkd, reviewkd):
    made = crd(pairs=pair, methods="dkd,reviewkd")
    (term,) = of(made, "dkd").objective.terms
    assert (term.coefficient, term.hyperparameters["target_weight"], term.hyperparameters["nontarget_weight"]) == (1, 1, dkd)
    (term,) = of(made, "reviewkd").objective.terms
    assert term.coefficient == reviewkd


def test_standardised_logits_have_the_temperature_and_the_factor_of_each_pair(crd):
    found = {}
    for pair in ("resnet56/resnet20", "resnet110/resnet20", "cifar_resnet50/mobilenetv2_half"):
        made = crd(pairs=pair, methods="logit_std,logit_std_dkd")
        terms = [of(made, method).objective.terms[0] for method in ("logit_std", "logit_std_dkd")]
        found[pair] = [(t.hyperparameters["temperature"], t.coefficient, t.hyperparameters.get("nontarget_weight")) for t in terms]
    assert found == {
        "resnet56/resnet20": [(2, 9, None), (3, 18, 2)],
        "resnet110/resnet20": [(4, 12, None), (2, 15, 2)],
        "cifar_resnet50/mobilenetv2_half": [(3, 1, None), (2, 15, 2)],
    }


def test_what_is_given_stands_above_what_a_pair_has(crd):
    made = crd(pairs="resnet56/resnet20", methods="dkd", grid={"dkd.nontarget_weight": [8]})
    assert of(made, "dkd").objective.terms[0].hyperparameters["nontarget_weight"] == 8
    weighed = of(crd(pairs="resnet56/resnet20", methods="reviewkd", weights=[3]), "reviewkd")
    assert weighed.objective.terms[0].coefficient == pytest.approx(1.8)
    alpha = of(crd(pairs="resnet56/resnet20", methods="reviewkd", alphas=[0.5]), "reviewkd")
    assert (alpha.objective.task, alpha.objective.terms[0].coefficient) == (0.5, 2.5)
    exact = of(crd(pairs="resnet56/resnet20", methods="1*ce+5*reviewkd"), "reviewkd")
    assert exact.objective.terms[0].coefficient == 5


def test_a_pairs_own_values_are_the_default_that_tables_measure_from(crd):
    (planned,) = [p for p in crd(pairs="resnet56/resnet20", methods="reviewkd").students if p.run.objective.label == "reviewkd"]
    assert setting_of(planned.run.objective, planned.about["methods"]).weight == 1


@pytest.mark.parametrize("method", ["dkd", "reviewkd", "logit_std", "catkd"])
def test_a_tuned_method_tries_the_pairs_own_values_first_and_as_many_settings_as_every_other(crd, method):
    pair = "resnet56/resnet20" if method != "catkd" else "wrn_40_2/shufflenetv1"
    alone = of(crd(pairs=pair, methods=method), method).objective
    runs = [planned.run.objective for planned in crd(pairs=pair, methods=method, tune=4).students if planned.run.objective.label == method]
    assert len(runs) == 4
    assert runs[0] == alone
    card = REGISTRY.get(method).card
    declared = REGISTRY.create(method, card.search[0].hyperparameters).model_dump(mode="json")
    assert (card.published.term * card.search[0].weight, declared) in [(r.terms[0].coefficient, r.terms[0].hyperparameters) for r in runs]


def test_every_value_of_a_pair_is_one_that_its_method_takes_and_every_pair_is_named():
    for method, given in recipe_file("crd240").published.items():
        for pair, values in given.pairs.items():
            assert pair in PAIRS, (method, pair)
            REGISTRY.create(method, values.hyperparameters)


def test_a_method_that_a_recipe_knows_and_nobody_else_is_refused_by_name(crd, place):
    text = (CONFIGS / "recipes" / "crd240.yaml").read_text().replace("  dkd:\n", "  dkdd:\n", 1)
    (place / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=r"unknown 'dkdd'; did you mean 'dkd'"):
        crd(pairs="resnet56/resnet20", recipe=str(place / "mine.yaml"))


def test_explain_says_what_a_pair_has(kdzoo):
    said = kdzoo("explain", "reviewkd", "--recipe", "crd240", "--teacher", "resnet56", "--student", "resnet20")
    assert said.status == 0
    assert "L = 1 * CE + 0.6 * " in said.out
    assert "crd240 has values of its own for reviewkd on resnet56/resnet20 (factor 0.6)" in said.out
    said = kdzoo("explain", "dkd", "--recipe", "crd240", "--teacher", "resnet56", "--student", "resnet20")
    assert "nontarget_weight = 2" in said.out
    said = kdzoo("explain", "simkd", "--recipe", "crd240", "--teacher", "wrn_40_2", "--student", "mobilenetv2_half")
    assert "simkd reads student 160x2x2 and teacher 128x8x8" in said.out
    assert "left over: student 160x2x2 (stage 3)" in said.out


def test_where_nothing_is_held_out_nothing_is_trained_twice(crd):
    with pytest.raises(InputError, match=r"refit: no validation images are held out to choose settings on"):
        crd(pairs="resnet56/resnet20", refit=True)
    asked = {"data": "cifar100", "recipe": "crd240", "pairs": "resnet56/resnet20"}
    assert not wants_refit(bench_config(asked, None))
    assert wants_refit(bench_config({**asked, "val_fraction": 0.1}, None))


def test_a_teachers_file_of_repdistiller_teaches_what_its_network_says(crd):
    made = crd(teacher=f"resnet8:{GOLDEN / 'repdistiller_resnet8.pth'}", student="resnet8", methods="hinton", limit=120)
    assert not made.teachers  # it is not trained again
    write_plan(made)
    located = LocatedRun.read(made.store.run(of(made, "hinton").id))
    loaded, parts = load_run_data(located)
    teacher, _ = load_teacher(located, loaded, parts, Placement(WorkerOptions(teacher_cache=0)), Modules())
    expected = np.load(GOLDEN / "checkpoint_resnet8.npz")
    found = teacher.network.logits(torch.from_numpy(expected["images"])).double().numpy()
    np.testing.assert_allclose(found, expected["logits"], rtol=1e-5, atol=1e-5 * np.abs(expected["logits"]).max())


def test_how_stages_pair_is_no_part_of_the_id_of_a_method_of_one_map(crd):
    ids = {
        pairing: of(crd(pairs="resnet56/resnet20", methods="simkd", set={"objective.pairing": pairing}), "simkd").id
        for pairing in ("deep", "left")
    }
    assert ids["deep"] == ids["left"]


def test_a_recipe_without_constants_has_the_id_that_it_had():
    recipe = Recipe(epochs=1, batch_size=8, lr=0.1)
    assert not {"mean", "std"} & set(recipe.model_dump())
    assert RecipeFile(description="mine", recipe={"epochs": 1, "batch_size": 8, "lr": 0.1}).resolve("resnet20", {}) == recipe
