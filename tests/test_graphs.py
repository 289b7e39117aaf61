"""Steps that are recorded and replayed end where steps that are computed one by one end; what cannot be recorded is told.

On a CPU a tape stands for CUDA's graphs: it runs the operators of a recorded step again, and nothing of its Python.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tape import Tape
from trained_teachers import written_bench
from turns import part_of

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.errors import InputError
from kdzoo.methods.hinton import Hinton
from kdzoo.runs.events import Note
from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run import accelerators
from kdzoo.suite.run.prepare import prepare
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.member import Member
from kdzoo.training.train import Stopped

GRAPHS = WorkerOptions(graphs=True)
CLOCKS = {"seconds"}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture
def tape(monkeypatch) -> Tape:
    """What records the steps of this test."""
    recorder = Tape()
    monkeypatch.setattr(accelerators, "recorder_of", lambda device: recorder)
    return recorder


def planned(folder: Path, **options) -> Plan:
    """A bench whose last batch is short."""
    changes = {"recipe.batch_size": 32, "teacher_recipe.epochs": 10, **options.get("set", {})}
    return written_bench(folder, **{**options, "set": changes})


def train(made: Plan, options: WorkerOptions, stop=lambda: False) -> list[str]:
    """Train a bench; what was noted."""
    events: list[object] = []
    train_runs(made.store, [student.run.id for student in made.students], options, WorkerState(), events.append, stop)
    return [event.text for event in events if isinstance(event, Note)]


def differences(one: Plan, other: Plan, diverging: Sequence[str] = ()) -> list[str]:
    """What differs of weights, statistics and the lines of all epochs, to the bit. diverging: methods that may fail, in both."""
    found = []
    for student in one.students:
        folders = [made.store.run(student.run.id) for made in (one, other)]
        if student.run.objective.label in diverging and {folder.state() for folder in folders} == {"failed"}:
            continue
        first, second = (load_file(folder.student) for folder in folders)
        found += [f"{student.run.id}: {name}" for name in first if not torch.equal(first[name], second[name])]
        lines = [[{k: v for k, v in line.items() if k not in CLOCKS} for line in read_lines(f.metrics, student.run.id)] for f in folders]
        assert lines[0]
        found += [f"{student.run.id}: line {number}" for number, pair in enumerate(zip(*lines, strict=True)) if pair[0] != pair[1]]
    return found


def both(folder: Path, **options) -> tuple[Plan, Plan]:
    """The same bench twice: one for steps as they come, one for recorded ones."""
    plain, recorded = (planned(folder / name, **options) for name in ("plain", "recorded"))
    train(plain, WorkerOptions())
    return plain, recorded


EVERYTHING = {
    "recipe.mixup": 0.8,
    "recipe.ema": 0.9,
    "recipe.ema_warmup": True,
    "recipe.clip": 1.0,
    "recipe.schedule": "cosine",
    "recipe.warmup": 0.1,
    "recipe.augment.randaugment": 2,
}
DROPPING = {"recipe.dropout": 0.5, "recipe.input_dropout": 0.2, "recipe.dropout_schedule": "linear", "recipe.max_norm": 0.6}


@pytest.mark.parametrize(
    ("options", "recordings"),
    [
        # crd has a memory, ctkd looks at the epoch and is recorded anew in each, reviewkd's factor rises
        ({"methods": "hinton,at,crd,rkd,dkd,ctkd,reviewkd"}, 9),
        ({"methods": "hinton", "set": EVERYTHING}, 2),
        ({"methods": "hinton", "set": {"recipe.precision": "bfloat16"}}, 2),
        ({"methods": "hinton", "pairs": "mlp_64_64/mlp_32", "set": DROPPING}, 4),
    ],
    ids=["methods", "mixed images, moving average, clipped gradients, a cosine", "bfloat16", "dropout by epoch, max-norm"],
)
def test_replayed_steps_end_at_the_same_bits(tmp_path, tape, options, recordings):
    plain, recorded = both(tmp_path, **options)
    assert train(recorded, GRAPHS) == []
    assert (tape.recorded, tape.replayed > 2 * tape.recorded) == (recordings, True)
    assert differences(plain, recorded) == []


def stopped(made: Plan, options: WorkerOptions, looks: int) -> None:
    """Train a bench and stop it when it asks for the so-manieth time whether to."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == looks

    with pytest.raises(Stopped):
        train(made, options, stop)


def test_adam_ends_there_up_to_the_rounding_of_its_rate_and_after_a_stop_at_the_same_bits(tmp_path, tape):
    """A rate on the device is a float32, which is all that fused kernels take there."""
    adam = {"recipe.optimizer": "adamw", "recipe.lr": 0.002, "recipe.schedule": "cosine"}
    plain, recorded = both(tmp_path, set=adam)
    assert train(recorded, GRAPHS) == []
    again = planned(tmp_path / "again", set=adam)
    stopped(again, GRAPHS, looks=12)
    assert train(again, GRAPHS) == []
    assert differences(recorded, again) == []
    for student in plain.students:
        ended, expected = (load_file(made.store.run(student.run.id).student) for made in (recorded, plain))
        assert all(torch.allclose(ended[name].double(), value.double(), rtol=1e-3, atol=1e-4) for name, value in expected.items())


def test_a_run_goes_on_without_graphs_from_a_checkpoint_of_recorded_steps(tmp_path, tape):
    plain, recorded = both(tmp_path, set={"recipe.schedule": "cosine"})
    stopped(recorded, GRAPHS, looks=12)
    assert tape.replayed
    train(recorded, WorkerOptions())
    assert differences(plain, recorded) == []


def test_a_stack_of_students_is_one_recording(tmp_path, tape):
    plain, recorded = (planned(tmp_path / name, methods="hinton,at", alphas="0.3,0.6") for name in ("plain", "recorded"))
    stacked = WorkerOptions(stack_students=True)
    train(plain, stacked)
    assert train(recorded, stacked.model_copy(update={"graphs": True})) == []
    assert tape.recorded == 1
    assert differences(plain, recorded) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"methods": "dml"}, "dml runs networks of its own, whose random layers are seeded in every step"),
        ({"set": {"recipe.dot": 0.075, "recipe.nesterov": False, "recipe.momentum": 0.9}}, "DOT takes two gradients"),
        # fully connected and few images: half precision is slow on most CPUs
        (
            {"pairs": "mlp_64_64/mlp_32", "limit": 100, "set": {"recipe.precision": "float16"}},
            "the steps that float16 skips are counted one by one; take bfloat16",
        ),
    ],
)
def test_what_cannot_be_recorded_is_told_and_trained_as_it_comes(tmp_path, tape, options, why):
    plain, recorded = both(tmp_path, epochs=1, **options)
    notes = train(recorded, GRAPHS)
    assert notes
    assert {note.partition(": ")[2] for note in notes} == {f"trained without CUDA graphs: {why}"}
    assert differences(plain, recorded) == []


def by_step(self, student, teacher, batch, module):
    return (student.logits - teacher.logits).square().mean() * (1 + batch.clock.progress)


def by_value(self, student, teacher, batch, module):
    loss = (student.logits - teacher.logits).square().mean()
    return loss * 2 if loss.item() > 1 else loss


@pytest.mark.parametrize(
    ("loss", "why"),
    [(by_step, "a loss looks at the number of the step"), (by_value, "contract/objective.py: _local_scalar_dense makes the host wait")],
)
def test_a_loss_that_looks_at_the_step_or_reads_a_number_back_is_found_by_its_first_step(tmp_path, tape, monkeypatch, loss, why):
    """A method of the zoo in every way but this."""
    monkeypatch.setattr(Hinton, "loss", loss)
    plain, recorded = both(tmp_path)
    assert [note.partition("graphs: ")[2] for note in train(recorded, GRAPHS)] == [why]
    assert differences(plain, recorded) == []


def test_a_recorder_that_fails_costs_the_run_nothing(tmp_path, monkeypatch):
    class Failing(Tape):
        def record(self, act, streams):
            raise RuntimeError("an operation is not permitted when the stream is capturing\nand more")

    monkeypatch.setattr(accelerators, "recorder_of", lambda device: Failing())
    plain, recorded = both(tmp_path)
    notes = train(recorded, GRAPHS)
    assert {note.partition(": ")[2] for note in notes} == {
        "trained without CUDA graphs: an operation is not permitted when the stream is capturing"
    }
    assert differences(plain, recorded) == []


@pytest.mark.parametrize("stack_students", [False, True])
def test_what_breaks_off_after_its_backward_leaves_no_gradient_and_fails_no_run_of_a_stack(tmp_path, monkeypatch, stack_students):
    """Without batch norm, whose statistics the forward of a real recording would leave alone."""

    class BreakingOff(Tape):
        def record(self, act, streams):
            def refuse(*_):
                raise RuntimeError("an operation is not permitted when the stream is capturing")

            with monkeypatch.context() as patch:
                patch.setattr(Member, "update", refuse)
                act()

    monkeypatch.setattr(accelerators, "recorder_of", lambda device: BreakingOff())
    options = {"pairs": "mlp_64_64/mlp_32", "methods": "hinton,dkd"}
    plain, recorded = (planned(tmp_path / name, **options) for name in ("plain", "recorded"))
    train(plain, WorkerOptions(stack_students=stack_students))
    notes = train(recorded, GRAPHS.model_copy(update={"stack_students": stack_students}))
    assert {note.partition("graphs: ")[2] for note in notes} == {"an operation is not permitted when the stream is capturing"}
    assert differences(plain, recorded) == []


@pytest.mark.slow
def test_every_method_of_the_zoo_is_recorded_to_the_same_bits_or_told(tmp_path, tape):
    """A twelfth of them at each commit (see turns.py)."""
    cards = {name: REGISTRY.get(name).card.needs.student.outputs for name in REGISTRY.names_for_images()}
    names = part_of([name for name, outputs in cards.items() if Need.DISTILLED not in outputs], 12)  # this student has no such token
    plain, recorded = both(tmp_path, methods=",".join(names))
    notes = train(recorded, GRAPHS)
    assert {note.split("-")[0] for note in notes} <= {
        name for name in names if Need.NETWORK in REGISTRY.get(name).card.needs.student.outputs
    }
    assert differences(plain, recorded, diverging=["semckd"]) == []


def test_graphs_are_refused_where_there_is_no_gpu(tmp_path):
    with pytest.raises(InputError, match="graphs: needs a GPU, and this runs on cpu; leave it out"):
        prepare(bench_config({"data": "digits", "pairs": "digits", "results": str(tmp_path), "graphs": True, "device": "cpu"}, None))


def test_a_worker_without_a_gpu_says_so_and_trains(tmp_path):
    made = planned(tmp_path, epochs=1)
    assert train(made, GRAPHS) == ["steps are not recorded: CUDA graphs need a GPU, and this is cpu"]


def test_a_stack_is_recorded_anew_when_one_of_it_has_failed(tmp_path, tape):
    plain, recorded = (planned(tmp_path / name, weights="1,1e38") for name in ("plain", "recorded"))
    stacked = WorkerOptions(stack_students=True)
    for made, options in ((plain, stacked), (recorded, stacked.model_copy(update={"graphs": True}))):
        train_runs(made.store, [student.run.id for student in made.students], options, WorkerState(), lambda _: None, lambda: False)
    states = [[made.store.run(student.run.id).state() for student in made.students] for made in (plain, recorded)]
    assert states[0] == states[1]
    assert sorted(states[0]) == ["done", "done", "failed"]
    assert tape.recorded == 2
    done = [student for student in plain.students if plain.store.run(student.run.id).state() == "done"]
    assert differences(replace(plain, students=tuple(done)), recorded) == []
