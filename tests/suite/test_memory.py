"""The memory of runs is estimated before they start; while they train their folders tell when they were last heard of."""

import datetime
import json
import os
import time

import pytest
import torch

from kdzoo.models.identity import module_name
from kdzoo.runs.events import StepsTaken
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import Store
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run import free_memory as free_memory_module
from kdzoo.suite.run import prepare as prepare_module
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.free_memory import available_memory, free_memory, memory_of_cohort
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.memory import MemoryNeeds, memory_notes
from kdzoo.suite.run.prepare import MEMORY_ELSEWHERE, prepare
from kdzoo.suite.run.untrained import Untrained, bind
from kdzoo.training.located import Modules

OPTIONS = {
    "data": "digits", "pairs": "digits", "recipe": "digits", "limit": 1000, "epochs": 2, "methods": "hinton", "seeds": 1, "threads": 1,
    "jobs": 1, "allow_chance_teacher": True, "checkpoint_seconds": 600.0, "refit": False, "name": "b",
}  # fmt: skip
LONG_AGO = 1_000_000_000.0


@pytest.fixture
def made(place):
    return prepare(bench_config(OPTIONS, None))


def needs_of(made, **options) -> MemoryNeeds:
    return MemoryNeeds(made.plan, WorkerOptions(**options), Untrained(Modules()))


def test_the_estimate_is_what_a_run_is_measured_to_take(made, place, kdzoo):
    """The probe of a run counts parameters, gradients, optimiser state and all that autograd saves; batch sizes are the recipe's."""
    heard = {}

    def listen(event) -> None:
        """The first epoch's middle is made to look long ago, so that the next sign of life shows."""
        if isinstance(event, StepsTaken) and len(event.ids) > 1:
            for run_id in event.ids:
                folder = Store(place / "results" / "b").run(run_id)
                heard.setdefault(run_id, []).append(folder.last_sign_of_life())
                os.utime(folder.path, (LONG_AGO, LONG_AGO))
            if len(heard[event.ids[0]]) == 1:
                rows = json.loads(kdzoo("status", "b", "--json").out)["runs"]
                heard["rows"] = {row["id"]: row for row in rows if row["id"] in event.ids}
                heard["text"] = kdzoo("status", "b").out

    began = time.time()
    outcome = run(made, Here(), listen, retry_failed=False)
    assert len(outcome.done) == 2
    needs = needs_of(made)
    for planned in made.plan.students:
        measured = made.plan.store.run(planned.run.id).result()["cost"]["memory_bytes"]
        assert needs.of_run(planned) + needs.of_teacher(planned) == pytest.approx(measured, rel=0.2)

    signs = [sign for run_id, moments in heard.items() if run_id in outcome.done for sign in moments]
    assert len(signs) >= 4
    assert min(signs) >= began - 1, "every event of the trainer comes with a sign of life"
    assert {(row["state"], row["last_heard"]) for row in heard["rows"].values()} == {("running", stamp(LONG_AGO))}
    assert "last heard" in heard["text"]
    assert " days) ago" in heard["text"]
    assert "last heard" not in kdzoo("status", "b").out


def stamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_images_of_a_batch_count_and_are_divided_among_processes(made, place):
    (planned, *_) = [one for one in made.plan.students if one.run.objective.terms]
    (larger, *_) = [
        one
        for one in prepare(bench_config({**OPTIONS, "set": {"recipe.batch_size": 2 * planned.run.recipe.batch_size}}, None)).plan.students
        if one.run.objective.terms
    ]
    alone, doubled = needs_of(made).of_run(planned), needs_of(made).of_run(larger)
    weights = 2 * alone - doubled
    network, _ = Untrained(Modules()).student(bind(planned, made.plan))
    parameters = 4 * sum(p.numel() for p in network.parameters())
    assert weights == pytest.approx(3 * parameters, rel=0.1)  # weights, gradients, momentum; buffers are small
    assert needs_of(made, processes_per_run=2).of_run(planned) == pytest.approx(weights + (alone - weights) / 2, rel=0.01)


def test_a_run_that_does_not_fit_is_told_before_the_start_and_others_are_not(made):
    untrained = Untrained(Modules())
    students = made.plan.students
    taken = max(needs_of(made).of_run(one) + needs_of(made).of_teacher(one) for one in students)
    (told,) = memory_notes(made.plan, students, WorkerOptions(memory=taken // 4), 2, untrained)
    assert "digits_student with batches of" in told
    assert "for each of 2 processes" in told
    assert memory_notes(made.plan, students, WorkerOptions(memory=taken), 2, untrained) == ()
    assert memory_notes(made.plan, [], WorkerOptions(memory=0), 2, untrained) == ()


class NeverFour(torch.nn.Module):
    """A network whose forward fails on four images where gradients are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, images):
        if torch.is_grad_enabled() and self.training and len(images) == 4:
            raise ValueError("four are one too many")
        return self.layer(images.flatten(1))


def test_what_cannot_be_counted_is_told_and_counts_for_no_fit(place):
    network = NeverFour()
    name = module_name(network)
    modules = Modules({name: network})
    made = prepare(bench_config({**OPTIONS, "pairs": None, "teacher": "digits_teacher", "student": name}, None), modules)
    (told,) = [note for note in made.plan.notes if "memory" in note]
    assert told.startswith("how much memory its runs take is not known")
    assert told.endswith(f"{name}: a batch of 2 or 4 images fails (four are one too many)")
    with pytest.raises(ValueError, match="four are one too many"):
        MemoryNeeds(made.plan, WorkerOptions(), Untrained(modules)).of_run(made.plan.students[0])


def test_a_network_is_after_the_estimate_what_it_was_before(made):
    untrained = Untrained(Modules())
    (planned, *_) = made.plan.students
    network, _ = untrained.student(bind(planned, made.plan))
    before, mode = {name: value.clone() for name, value in network.state_dict().items()}, network.training
    MemoryNeeds(made.plan, WorkerOptions(), untrained).of_run(planned)
    assert all((value == before[name]).all() for name, value in network.state_dict().items())
    assert network.training == mode


def test_a_plan_tells_the_memory_of_a_run_and_of_a_cohort(place, kdzoo):
    words = ("bench", "--data", "digits", "--pairs", "digits", "--recipe", "digits", "--epochs", 1, "--seeds", 1, "--jobs", 1, "--dry-run")
    assert "for a run with its teacher" in kdzoo(*words).out


def test_memory_that_files_fill_which_were_read_counts_as_free(tmp_path):
    (tmp_path / "meminfo").write_text(
        "MemTotal:       24000000 kB\nMemFree:          900000 kB\nMemAvailable:   17000000 kB\nCached: 1 kB\n"
    )
    assert available_memory(tmp_path / "meminfo") == 17_000_000 * 1024
    assert available_memory(tmp_path / "none") >= free_memory("cpu") > 0


def test_a_driver_whose_workers_are_elsewhere_checks_no_memory_and_lets_them_ask_their_own_machines(place, monkeypatch):
    """A login node has no GPU and a memory of its own: neither says how many runs a worker may hold at once."""
    monkeypatch.setattr(prepare_module, "free_memory", lambda device: pytest.fail("the driver's own machine was asked"))
    made = prepare(bench_config({**OPTIONS, "launcher": "slurm", "device": "cuda", "jobs": 2}, None))
    assert made.options.memory is None
    assert [note for note in made.plan.notes if "memory" in note] == [MEMORY_ELSEWHERE]
    job = Job.from_json(Job("j", "students", "b", ("x-1",), made.options).to_json())
    on_node = job.options.model_copy(update={"device": "cpu"})
    monkeypatch.setattr(free_memory_module, "available_memory", lambda meminfo: 6_000_000)
    assert memory_of_cohort(on_node) == 3_000_000
    assert memory_of_cohort(on_node.model_copy(update={"memory": 7})) == 7
