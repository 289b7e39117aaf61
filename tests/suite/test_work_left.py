"""What a bench has left to do: work that was done before is not counted, and shared work once."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from kdzoo.contract.methods import REGISTRY
from kdzoo.runs.costs import read_costs
from kdzoo.runs.events import Event, StepsTaken, TrainingBegun
from kdzoo.runs.metrics_file import read_lines
from kdzoo.suite.plan.cohorts import make_jobs, pretrain_runs, units_of
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run import estimate as estimates
from kdzoo.suite.run.estimate import estimate
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.prepare import Prepared, configure, prepare
from kdzoo.suite.run.work import work
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training import cost
from kdzoo.training.run_data import load_dataset
from kdzoo.training.train import UNITS_AN_EPOCH, Stopped


def prepared(**options) -> Prepared:
    usual = {"data": "digits", "limit": 300, "seeds": [0], "epochs": 4, "recipe": "smoke", "threads": 1, "jobs": 1}
    return prepare(configure({"teacher": "digits_teacher", "student": "digits_student", **usual, **options}))


def trained(made: Prepared, *, steps: float = float("inf")) -> list[Job | Event]:
    """A bench's jobs in this process and their events, stopped after so many steps of the students."""
    events: list[Job | Event] = []
    seen = 0

    def stop() -> bool:
        nonlocal seen
        seen += bool(events) and any(isinstance(e, TrainingBegun) and e.role == "student" for e in events)
        return seen > steps

    todo = [planned for planned in made.plan.students if made.plan.store.run(planned.run.id).state() != "done"]
    for job in make_jobs(todo, made.plan, made.options, made.jobs):
        events.append(job)
        work(job, WorkerState(), events.append, stop)
    return events


def units(events: list[Job | Event], kind: type[Job | Event]) -> float:
    return sum(event.units for event in events if isinstance(event, kind))


@pytest.mark.slow
def test_a_resume_says_how_much_its_checkpoints_hold(place):
    made = prepared(methods=["hinton"])
    write_plan(made.plan)
    first = trained(made)
    assert units(first, Job) == units(first, StepsTaken) == 3 * 4 * UNITS_AN_EPOCH

    made = prepared(methods=["hinton"], seeds=[7])
    write_plan(made.plan)
    with pytest.raises(Stopped):
        trained(made, steps=9)
    again = trained(prepared(methods=["hinton"], seeds=[7]))
    held = units(again, TrainingBegun)
    assert 0 < held < units(again, Job)
    assert units(again, Job) - held == pytest.approx(units(again, StepsTaken))


@pytest.mark.slow
def test_a_first_stage_that_runs_share_is_counted_once_and_not_after_it_was_trained(place):
    made = prepared(methods=["fitnet_two_stage"], alphas=[0.5, 0.9])
    write_plan(made.plan)
    (stages,) = pretrain_runs(made.plan.students, made.plan).values()
    assert units_of(stages[0]) > 0
    events = trained(made)
    assert units(events, Job) == pytest.approx(units(events, StepsTaken))
    assert pretrain_runs(made.plan.students, made.plan) == {}


@pytest.mark.slow
def test_the_estimate_leaves_out_the_epochs_that_are_behind(place, monkeypatch):
    """With a step that takes a second and nothing to be built, it is the steps that are left, and evaluation."""
    monkeypatch.setattr(estimates, "probe_cost", lambda *_: estimates.ProbedCost(setup=0.0, own=1.0, shared=0.0, evaluated=0.01))
    made = prepared(methods=["none"], seeds=[3], val_fraction=0.0)
    write_plan(made.plan)
    test = 0.01 * len(load_dataset("digits", None, None, None, False).test.targets)  # at the end of a run
    trainings = 2 + 1  # the student alone, plain KD and their teacher: four epochs of five steps each
    assert estimate(made) == pytest.approx(estimates.START_SECONDS + trainings * (4 * 5 + test))
    with pytest.raises(Stopped):
        trained(made, steps=12)
    behind = sum(len(read_lines(path, path.parent.name)) for path in place.glob("results/bench/runs/*/metrics.jsonl"))
    assert 0 < behind < 8
    made = prepared(methods=["none"], seeds=[3], val_fraction=0.0)
    assert estimate(made) == pytest.approx(estimates.START_SECONDS + (2 * 4 - behind) * 5 + 2 * test)


def test_the_estimate_has_the_measuring_of_doses(place, monkeypatch):
    """With steps of known seconds: one of warm-up, which is a twentieth of twenty, and the batches of which gradients are taken."""

    def probed(located, *_):
        with_method = bool(located.run.objective.terms)
        return estimates.ProbedCost(setup=0.0, own=4.0 if with_method else 1.5, shared=0.25 if with_method else 0.0, evaluated=0.0)

    monkeypatch.setattr(estimates, "probe_cost", probed)
    made = prepared(methods=["hinton", "at"], doses=[0.1])
    measured = {planned.run.objective.label for planned in made.plan.unmeasured}
    assert measured == {"at", "hinton"}
    without = replace(made, plan=replace(made.plan, unmeasured=()))
    shared, alone, added, backward = 0.25, 1.5, 4.0 - 1.5, 4.0 - 0.5  # a forward of the student is a third of its step
    expected = (shared + alone + 2 * added) + 16 * (shared + alone + 2 * backward)
    assert estimate(made) - estimate(without) == pytest.approx(expected)


def test_what_an_estimate_times_is_told_once_for_each_kind_of_run(place, monkeypatch):
    monkeypatch.setattr(estimates, "probe_cost", lambda *_: estimates.ProbedCost(setup=0.0, own=1.0, shared=0.0, evaluated=0.0))
    told: list[str] = []

    @contextmanager
    def watch(text):
        told.append(text)
        yield

    made = prepared(methods=["hinton", "at"], seeds=[3, 4])
    estimate(made, estimates.Probes.of(made, watch=watch))
    kinds = ["digits_teacher alone", "digits_student alone", "digits_student by hinton", "digits_student by at"]
    assert sorted(told) == sorted(f"timing a few steps of {kind}, for the estimate of the time" for kind in kinds)


OPTIONS = {"methods": ["hinton"], "epochs": 2, "allow_chance_teacher": True}


@dataclass(frozen=True)
class Trained:
    """A bench that was trained here: its processor time, and how often a method was made of a specification meanwhile."""

    seconds: float
    made: Counter[str]


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Iterator[Trained]:
    """A teacher, the student alone and plain KD, trained for two epochs on 270 images each, with 30 for validation."""
    folder, made = tmp_path_factory.mktemp("bench"), Counter[str]()
    create = REGISTRY.create
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("KDZOO_CACHE", str(folder / "cache"))
        ready = prepared(seeds=[3], **OPTIONS)
        write_plan(ready.plan)
        patch.setattr(REGISTRY, "create", lambda name, values: (made.update([name]), create(name, values))[1])
        began = time.process_time()
        trained(ready)
        yield Trained(time.process_time() - began, made)


def test_a_method_is_made_once_in_the_process_that_trains_its_run(bench):
    """By the run itself and by the probe of its cost together: what run.json says is read once."""
    assert bench.made == {"hinton": 1}


def test_what_finished_runs_cost_is_what_the_next_ones_are_estimated_at(bench, monkeypatch):
    """A bench of the same kinds and lengths is estimated without a probe, at no more than those runs took with their teacher."""
    monkeypatch.setattr(estimates, "probe_cost", lambda *_: pytest.fail("every kind of run is on record"))
    students = [cost for kind, cost in read_costs().items() if '"student":["digits_student"' in kind]
    assert len(students) == 2  # the student alone and plain KD
    training, evaluation = 2 * 5 * 64, 3 * 30 + 2 * 359  # images: of two epochs of five steps; of validation thrice and the test twice
    again = estimate(prepared(seeds=[4], **OPTIONS)) - estimates.START_SECONDS
    assert again == pytest.approx(sum(cost.setup + cost.image * training + cost.evaluated * evaluation for cost in students))
    assert 0 < again <= bench.seconds


@pytest.mark.usefixtures("all_timings")
@pytest.mark.parametrize(("seconds", "steps", "evaluations"), [(0.0, 1, 1), (float("inf"), 11, 6)])
def test_an_estimate_takes_one_step_of_each_kind_of_run_where_a_step_is_long(place, monkeypatch, seconds, steps, evaluations):
    """Ten steps and five evaluations, and one of each to warm up, where they are short: of the student alone, plain KD, their teacher."""
    timed = []
    time_step = cost._time
    monkeypatch.setattr(cost, "_time", lambda half, cohort: (timed.append(cohort.members[0].run.id), time_step(half, cohort))[1])
    monkeypatch.setattr(cost, "ESTIMATE_SECONDS", seconds)
    monkeypatch.setattr(cost, "EVALUATION_SECONDS", seconds)
    made = prepared(methods=["hinton"])
    write_plan(made.plan)
    assert estimate(made) > 0
    assert sorted(Counter(timed).values()) == [2 * steps + evaluations] * 3  # a step is timed in two halves
