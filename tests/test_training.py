"""Training: how runs are grouped changes no number, teachers stay as they are, and what teaches has been measured."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from trained_teachers import written_bench

from kdzoo.contract.needs import Need, Needs, Pass
from kdzoo.contract.register import register
from kdzoo.errors import InputError
from kdzoo.models.placement import Placement
from kdzoo.models.predict import predict
from kdzoo.runs.events import Event, Note, RunFailed, StepsTaken
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run import train_runs as runs_of_a_job
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.members import measure_cost
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.preflight import preflight
from kdzoo.suite.run.train_runs import group_by_step, train_runs
from kdzoo.suite.run.untrained import Untrained
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.teachers.checks import refuse_at_chance
from kdzoo.teachers.teacher import live_teacher
from kdzoo.training.cohort import Cohort
from kdzoo.training.cost import with_pretrain_stage
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.member import Member
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_student import build_member, load_trained_student
from kdzoo.training.run_teacher import load_teacher
from kdzoo.training.train import UNITS_AN_EPOCH, Stopped, fit


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


planned = partial(written_bench, alphas="0.3", methods="hinton,at,crd,fitnet,rkd")


def train(made: Plan, *groups: list[str]) -> None:
    for group in groups:
        train_runs(made.store, group, WorkerOptions(), WorkerState(), lambda _: None, lambda: False)


def weights(made: Plan) -> dict[str, dict[str, bytes]]:
    """Every tensor of every student, byte for byte."""
    files = {p.run.id: load_file(made.store.run(p.run.id).student) for p in made.students}
    return {run_id: {name: value.numpy().tobytes() for name, value in state.items()} for run_id, state in files.items()}


@pytest.mark.slow
def test_how_a_bench_is_cut_into_cohorts_never_changes_a_weight(tmp_path):
    together, apart, other = (planned(tmp_path / name) for name in ("together", "apart", "other"))
    ids = [p.run.id for p in together.students]
    train(together, ids)
    train(apart, *([run_id] for run_id in ids))
    train(other, ids[3:], ids[2::-1])
    assert weights(together) == weights(apart) == weights(other)
    results = [[made.store.run(i).result()["last"] for i in ids] for made in (together, apart, other)]
    assert results[0] == results[1] == results[2]


def test_batch_norm_and_weights_of_the_teacher_are_as_they_were(tmp_path):
    made = planned(tmp_path)
    located_runs = [LocatedRun.read(made.store.run(p.run.id)) for p in made.students]
    images, parts = load_run_data(located_runs[0])
    execution = Placement(WorkerOptions())
    taught = next(b for b in located_runs if b.run.teacher is not None)
    teacher, shapes = load_teacher(taught, images, parts, execution, Modules())
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    members = [build_member(b, images, parts, shapes if b.run.teacher else None, execution, Modules()) for b in located_runs]
    fit(Cohort(members, parts, teacher, execution), emit=lambda _: None, stop=lambda: False)
    assert {m.failure for m in members} == {None}
    assert all(torch.equal(before[name], value) for name, value in teacher.network.state_dict().items())
    assert not any(p.requires_grad for p in teacher.network.parameters())
    assert not teacher.network.model.training


def test_a_method_is_built_from_what_its_own_teacher_gives_of_training_samples(tmp_path):
    made = planned(tmp_path, methods="wkd_l")
    located = next(LocatedRun.read(made.store.run(p.run.id)) for p in made.students if p.run.objective.label == "wkd_l")
    images, parts = load_run_data(located)
    execution = Placement(WorkerOptions())
    teacher, shapes = load_teacher(located, images, parts, execution, Modules())
    positions = torch.tensor([200, 3, 150])
    with torch.no_grad():
        expected = teacher.network(parts.train.images[positions], Need.EMBEDDING).embedding
    torch.testing.assert_close(shapes.embed(positions), expected)
    members = [build_member(located, images, parts, shapes, execution, Modules()) for _ in range(2)]
    costs = [member.objective.parts["wkd_l"].cost for member in members]
    assert torch.equal(*costs)
    of_each = [(parts.train.targets == label).nonzero().flatten() for label in range(10)]
    count = min(100, *map(len, of_each))
    fours, nines = ((one := shapes.embed(of_each[label][:count]).double()) - one.mean(0) for label in (4, 9))
    alike = (nines.T @ fours).square().sum() / ((fours.T @ fours).norm() * (nines.T @ nines).norm())
    assert costs[0][4, 9].item() == pytest.approx(1 - math.exp(alike.item() - 1), rel=1e-5)


def test_a_stop_in_the_middle_of_an_epoch_leaves_checkpoints_that_end_the_same(tmp_path):
    whole, broken = planned(tmp_path / "whole", methods="hinton,crd"), planned(tmp_path / "broken", methods="hinton,crd")
    ids = [p.run.id for p in whole.students]
    train(whole, ids)
    for stop_at in (2, 1, 1):
        asked = iter(range(1000))
        with pytest.raises(Stopped):
            train_runs(broken.store, ids, WorkerOptions(), WorkerState(), lambda _: None, lambda at=stop_at, asked=asked: next(asked) >= at)
        assert {broken.store.run(i).state() for i in ids} == {"started"}
    train(broken, ids)
    assert weights(whole) == weights(broken)
    for i in ids:
        lines = [made.store.run(i).metrics.read_text().splitlines() for made in (whole, broken)]
        assert len(lines[0]) == len(lines[1]) == 2


MIXED = {
    "teacher_recipe.epochs": 15,
    "recipe.mixup": 0.4,
    "recipe.cutmix": 1.0,
    "recipe.mix_prob": 0.8,
    "recipe.label_smoothing": 0.1,
    "recipe.augment.crop": "pad",
    "recipe.augment.pad": 1,
    "recipe.augment.randaugment": 2,
    "recipe.augment.contrast": 0.3,
    "recipe.augment.cutout": 2,
}


@pytest.mark.slow
def test_mixed_and_augmented_images_are_the_same_after_a_stop_and_in_another_cohort(tmp_path):
    """hinton reads one view, mlld a second one, cskd partners of a class: each is augmented and mixed."""
    options = {"methods": "hinton,mlld,cskd", "set": MIXED}
    whole, broken, apart = (planned(tmp_path / name, **options) for name in ("whole", "broken", "apart"))
    ids = [p.run.id for p in whole.students]
    train(whole, ids)
    for stop_at in (2, 1, 1):
        asked = iter(range(1000))
        with pytest.raises(Stopped):
            train_runs(broken.store, ids, WorkerOptions(), WorkerState(), lambda _: None, lambda at=stop_at, asked=asked: next(asked) >= at)
    train(broken, ids)
    train(apart, *([run_id] for run_id in reversed(ids)))
    assert {whole.store.run(run_id).state() for run_id in ids} == {"done"}
    assert weights(whole) == weights(broken) == weights(apart)


def test_same_seed_same_start_whatever_the_method_and_other_seeds_differ(tmp_path):
    made = planned(tmp_path, seeds="2", methods="hinton,crd")
    starts: dict[int, set[bytes]] = {}
    for p in made.students:
        located = LocatedRun.read(made.store.run(p.run.id))
        images, parts = load_run_data(located)
        shapes = load_teacher(located, images, parts, Placement(WorkerOptions()), Modules())
        member = build_member(located, images, parts, shapes[1] if shapes else None, Placement(WorkerOptions()), Modules())
        assert (member.step, member.seconds) == (0, 0.0)
        digest = b"".join(value.numpy().tobytes() for value in member.network.model.state_dict().values())
        starts.setdefault(p.run.seed, set()).add(digest)
    assert [len(found) for found in starts.values()] == [1, 1]
    assert len(set.union(*starts.values())) == 2


def test_what_is_told_of_two_runs_adds_up_to_their_epochs_and_nothing_was_skipped(tmp_path):
    made = planned(tmp_path, methods="hinton")
    events: list[Event] = []
    train_runs(made.store, [one.run.id for one in made.students], WorkerOptions(), WorkerState(), events.append, lambda: False)
    steps = [event for event in events if isinstance(event, StepsTaken)]
    assert sum(event.units for event in steps) == pytest.approx(2 * 2 * UNITS_AN_EPOCH)
    assert [event.step for event in steps] == [steps[0].steps // 2, steps[0].steps], "at the end of each epoch, which has few steps"
    assert not [event for event in events if isinstance(event, Note) and "skipped" in event.text]
    for one in made.students:
        result = made.store.run(one.run.id).result()
        assert result["train"]["steps"] == steps[0].steps


def test_a_teacher_at_chance_is_refused_with_its_accuracy(tmp_path):
    made = planned(tmp_path, methods="hinton")
    located = LocatedRun.read(made.store.run(next(p.run.id for p in made.students if p.run.teacher)))
    images, parts = load_run_data(located)
    execution = Placement(WorkerOptions())
    good, _ = load_teacher(located, images, parts, execution, Modules())
    assert refuse_at_chance(good, parts, located.run.recipe.augment, execution) == []
    for parameter in good.network.parameters():
        parameter.data.zero_()
    bad = live_teacher(good.network, "zeros", good.cost, parts, located.run.recipe.augment, execution)
    with pytest.raises(InputError, match="not above chance"):
        refuse_at_chance(bad, parts, located.run.recipe.augment, execution)


@pytest.mark.usefixtures("all_timings")
def test_the_probe_counts_what_a_method_adds(tmp_path):
    made = planned(tmp_path, methods="hinton,fitnet,crd")
    costs = {}
    for p in made.students:
        located = LocatedRun.read(made.store.run(p.run.id))
        images, parts = load_run_data(located)
        served = load_teacher(located, images, parts, Placement(WorkerOptions()), Modules())
        teacher, shapes = served or (None, None)
        member = build_member(located, images, parts, shapes, Placement(WorkerOptions()), Modules())
        costs[p.run.objective.label] = measure_cost(located, member, images, parts, teacher, Placement(WorkerOptions()), Modules())
        batch, teacher_macs = p.run.recipe.batch_size, teacher.cost.macs if teacher else 0
        student_macs = member.size.macs
        steps = costs[p.run.objective.label]["train_macs"] / costs[p.run.objective.label]["step_macs"]
        assert steps == p.run.recipe.epochs * math.ceil(len(parts.train.targets) / batch)
    assert costs["none"]["teacher_passes"] == 0
    assert costs["hinton"]["teacher_passes"] == costs["hinton"]["student_passes"] == costs["hinton"]["views"] == 1
    assert costs["hinton"]["extra_parameters"] == 0
    # a 1x1 convolution from the student's 4 channels to the teacher's 32 with batch norm, and two linear layers to 128
    assert costs["fitnet"]["extra_parameters"] == 4 * 32 + 2 * 32
    assert costs["crd"]["extra_parameters"] == (8 * 128 + 128) + (64 * 128 + 128)
    assert costs["crd"]["memory_bytes"] > costs["hinton"]["memory_bytes"] > costs["none"]["memory_bytes"] > 0
    assert all(cost["step_seconds"] > 0 for cost in costs.values())
    # shares of a step of a whole batch, which has this forward for every image and a backward
    assert all(0 < cost["student_milliseconds"] < 1000 * cost["step_seconds"] for cost in costs.values())
    # forward, and backward for weights and inputs, but for the first layer's inputs
    assert 2 * batch * student_macs < costs["none"]["step_macs"] < 3 * batch * student_macs
    assert costs["hinton"]["step_macs"] - costs["none"]["step_macs"] == batch * teacher_macs
    assert costs["fitnet"]["step_macs"] > costs["hinton"]["step_macs"]
    assert {cost["backward_passes"] for cost in costs.values()} == {1}
    assert costs["none"]["time_ratio"] == 1
    assert costs["crd"]["time_ratio"] > 1


def test_the_first_stages_cost_is_added_as_far_as_both_are_known():
    first = {"train_seconds": 2.0, "train_macs": 50, "time_ratio": 1.5}
    cost = {"train_seconds": 4.0, "train_macs": 100, "time_ratio": 3.0, "views": 1}
    assert with_pretrain_stage(cost, first, 0.5) == {"train_seconds": 6.0, "train_macs": 150, "time_ratio": 3.75, "views": 1}
    old = with_pretrain_stage(cost, {"train_seconds": 2.0}, 0.5)
    assert (old["train_seconds"], old["train_macs"], old["time_ratio"]) == (6.0, None, None)


def test_what_cannot_be_adapted_is_refused_before_training_with_the_shapes(tmp_path):
    made = plan(
        bench_config(
            {
                "results": str(tmp_path),
                "data": "digits",
                "pairs": "digits",
                "recipe": "digits",
                "methods": "fitnet",
                "grid": {"fitnet.stage": "7"},
            },
            None,
        )
    )
    with pytest.raises(InputError, match=r"fitnet: stage: expected 0 to 1, got 7; the paired stages are 4x8x8 under 32x8x8"):
        preflight(made, Untrained(Modules()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "recipe.precision": "bfloat16",
            "recipe.optimizer": "adamw",
            "recipe.lr": 0.01,
            "recipe.decay": "weights",
            "recipe.clip": 1.0,
        },
        {
            "recipe.optimizer": "adam",
            "recipe.lr": 0.01,
            "recipe.schedule": "linear",
            "recipe.ema": 0.9,
            "recipe.label_smoothing": 0.1,
            "recipe.augment.flip": True,
        },
        {"recipe.schedule": "step", "recipe.milestones": [0.5], "recipe.mixup": 0.2, "recipe.cutmix": 1.0, "recipe.mix_prob": 0.5},
        {"recipe.augment.randaugment": 1, "recipe.augment.magnitude": 5, "recipe.augment.cutout": 2, "recipe.augment.brightness": 0.2},
    ],
    ids=["adamw in bfloat16", "adam in a line, with a moving average and flips", "steps and mixed images", "augmented"],
)
def test_every_choice_of_a_recipe_trains_above_chance(tmp_path, changes):
    from kdzoo.suite.run.prepare import prepare

    options = {"results": str(tmp_path), "name": "b", "data": "digits", "pairs": "digits", "recipe": "digits", "seeds": "1"}
    options |= {"epochs": 12, "limit": 700}
    prepared = prepare(bench_config({**options, "methods": "hinton", "threads": 1, "set": changes}, None))
    outcome = run(prepared, Here(), lambda _: None, retry_failed=False)
    assert outcome.failed == {}
    for run_id in outcome.done:
        assert prepared.plan.store.run(run_id).result()["last"]["val"]["top1"] > 0.3


@pytest.mark.slow
def test_part_of_the_labels_trains_on_all_images_and_refuses_methods_that_read_labels(tmp_path):
    from kdzoo.suite.run.prepare import prepare

    options = {"results": str(tmp_path), "name": "b", "data": "digits", "pairs": "digits", "recipe": "digits", "epochs": 6, "seeds": "1"}
    config = bench_config({**options, "methods": "hinton", "threads": 1, "label_fraction": 0.1}, None)
    outcome = run(prepare(config), Here(), lambda _: None, retry_failed=False)
    assert outcome.failed == {}
    with pytest.raises(InputError, match="crd: reads the labels of every sample"):
        prepare(bench_config({**options, "methods": "crd", "label_fraction": 0.1}, None))


def test_a_cohort_holds_no_more_than_the_memory_it_was_given(tmp_path):
    made = planned(tmp_path, methods="hinton,at,rkd", alphas="0.3,0.6")
    located_runs = [LocatedRun.read(made.store.run(p.run.id)) for p in made.students]
    images, parts = load_run_data(located_runs[0])
    served = load_teacher(next(b for b in located_runs if b.run.teacher), images, parts, Placement(WorkerOptions()), Modules())
    assert served is not None
    members = [build_member(b, images, parts, served[1], Placement(WorkerOptions()), Modules()) for b in located_runs]
    for number, member in enumerate(members):
        member.cost = {"memory_bytes": 100 + number}
    members[2].step = 5
    groups = group_by_step(members, memory=350)
    assert sorted(m.run.id for group in groups for m in group) == sorted(m.run.id for m in members)
    assert all(len({m.step for m in group}) == 1 for group in groups)
    assert all(sum(m.cost["memory_bytes"] for m in group if m.cost) <= 350 for group in groups)
    assert max(len(group) for group in groups) == 3
    assert all(len(group) == 1 for group in group_by_step(members, memory=1))


@pytest.mark.slow
def test_students_that_are_one_batched_computation_end_where_they_end_one_by_one(tmp_path):
    made = {name: planned(tmp_path / name, methods="hinton,at,crld,dml", epochs=1) for name in ("stacked", "alone")}
    ids = [p.run.id for p in made["alone"].students]
    train(made["alone"], ids)
    notes: list[dict[str, object]] = []
    train_runs(made["stacked"].store, ids, WorkerOptions(stack_students=True), WorkerState(), notes.append, lambda: False)
    assert [note for note in notes if isinstance(note, Note | RunFailed)] == []
    for run_id in ids:
        alone, stacked = (load_file(bench.store.run(run_id).student) for bench in (made["alone"], made["stacked"]))
        for name, expected in alone.items():
            assert torch.allclose(expected.double(), stacked[name].double(), rtol=1e-3, atol=1e-4), (run_id, name)


def breaks_in_the_loss(member: Member) -> None:
    member.objective.forward = None  # type: ignore[assignment]


def breaks_in_the_backward(member: Member) -> None:
    real = member.objective.forward

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("this backward cannot be computed")

    def forward(*given):
        losses = real(*given)
        return replace(losses, total=Broken.apply(losses.total))

    member.objective.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize("broken", [breaks_in_the_loss, breaks_in_the_backward])
def test_one_student_of_a_stack_may_fail_and_the_others_end_as_without_it(tmp_path, broken):
    made = planned(tmp_path, methods="hinton,rkd", alphas="0.3,0.6", epochs=1)
    ids = [p.run.id for p in made.students]
    bad = next(i for i in ids if i.startswith("rkd"))
    real = runs_of_a_job.Cohort

    def breaking(members, *rest):
        for member in members:
            if member.run.id == bad and len(members) > 1:
                broken(member)
        return real(members, *rest)

    stacked = WorkerOptions(stack_students=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_of_a_job, "Cohort", breaking)
        train_runs(made.store, ids, stacked, WorkerState(), lambda _: None, lambda: False)
    assert {i: made.store.run(i).state() for i in ids} == {i: "failed" if i == bad else "done" for i in ids}
    ended = {i: load_file(made.store.run(i).student) for i in ids if i != bad}
    for run_id in ended:
        made.store.run(run_id).reset()
    train_runs(made.store, list(ended), stacked, WorkerState(), lambda _: None, lambda: False)
    for run_id, expected in ended.items():
        found = load_file(made.store.run(run_id).student)
        assert all(torch.allclose(value.double(), found[name].double(), rtol=1e-3, atol=1e-4) for name, value in expected.items())


EACH_COMBINATION = [Pass.FIRST, Pass.SECOND_VIEW, Pass.PARTNER, Pass.SECOND_VIEW | Pass.PARTNER]


def reading(name: str, student: Pass, teacher: Pass) -> None:
    """Register a method that reads exactly these passes of the two networks, and the logits of each."""

    @register(name, needs=Needs(Need.LOGITS | student, Need.LOGITS | teacher), version=1)
    def loss(student_outputs, teacher_outputs, batch):
        seen = [student_outputs.logits, *[getattr(student_outputs, NAMES[one]).logits for one in student & OTHERS]]
        taught = [teacher_outputs.logits, *[getattr(teacher_outputs, NAMES[one]).logits for one in teacher & OTHERS]]
        assert all(tensor.shape == seen[0].shape for tensor in seen + taught)
        return sum((tensor - other).square().mean() for tensor in seen for other in taught)


NAMES = {Pass.SECOND_VIEW: "second", Pass.PARTNER: "partner"}
OTHERS = Pass.SECOND_VIEW | Pass.PARTNER


@pytest.mark.slow
@pytest.mark.parametrize("teacher_cache", [0, None])
def test_every_combination_of_passes_of_student_and_teacher_trains_alone(tmp_path, teacher_cache):
    names = []
    for i, student in enumerate(EACH_COMBINATION):
        for j, teacher in enumerate(EACH_COMBINATION):
            names.append(f"reads_{i}_{j}")
            reading(names[-1], student, teacher)
    made = planned(tmp_path, methods=",".join(names), alphas="", epochs=1, limit=150, set={"teacher_recipe.epochs": 15})
    options = WorkerOptions(teacher_cache=teacher_cache, allow_chance_teacher=True)
    for student in made.students:
        train_runs(made.store, [student.run.id], options, WorkerState(), lambda _: None, lambda: False)
    states = {p.run.objective.label: made.store.run(p.run.id) for p in made.students}
    assert {name: folder.failure().error for name, folder in states.items() if folder.state() != "done"} == {}


def test_a_teacher_whose_other_view_alone_is_read_answers_for_that_view(tmp_path):
    seen = []

    @register("apart", needs=Needs(Need.LOGITS, Need.LOGITS | Pass.SECOND_VIEW), version=1)
    def apart(student, teacher, batch):
        seen.append((teacher.logits.clone(), teacher.second.logits.clone()))
        return (student.logits - teacher.second.logits).square().mean()

    made = planned(tmp_path, methods="apart", alphas="", epochs=1, limit=150, set={"teacher_recipe.epochs": 1, "recipe.augment": SHIFTED})
    ids = [p.run.id for p in made.students if p.run.objective.label == "apart"]
    train_runs(made.store, ids, WorkerOptions(allow_chance_teacher=True), WorkerState(), lambda _: None, lambda: False)
    assert made.store.run(ids[0]).state() == "done", made.store.run(ids[0]).failure().error
    assert not any(torch.allclose(first, second) for first, second in seen)


SHIFTED = {"crop": "pad", "pad": 2}


@pytest.mark.slow
def test_float16_says_how_many_steps_it_skipped_and_ends_with_numbers(tmp_path):
    """A few images under a teacher that has learned little: what overflows is the gradient of sp. Half precision is slow on a CPU."""
    half = {"teacher_recipe.epochs": 1, "recipe.precision": "float16", "recipe.batch_size": 16}
    made = planned(tmp_path, methods="sp,hinton", alphas="", epochs=2, limit=150, set=half)
    notes: list[dict[str, object]] = []
    options = WorkerOptions(allow_chance_teacher=True)
    train_runs(made.store, [p.run.id for p in made.students], options, WorkerState(), notes.append, lambda: False)
    for planned_run in made.students:
        folder = made.store.run(planned_run.run.id)
        assert folder.state() == "done", folder.failure().error
        assert all(bool(torch.isfinite(value).all()) for value in load_file(folder.student).values())
        train_part = folder.result()["train"]
        lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
        assert 0 <= lines[0]["skipped_steps"] <= lines[-1]["skipped_steps"] == train_part["skipped_steps"] < train_part["steps"]
        told = [note for note in notes if isinstance(note, Note) and note.text.startswith(folder.id)]
        assert len(told) == (train_part["skipped_steps"] > 0)
    (sp,) = [p.run.id for p in made.students if p.run.objective.label == "sp"]
    assert made.store.run(sp).result()["train"]["skipped_steps"] > 0  # its gradients, some thousand times those of others, overflow


@pytest.mark.slow
def test_a_teachers_average_at_chance_gives_way_once_to_the_weights_it_follows_and_one_that_knows_more_does_not(tmp_path):
    options = {
        "results": str(tmp_path),
        "data": "digits",
        "pairs": "digits",
        "recipe": "digits",
        "epochs": 6,
        "seeds": "1",
        "methods": "none",
    }
    found = {}
    for name, ema in {"slow": {"recipe.ema": 0.9999, "recipe.ema_warmup": False}, "warm": {"recipe.ema": 0.9999}}.items():
        made = plan(bench_config({**options, "name": name, "set": ema}, None))
        write_plan(made)
        events: list[dict[str, object]] = []
        (run_id,) = made.teachers
        train_runs(teacher_store(), [run_id], WorkerOptions(), WorkerState(), events.append, lambda: False)
        result = teacher_store().run(run_id).result()
        notes = [event.text for event in events if isinstance(event, Note)]
        found[name] = (result["average"], result["last"]["val"]["top1"], notes, result["best"]["epoch"])
        located = LocatedRun.read(teacher_store().run(run_id))
        images, parts = load_run_data(located)
        kept = load_trained_student(located, images, parts, Modules())
        measured = CLASSIFICATION.measure(predict(kept, parts.test, located.run.recipe.augment, torch.device("cpu")), parts.test.targets)
        assert measured["top1"] == result["last"]["test"]["top1"]
    average, top1, notes, best = found["slow"]
    assert (average, best) == (False, 6)
    assert top1 > 0.3
    assert len(notes) == 1
    assert "is at chance" in notes[0]
    average, top1, notes, _ = found["warm"]
    assert average
    assert top1 > 0.3
    assert notes == []
