"""`kdzoo.Distiller`: in a loop of one's own a method has the loss, the gradients and the weights that kdzoo's own training gives it."""

import copy
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import distiller_in_two_processes as two_processes
import pytest
import timm
import torch
import torch.nn.functional as F
from distiller_in_two_processes import Net, nets
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from warm_python import run_warm

import kdzoo
import kdzoo.models.zoo
from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, Pass
from kdzoo.data.dataset import Dataset
from kdzoo.data.epoch import order
from kdzoo.data.split import Splits
from kdzoo.distiller.clock import LoopClock
from kdzoo.models.forward import outputs
from kdzoo.models.identity import module_name
from kdzoo.models.measure import measure_shapes
from kdzoo.models.names import load_zoo
from kdzoo.models.network import Network, freeze
from kdzoo.runs.store import RunFolder
from kdzoo.seeds import generator
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.sweep import plan
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import input_shape, load_run_data
from kdzoo.training.run_networks import load_network
from kdzoo.training.run_student import build_student

EPOCHS, BATCH = 10, 6

OTHER_IMAGES = dict.fromkeys(("crld", "mlld", "mlld_released"), "second view") | {"cskd": "another image of each sample's class"}
TWO_STAGES = ("ab", "fitnet_two_stage", "fsp", "ft")
TOKENS = ("deit_hard", "deit_soft")
SERVED = sorted(set(REGISTRY.names_for_images()) - {*OTHER_IMAGES, *TWO_STAGES, *TOKENS, "bss"})
OTHER_COSTS = {"wkd_l": {"costs": "classifier"}}
"""in place of what is measured of a teacher on training samples, which a loop does not hand over"""


INPUTS = torch.randn(BATCH, 3, 8, 8, generator=generator(0, "inputs"))
TARGETS, INDEX = torch.arange(BATCH) % 5, torch.arange(BATCH) + 10
FACTS = kdzoo.DataFacts(40, 5, torch.arange(40) % 5)


def refusal(*networks: nn.Module | None, **keywords: object) -> str:
    with pytest.raises(kdzoo.InputError) as caught:
        kdzoo.Distiller(*(networks or nets()), **{"inputs": INPUTS, **keywords})
    return str(caught.value)


# --- The trainer's own objective -------------------------------------------------------------------------------------------------


@cache
def pair() -> Modules:
    """The two networks of the default bench, untrained, as modules of a user's own."""
    load_zoo()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = [timm.create_model(name, num_classes=10, in_chans=1) for name in ("digits_student", "digits_teacher")]
    return Modules({module_name(module): module for module in made})


@cache
def planned(*methods: str) -> Plan:
    student, teacher = pair().by_name
    given = {
        "methods": ",".join(methods),
        "student": student,
        "teacher": teacher,
        "data": "digits",
        "recipe": "digits",
        "epochs": EPOCHS,
        "seeds": [0],
    }
    return plan(bench_config(given, None), pair())


@cache
def digits() -> tuple[Dataset, Splits]:
    return load_run_data(located("hinton"))


def located(method: str) -> LocatedRun:
    """A run of the bench as the trainer takes it."""
    made = planned(*SERVED)
    (found,) = [student for student in made.students if student.run.objective.label == method]
    terms = [
        term.model_copy(update={"hyperparameters": {**term.hyperparameters, **OTHER_COSTS.get(term.method, {})}})
        for term in found.run.objective.terms
    ]
    run = found.run.model_copy(update={"objective": found.run.objective.model_copy(update={"terms": tuple(terms)})})
    return LocatedRun(run, RunFolder(made.folder / "runs" / found.run.id), found.about["paths"])


@pytest.mark.parametrize("method", SERVED)
def test_the_loss_and_its_gradients_are_those_of_kdzoos_training(method):
    run = located(method)
    images, parts = digits()
    index = torch.arange(BATCH)
    shown, targets = parts.train.images[index], parts.train.targets[index]
    side = input_shape(images, run.run.recipe)[1]
    teacher = freeze(load_network(located("hinton").run.teacher, images, side=side, seed=0, path=None, modules=pair()))
    shapes = measure_shapes(teacher, input_shape(images, run.run.recipe)) if run.run.teacher else None
    student, objective = build_student(run, images, parts, shapes, pair())
    own = copy.deepcopy(student.model)

    batch = Batch(inputs=shown, targets=targets, index=index, clock=Progress(3, EPOCHS, 0, 100), generator=torch.Generator())
    with torch.no_grad():
        taught = outputs(teacher, {Pass.FIRST: shown}, objective.needs.teacher) if run.run.teacher else None
    expected = objective(outputs(student, {Pass.FIRST: shown}, objective.needs.student | Need.LOGITS), taught, batch)
    expected.total.backward()

    inputs = student.normalise(shown)
    given = {"inputs": inputs[:2], "data": parts.facts, "epochs": EPOCHS, **OTHER_COSTS.get(method, {})}
    distiller = kdzoo.Distiller(own, copy.deepcopy(teacher.model), method, **given)
    distiller.progress = 3 / EPOCHS
    losses = distiller(inputs, targets, index)
    losses.total.backward()

    assert {name: part.item() for name, part in losses.parts.items()} == pytest.approx(
        {name: part.item() for name, part in expected.parts.items()}, rel=1e-5, abs=1e-7
    )
    torch.testing.assert_close(losses.total, expected.total)
    same_gradients(distiller.student, student.model)
    same_gradients(distiller.objective, objective)


def same_gradients(one: nn.Module, other: nn.Module) -> None:
    theirs = dict(other.named_parameters())
    for name, parameter in one.named_parameters():
        assert (parameter.grad is None) == (theirs[name].grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(
                parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-6 * float(theirs[name].grad.abs().max() + 1), msg=name
            )


def test_a_run_in_a_plain_loop_ends_with_the_weights_of_kdzoos_own_run(tmp_path, monkeypatch):
    """crd, which remembers samples by their index and draws negatives: two epochs on the digits, without augmentation."""
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    student, teacher = pair().by_name.values()
    keys = {"recipe.schedule": "linear", "recipe.warmup": 0.0}
    board = kdzoo.bench(
        methods="crd", student=student, teacher=teacher, data="digits", recipe="digits", set=keys, epochs=2, limit=200, seeds=1,
        results=tmp_path, execution=kdzoo.Execution(allow_chance_teacher=True, keep=("student",)),
    )  # fmt: skip
    (folder,) = Path(board.attrs["folder"]).glob("runs/crd-*")
    run, about = RunFolder(folder).read_plan()
    images, parts = load_run_data(LocatedRun(run, RunFolder(folder), about["paths"]))
    own = copy.deepcopy(student)
    network = Network(own, channels=1, mean=images.mean, std=images.std)
    distiller = kdzoo.Distiller(own, copy.deepcopy(teacher), "crd", inputs=network.normalise(parts.train.images[:1]), data=parts.facts)
    optimizer = torch.optim.SGD(
        distiller.parameters(), lr=run.recipe.lr, momentum=run.recipe.momentum, nesterov=run.recipe.nesterov,
        weight_decay=run.recipe.weight_decay, fused=True,
    )  # fmt: skip
    drawn = [index for epoch in range(2) for index in order(parts.facts.samples, 0, epoch).split(run.recipe.batch_size)]
    for step, index in enumerate(drawn):
        optimizer.param_groups[0]["lr"] = run.recipe.lr * (1 - step / len(drawn))
        losses = distiller(network.normalise(parts.train.images[index]), parts.train.targets[index], index)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    kept = load_file(folder / "student.safetensors")
    trained = distiller.deployed().state_dict()
    assert kept.keys() == trained.keys()
    assert not torch.equal(trained["classifier.weight"], student.state_dict()["classifier.weight"])
    for name, value in kept.items():
        assert torch.equal(value, trained[name]), name


@pytest.mark.parametrize("method", TOKENS)
def test_a_distillation_token_is_read_where_timms_network_has_one(method):
    student = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, img_size=32, depth=2)
    distiller = kdzoo.Distiller(student, Net(6), method, inputs=torch.randn(2, 3, 32, 32))
    losses = distiller(torch.randn(BATCH, 3, 32, 32), TARGETS)
    losses.total.backward()
    assert student.head.weight.grad is not None
    assert student.head_dist.weight.grad is not None


# --- What the loss is ------------------------------------------------------------------------------------------------------------


def by_hand(student: nn.Module, teacher: nn.Module, temperature: float) -> tuple[float, float]:
    """Cross-entropy and T^2 KL."""
    with torch.no_grad():
        s, t = student(INPUTS).double(), teacher(INPUTS).double()
        soft = F.kl_div((s / temperature).log_softmax(1), (t / temperature).log_softmax(1), log_target=True, reduction="batchmean")
        return F.cross_entropy(s, TARGETS).item(), temperature**2 * soft.item()


@pytest.mark.parametrize(
    ("method", "keywords", "task", "term"),
    [
        ("hinton", {}, 0.1, 0.9),
        ("hinton", {"alpha": 0.3}, 0.7, 0.3),
        ("hinton", {"weight": 2.0}, 0.1, 1.8),
        ("0.5*ce+2*hinton", {}, 0.5, 2.0),
        ("hinton", {"alpha": 0.3, "temperature": 2.0}, 0.7, 0.3),
        ("hinton", {"hinton": {"temperature": 2.0}}, 0.1, 0.9),
        ("none", {}, 1.0, 0.0),
        ("hinton", {"alpha": 0.0}, 1.0, 0.0),
    ],
)
def test_the_total_is_cross_entropy_and_the_term_weighed(method, keywords, task, term):
    student, teacher = nets()
    temperature = keywords.get("temperature", keywords.get("hinton", {}).get("temperature", 4.0))
    ce, kd = by_hand(student, teacher, temperature)
    losses = kdzoo.Distiller(student, teacher, method, inputs=INPUTS, **keywords)(INPUTS, TARGETS)
    assert losses.total.item() == pytest.approx(task * ce + term * kd, rel=1e-5)
    assert losses.parts["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert ("hinton" in losses.parts) == (term > 0)


def test_a_sum_is_cross_entropy_with_each_terms_published_weight():
    student, teacher = nets()
    losses = kdzoo.Distiller(student, teacher, "at+hinton", inputs=INPUTS, temperature=2.0)(INPUTS, TARGETS)
    parts = {name: part.item() for name, part in losses.parts.items()}
    assert parts["hinton"] == pytest.approx(by_hand(student, teacher, 2.0)[1], rel=1e-5)
    assert losses.total.item() == pytest.approx(parts["ce"] + 1000 * parts["at"] + 0.9 * parts["hinton"], rel=1e-5)


SHARES = F.one_hot(TARGETS, 5).float()


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (SHARES - 1, "targets: expected shares of the classes from 0 to 1, got others, or NaN"),
        (SHARES * float("nan"), "targets: expected shares of the classes from 0 to 1, got others, or NaN"),
        (SHARES + SHARES.flip(0) + SHARES.roll(1, 0), "targets: expected shares of the classes"),
        (TARGETS - 100, "targets: expected class numbers from 0 to 4, or -1 for a sample without a label, got -100 to"),
        (TARGETS + 5, "targets: expected class numbers from 0 to 4"),
        (TARGETS[:3], "student: its outputs are of 6 samples, the targets of 3"),
    ],
)
def test_targets_that_cannot_be_right_are_refused(targets, words):
    with pytest.raises(kdzoo.InputError) as refused:
        kdzoo.Distiller(*nets(), "hinton")(INPUTS, targets)
    assert words in str(refused.value)


def test_a_sample_without_a_label_is_refused_by_the_methods_that_read_labels():
    for targets in (TARGETS.index_fill(0, torch.tensor([2]), -1), SHARES.index_fill(0, torch.tensor([2]), 0.0)):
        with pytest.raises(kdzoo.InputError, match="dkd: reads labels, which 1 of 6 samples do not have"):
            kdzoo.Distiller(*nets(), "dkd", epochs=10)(INPUTS, targets)
        assert torch.isfinite(kdzoo.Distiller(*nets(), "hinton")(INPUTS, targets).total)


def test_outputs_of_another_number_of_samples_and_empty_batches_are_refused():
    student, teacher = kdzoo.Outputs(logits=torch.randn(6, 5, requires_grad=True)), kdzoo.Outputs(logits=torch.randn(1, 5))
    distiller = kdzoo.Distiller.from_outputs("hinton", student=student, teacher=teacher)
    with pytest.raises(kdzoo.InputError, match="teacher: its outputs are of 1 samples, the targets of 6"):
        distiller(student, teacher, TARGETS)
    nothing = kdzoo.Outputs(logits=torch.zeros(0, 5))
    with pytest.raises(kdzoo.InputError, match="got an empty batch"):
        distiller(nothing, nothing, TARGETS[:0])


def test_what_is_measured_on_training_samples_is_refused_with_what_to_use_instead():
    assert "embeddings of training samples, which only a bench" in (words := refusal(method="wkd_l", data=FACTS, epochs=EPOCHS))
    assert "costs=classifier" in words


@pytest.mark.parametrize("method", ["rsd", "crd", "fitnet", "wkd_l"])
def test_networks_in_float64_have_methods_in_float64(method):
    student, teacher = (network.double() for network in nets())
    given = {"inputs": INPUTS.double(), "data": FACTS, "epochs": EPOCHS, **OTHER_COSTS.get(method, {})}
    distiller = kdzoo.Distiller(student, teacher, method, **given)
    distiller.progress = 0.0
    total = distiller(INPUTS.double(), TARGETS, INDEX).total
    total.backward()
    assert total.dtype == torch.float64


def test_shares_of_classes_are_targets_too_and_unlabelled_samples_do_not_count():
    student, teacher = nets()
    distiller = kdzoo.Distiller(student, teacher, "hinton", inputs=INPUTS)
    shares = 0.7 * F.one_hot(TARGETS, 5) + 0.3 * F.one_hot(TARGETS.flip(0), 5)
    assert distiller(INPUTS, shares).parts["ce"].item() == pytest.approx(F.cross_entropy(student(INPUTS), shares).item(), rel=1e-5)
    some = TARGETS.where(TARGETS != 1, -1)
    assert distiller(INPUTS, some).parts["ce"].item() == pytest.approx(
        F.cross_entropy(student(INPUTS), some, ignore_index=-1).item(), rel=1e-5
    )
    remembering = kdzoo.Distiller(*nets(), "pskd", inputs=INPUTS, data=FACTS, epochs=2)
    with pytest.raises(
        kdzoo.InputError,
        match="pskd: takes no shares of classes as targets: the probabilities that it keeps of a sample were of another mix",
    ):
        remembering(INPUTS, shares, INDEX)


def test_progress_moves_a_weight_that_rises_in_the_course_of_training():
    student, teacher = nets()
    distiller = kdzoo.Distiller(student, teacher, "dkd", inputs=INPUTS, epochs=100)
    totals = []
    for share in (0.0, 0.05, 0.29, 1.0):  # dkd's weight rises over 20 epochs, (epoch + 1) / 20
        distiller.progress = share
        losses = distiller(INPUTS, TARGETS)
        totals.append(((losses.total - losses.parts["ce"]) / losses.parts["dkd"]).item())
    assert totals == pytest.approx([1 / 20, 6 / 20, 1.0, 1.0], rel=1e-4)
    with pytest.raises(kdzoo.InputError, match=r"progress: expected a number in \[0, 1\], .* got 30"):
        distiller.progress = 30


def test_epochs_are_counted_as_a_loop_counts_them():
    clocks = [LoopClock(0, epoch / 100, 100) for epoch in range(101)]
    assert [clock.epoch for clock in clocks] == [*range(100), 99]


def test_the_teacher_takes_inputs_of_its_own():
    student, teacher = nets()
    larger = F.interpolate(INPUTS, scale_factor=2)
    distiller = kdzoo.Distiller(student, teacher, "hinton", inputs=INPUTS, teacher_inputs=larger)
    with torch.no_grad():
        soft = F.kl_div((student(INPUTS) / 4).log_softmax(1), (teacher(larger) / 4).softmax(1), reduction="batchmean")
    assert distiller(INPUTS, TARGETS, teacher_inputs=larger).parts["hinton"].item() == pytest.approx(16 * soft.item(), rel=1e-4)


def test_autocast_changes_the_networks_and_leaves_the_losses_in_float32():
    distiller = kdzoo.Distiller(*nets(), "at+crd+hinton", inputs=INPUTS, data=FACTS)
    exact = distiller(INPUTS, TARGETS, INDEX)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert distiller.student(INPUTS).dtype == torch.bfloat16
        losses = distiller(INPUTS, TARGETS, INDEX)
    losses.total.backward()
    assert {part.dtype for part in losses.parts.values()} == {torch.float32}
    assert losses.parts["ce"].item() == pytest.approx(exact.parts["ce"].item(), rel=0.02)
    assert losses.parts["ce"].item() != exact.parts["ce"].item()


def test_a_loss_of_a_users_own_is_used_like_the_zoos():
    @kdzoo.register("squared_probabilities")
    def squared_probabilities(student, teacher, batch, *, temperature: float = 4.0):
        p, q = ((outputs.logits / temperature).softmax(1) for outputs in (teacher, student))
        return ((p - q) ** 2).sum(1).mean()

    student, teacher = nets()
    distiller = kdzoo.Distiller(student, teacher, "squared_probabilities", inputs=INPUTS, temperature=2.0, alpha=0.5)
    with torch.no_grad():
        p, q = ((net(INPUTS) / 2).softmax(1) for net in (teacher, student))
    losses = distiller(INPUTS, TARGETS)
    assert losses.parts["squared_probabilities"].item() == pytest.approx(((p - q) ** 2).sum(1).mean().item(), rel=1e-5)
    losses.total.backward()
    assert student.head.weight.grad is not None


# --- What the module has ---------------------------------------------------------------------------------------------------------


def test_it_contains_the_student_and_the_methods_parts_and_not_the_teacher():
    student, teacher = nets()
    distiller = kdzoo.Distiller(student, teacher, "crd", inputs=INPUTS, data=FACTS)
    assert distiller.student is student
    assert distiller.teacher is teacher
    assert distiller.deployed() is student
    own = {id(p) for p in distiller.parameters()}
    assert {id(p) for p in student.parameters()} < own
    assert own.isdisjoint(id(p) for p in teacher.parameters())
    assert {name.partition(".")[0] for name in distiller.state_dict()} == {"student", "objective", "_extra_state"}
    assert "crd.bank_s" in distiller.method_state_dict()
    assert not any(name.startswith("student") for name in distiller.method_state_dict())
    assert len(own) == len(list(student.parameters())) + 4  # two linear layers


def test_the_teacher_stays_as_it_is_and_moves_along():
    student, teacher = nets()
    teacher.first.append(nn.BatchNorm2d(6))
    before = copy.deepcopy(teacher.state_dict())
    distiller = kdzoo.Distiller(student, teacher, "hinton", inputs=INPUTS).train()
    assert not any(module.training for module in teacher.modules())
    teacher.train()  # as a trainer does that holds it too
    distiller(INPUTS, TARGETS).total.backward()
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    distiller.double()
    assert {p.dtype for p in teacher.parameters()} == {torch.float64}
    assert distiller(INPUTS.double(), TARGETS).total.dtype == torch.float64


def test_a_method_goes_on_where_its_state_was_taken():
    student, teacher = nets()
    distiller, again = (kdzoo.Distiller(copy.deepcopy(student), teacher, "crd", inputs=INPUTS, data=FACTS) for _ in range(2))
    distiller(INPUTS, TARGETS, INDEX)
    assert distiller(INPUTS, TARGETS, INDEX).total.item() != again(INPUTS, TARGETS, INDEX).total.item()
    again.load_method_state_dict(distiller.method_state_dict())
    assert torch.equal(again(INPUTS, TARGETS, INDEX).total, distiller(INPUTS, TARGETS, INDEX).total)
    whole = kdzoo.Distiller(copy.deepcopy(student), teacher, "crd", inputs=INPUTS, data=FACTS)
    whole.load_state_dict(distiller.state_dict())
    assert torch.equal(whole(INPUTS, TARGETS, INDEX).total, copy.deepcopy(distiller)(INPUTS, TARGETS, INDEX).total)


def test_a_student_that_ships_with_parts_of_its_method_is_deployed_with_them():
    student, teacher = nets()
    distiller = kdzoo.Distiller(student, teacher, "simkd", inputs=INPUTS).eval()
    deployed = distiller.deployed()
    assert deployed is not student
    with torch.no_grad():
        features = student.second(student.first(INPUTS))
        scores = teacher.head(distiller.objective.parts["simkd"](features).mean((2, 3)))
        torch.testing.assert_close(deployed(INPUTS), scores)


def test_parameter_groups_are_those_that_a_method_declares():
    distiller = kdzoo.Distiller(*nets(), "vkd", inputs=INPUTS)
    own, of_method = distiller.parameter_groups(lr=0.1, weight_decay=5e-4)
    assert (own["lr"], own["weight_decay"], len(own["params"])) == (0.1, 5e-4, 6)
    assert (of_method["lr"], of_method["weight_decay"], len(of_method["params"])) == (0.1, 0.0, 1)
    torch.optim.AdamW(distiller.parameter_groups(lr=0.1)).step()


def test_what_it_draws_is_another_in_each_step_and_the_same_for_a_seed():
    student, teacher = nets()
    frozen = {"inputs": INPUTS, "data": FACTS, "negatives": 4, "momentum": 0.999999}
    first, same = (kdzoo.Distiller(student, teacher, "crd", **frozen) for _ in range(2))
    losses = [first(INPUTS, TARGETS, INDEX).parts["crd"].item() for _ in range(3)]
    assert len(set(losses)) == 3
    assert [same(INPUTS, TARGETS, INDEX).parts["crd"].item() for _ in range(3)] == losses


# --- What the networks are tried with ---------------------------------------------------------------------------------------------


def timm_nets(size: int) -> tuple[nn.Module, nn.Module]:
    load_zoo()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student, teacher = (timm.create_model(name, num_classes=5, in_chans=3) for name in ("digits_student", "digits_teacher"))
    for net in (student, teacher):
        net.pretrained_cfg = {**net.pretrained_cfg, "input_size": (3, size, size)}
    return student, teacher


@pytest.mark.parametrize("method", ["hinton", "at+rkd", "0.5*ce+20*at"])
def test_a_method_without_modules_needs_no_example(method):
    """It is built at the first batch, and its losses are those of one that was built with an example."""
    told, untold = kdzoo.Distiller(*nets(), method, inputs=INPUTS), kdzoo.Distiller(*nets(), method)
    assert list(untold.state_dict()) == list(told.state_dict())
    assert untold.method_state_dict().keys() == told.method_state_dict().keys()
    assert untold.deployed() is untold.student
    draws = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        untold(INPUTS, TARGETS)
    assert torch.equal(torch.get_rng_state(), draws)
    expected = told(INPUTS, TARGETS)
    torch.testing.assert_close(untold(INPUTS, TARGETS).parts, expected.parts, rtol=0, atol=0)


def test_the_facts_of_the_data_tell_the_shape_of_an_input():
    told = kdzoo.Distiller(*nets(), "crd", inputs=INPUTS, data=FACTS)
    stated = kdzoo.Distiller(*nets(), "crd", data=replace(FACTS, input_shape=(3, 8, 8)))
    torch.testing.assert_close(dict(stated.method_state_dict()), dict(told.method_state_dict()), rtol=0, atol=0)


def test_a_network_of_timm_tells_the_size_it_was_made_for():
    told = kdzoo.Distiller(*timm_nets(8), "fitnet", inputs=INPUTS)
    untold = kdzoo.Distiller(*timm_nets(8), "fitnet")
    torch.testing.assert_close(dict(untold.method_state_dict()), dict(told.method_state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(untold(INPUTS, TARGETS).total, told(INPUTS, TARGETS).total)
    larger = kdzoo.Distiller(*timm_nets(16), "fitnet")
    with pytest.raises(
        kdzoo.InputError, match=r"the modules of fitnet were built for inputs of \(3, 16, 16\), .* these are of \(3, 8, 8\)"
    ):
        larger(INPUTS, TARGETS)
    at = kdzoo.Distiller(*timm_nets(16), "at")  # which has none, and is built again
    torch.testing.assert_close(at(INPUTS, TARGETS).total, kdzoo.Distiller(*timm_nets(8), "at", inputs=INPUTS)(INPUTS, TARGETS).total)


def test_where_nothing_tells_the_shape_of_an_input_it_is_asked_for_by_name():
    told = refusal(method="crd+hinton", inputs=None, data=FACTS)
    assert told.startswith("inputs: needed by crd, whose modules are built for the networks' widths before the first batch: pass a batch")
    assert told.endswith(
        "data=kdzoo.DataFacts(samples, classes, targets, input_shape=(C, H, W)); Net does not tell the shape of its inputs"
    )
    assert refusal(method="simkd", inputs=None).startswith("inputs: needed by simkd")
    wrong = refusal(method="crd", inputs=None, data=replace(FACTS, input_shape=32))
    assert "data.input_shape: expected the shape of one sample as the networks take it, such as (3, 32, 32), got 32" in wrong


# --- In other people's loops -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes of DDP have left what they computed."""
    folder = tmp_path_factory.mktemp("two")
    done = run_warm([sys.executable, two_processes.__file__, str(folder)], timeout=240)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("method", two_processes.REMEMBERING)
def test_two_processes_of_ddp_remember_what_one_remembers_of_the_joint_batch(two, method):
    """Memory banks with drawn negatives, a queue, past predictions: after four steps, the banks' constants and all."""
    whole = two_processes.remembering(method)
    shares = [losses.parts[method].item() for losses in two_processes.steps(whole, slice(0, 8))]
    expected = whole.method_state_dict()
    fresh = two_processes.remembering(method).method_state_dict()
    assert any(not torch.equal(value, expected[name]) for name, value in fresh.items() if name != "calls")
    for rank in range(2):
        state, told = torch.load(two / f"{method}-{rank}.pt")
        torch.testing.assert_close(dict(state), dict(expected), rtol=1e-4, atol=1e-5)
        assert told == pytest.approx(shares, rel=1e-4)


def test_two_processes_of_ddp_have_the_gradients_of_the_whole_batch(two):
    """hinton, at, and vkd with its own parameter, each a mean over samples; DDP looks for tensors in the losses."""
    for method in two_processes.METHODS:
        whole = two_processes.distiller(method)
        whole(two_processes.INPUTS, two_processes.TARGETS).total.backward()
        found = torch.load(two / f"{method}.pt")
        expected = {name: parameter.grad for name, parameter in whole.named_parameters()}
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected)


class Task(nn.Module):
    """A module as Lightning's trainer takes them: a step that gives the loss, and an optimiser; it holds the teacher too."""

    def __init__(self, method: str) -> None:
        super().__init__()
        student, self.teacher = nets()
        self.distiller = kdzoo.Distiller(student, self.teacher, method, inputs=INPUTS[:1], data=FACTS, epochs=3)

    def on_train_epoch_start(self, epoch: int, epochs: int) -> None:
        self.distiller.progress = epoch / epochs

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return self.distiller(*batch).total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.distiller.parameter_groups(lr=1e-2, weight_decay=1e-4))


def test_a_trainer_that_owns_the_loop_can_use_it():
    """It puts the whole module into training mode, scales the loss, runs under autocast, clips, and takes any loader and optimiser."""
    task = Task("crd+dkd")
    before = copy.deepcopy(task.teacher.state_dict())
    loader = DataLoader(TensorDataset(INPUTS, TARGETS, torch.arange(BATCH)), batch_size=3, shuffle=True)
    optimizer, scaler = task.configure_optimizers(), torch.amp.GradScaler("cpu")
    means = []
    for epoch in range(8):
        task.train()
        task.on_train_epoch_start(min(epoch, 3), 3)
        total = 0.0
        for batch in loader:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = task.training_step(batch)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(task.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            total += loss.item()
        means.append(total)
    assert means[-1] < means[0]
    assert all(torch.equal(before[name], value) for name, value in task.teacher.state_dict().items())


# --- What is refused -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", TWO_STAGES)
def test_a_method_of_two_stages_is_refused_by_name(method):
    assert refusal(method=method) == f"{method}: trains in two stages, each a run of its own; `kdzoo bench --methods {method}` trains it"


@pytest.mark.parametrize(("method", "reads"), OTHER_IMAGES.items())
def test_a_method_that_reads_other_images_is_refused_by_name(method, reads):
    assert refusal(method=method).startswith(f"{method}: reads a{'nother' if method == 'cskd' else ''} {reads.removeprefix('another ')}")


@pytest.mark.parametrize(
    ("method", "keywords", "words"),
    [
        ("bss", {}, "bss: it moves images and keeps them in 0..255"),
        ("crd", {}, r"crd: reads data.targets: pass data=kdzoo.DataFacts\(samples, classes, targets\)"),
        ("crd_queue", {}, "crd_queue: reads data.targets"),
        ("pskd", {}, "pskd: reads data.targets"),
        ("deit_hard", {}, "deit_hard: reads the student's distillation token, which only timm's distilled models have"),
        ("hintn", {}, "method: unknown 'hintn'; did you mean 'hinton'?"),
        ("hinton", {"temprature": 2.0}, "temprature: unknown; did you mean 'temperature'?"),
        ("hinton", {"alhpa": 0.5}, "alhpa: unknown; did you mean 'alpha'?"),
        ("hinton", {"tau": 0.5}, "tau: unknown; the hyper-parameters of hinton: temperature"),
        ("hinton", {"temperature": -1}, "hinton.temperature: expected a number > 0, got -1"),
        ("dkd+hinton", {"temperature": 2}, "temperature: dkd and hinton each have it; write dkd={'temperature': 2}"),
        ("hinton", {"alpha": 2}, r"alpha: expected a number in \[0, 1\], got 2"),
        ("at", {"alpha": 1.0}, "would never train the classifier"),
        ("0.1*ce+hinton", {"alpha": 0.5}, "alpha: '0.1\\*ce\\+hinton' gives the weights of its terms already"),
        ("hinton", {"weight": -1}, "weight: expected a number >= 0, got -1"),
        ("hinton", {"epochs": 0}, "epochs: expected a whole number >= 1, got 0"),
        ("lwm", {"teacher_inputs": INPUTS}, "lwm: shows the teacher the student's inputs, so that there can be no teacher_inputs"),
        ("crd", {"data": kdzoo.DataFacts(40, 7, torch.arange(40) % 5)}, "data.classes: expected 5, .* got 7"),
        ("crd", {"data": kdzoo.DataFacts(41, 5, torch.arange(40) % 5)}, "data.targets: expected as many as samples, 41, got 40"),
        ("crd", {"data": [1, 2]}, r"data: expected kdzoo.DataFacts\(samples, classes, targets\), got \[1, 2\]"),
    ],
)
def test_what_cannot_be_is_refused_by_name(method, keywords, words):
    assert re.match(f"(?s).*{words}", refusal(method=method, **keywords))


def test_everything_that_is_wrong_is_told_at_once():
    told = refusal(method="ab+hinton", alpha=2, weight=-1, temprature=3)
    assert [line.partition(":")[0] for line in told.splitlines()] == ["ab", "alpha", "weight", "temprature"]


def test_networks_that_cannot_serve_are_refused_by_name():
    student, teacher = nets()
    assert refusal(student, None, method="at+hinton").splitlines() == [
        "at: reads the teacher's stages, but there is no teacher",
        "hinton: reads the teacher's logits, but there is no teacher",
    ]
    assert refusal(student, student, method="hinton").startswith("teacher: shares parameters with the student, and a teacher is frozen")
    seven = Net(6, classes=7)
    assert refusal(student, seven, method="hinton") == "hinton: compares class scores, but the student gives 5 and the teacher 7"
    softened = nn.Sequential(Net(4), nn.Softmax(1))
    assert refusal(softened, teacher, method="hinton").startswith("Sequential: its forward ends in a softmax")
    assert refusal(nn.Identity(), teacher, method="hinton") == (
        "Identity: its output is values of shape (3, 8, 8) per image; expected (K,), one score per class of the data"
    )
    kdzoo.Distiller(student, seven, "at", inputs=INPUTS)  # which reads no class scores of the teacher


def test_what_a_batch_lacks_is_refused_by_name():
    remembering = kdzoo.Distiller(*nets(), "crd", inputs=INPUTS, data=FACTS)
    with pytest.raises(kdzoo.InputError, match=r"crd: reads batch.index: pass the position of each sample in the training set"):
        remembering(INPUTS, TARGETS)
    with pytest.raises(kdzoo.InputError, match=r"index: expected the position of each of 6 samples in the training set, .* got 3"):
        remembering(INPUTS, TARGETS, 3)
    rising = kdzoo.Distiller(*nets(), "dkd", inputs=INPUTS)
    with pytest.raises(kdzoo.InputError, match="dkd: counts epochs: pass epochs="):
        rising(INPUTS, TARGETS)
    rising = kdzoo.Distiller(*nets(), "dkd", inputs=INPUTS, epochs=30)
    with pytest.raises(kdzoo.InputError, match=r"dkd: reads clock.progress: set distiller.progress to the share"):
        rising(INPUTS, TARGETS)
    with pytest.raises(kdzoo.InputError, match=r"targets: expected class numbers \(B,\) int64"):
        rising(INPUTS, TARGETS.float())


# --- The outputs of networks that somebody else runs -----------------------------------------------------------------------------


def outputs_of(net: Net, owner: str) -> kdzoo.Outputs:
    first = net.first(INPUTS)
    second = net.second(first)
    embedding = second.mean((2, 3))
    return kdzoo.Outputs(logits=net.head(embedding), embedding=embedding, stages=[first, second], classifier=net.head, owner=owner)


@pytest.mark.parametrize("method", ["hinton", "at+crd", "simkd", "srrl", "reviewkd"])
def test_losses_of_outputs_are_those_of_the_networks(method):
    student, teacher = nets()
    told = {"data": FACTS, "epochs": 4}
    whole = kdzoo.Distiller(student, teacher, method, inputs=INPUTS, **told)
    parts = kdzoo.Distiller.from_outputs(method, student=outputs_of(student, "student"), teacher=outputs_of(teacher, "teacher"), **told)
    for distiller in (whole, parts):
        distiller.progress = 0.5
    found = parts(outputs_of(student, "student"), outputs_of(teacher, "teacher"), TARGETS, INDEX)
    expected = whole(INPUTS, TARGETS, INDEX)
    torch.testing.assert_close(found.total, expected.total)
    assert len(list(parts.parameters())) == len(list(whole.objective.parameters()))
    found.total.backward()
    assert student.first[0].weight.grad is not None
    assert teacher.first[0].weight.grad is None
    torch.testing.assert_close(parts.eval().deployed(outputs_of(student, "student")), whole.eval().deployed()(INPUTS))


def test_what_outputs_lack_is_refused_by_name():
    student, teacher = (outputs_of(net, owner) for net, owner in zip(nets(), ("student", "teacher"), strict=True))
    logits = kdzoo.Outputs(logits=teacher.logits, owner="teacher")
    for method, words in {
        "at": "at: reads the teacher's stages, which its outputs do not have",
        "dml": "dml: calls the student itself; use kdzoo.Distiller(student, teacher, 'dml')",
        "ab": "ab: trains in two stages",
        "mlld": "mlld: reads a second view",
    }.items():
        with pytest.raises(kdzoo.InputError) as caught:
            kdzoo.Distiller.from_outputs(method, student=student, teacher=logits)
        assert words in str(caught.value)
    made = kdzoo.Distiller.from_outputs("at", student=student, teacher=teacher)
    with pytest.raises(kdzoo.InputError, match=r"teacher: expected outputs with Need.STAGES, but Need.STAGES is missing"):
        made(student, logits, TARGETS)


def states_of_texts(layers: int, width: int, owner: str) -> kdzoo.Outputs:
    """Outputs as a transformer of texts gives them: two texts, of five and of three tokens, padded to five."""
    draw = torch.Generator().manual_seed(layers)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])[:, :, None]
    stages = [torch.randn(2, 5, width, generator=draw).mul(mask).requires_grad_(owner == "student") for _ in range(layers)]
    return kdzoo.Outputs(logits=torch.randn(2, 3, generator=draw), embedding=stages[-1][:, 0], stages=stages, owner=owner)


def test_hidden_states_of_texts_are_read_as_transformers_give_them():
    student, teacher, targets = states_of_texts(2, 6, "student"), states_of_texts(4, 6, "teacher"), torch.tensor([0, 2])
    losses = kdzoo.Distiller.from_outputs("distilbert", student=student, teacher=teacher)(student, teacher, targets)
    cosine = torch.nn.CosineEmbeddingLoss()(  # of the eight tokens alone
        *(states[states.abs().sum(-1) > 0] for states in (student.stages[-1], teacher.stages[-1])), torch.ones(8)
    )
    soft = F.kl_div(F.log_softmax(student.logits / 2, 1), F.softmax(teacher.logits / 2, 1), reduction="batchmean") * 4
    torch.testing.assert_close(losses.parts["distilbert"], 5 * soft + cosine)
    losses.total.backward()
    assert student.stages[-1].grad[1, 3:].count_nonzero() == 0
    patience = kdzoo.Distiller.from_outputs("patientkd", student=student, teacher=teacher)(student, teacher, targets)
    assert patience.total > 0


def test_methods_that_read_maps_of_images_are_refused_for_hidden_states():
    student, teacher = states_of_texts(2, 6, "student"), states_of_texts(4, 6, "teacher")
    with pytest.raises(kdzoo.InputError, match="at: reads maps over the height and width of images, but these are networks of texts"):
        kdzoo.Distiller.from_outputs("at", student=student, teacher=teacher)
    mixed = student.with_values({Need.STAGES: [student.stages[0], torch.zeros(2, 4, 1, 5)]})
    with pytest.raises(kdzoo.InputError, match=r"expected maps \(B, C, H, W\), or hidden states of texts \(B, tokens, D\), got"):
        kdzoo.Distiller.from_outputs("distilbert", student=mixed, teacher=teacher)
