"""What a bench has left to do: work that was done before is not counted, and shared work once."""

from collections import Counter

import pytest

from kdzoo.runs.events import Event, StepsTaken, TrainingBegun
from kdzoo.runs.metrics_file import read_lines
from kdzoo.suite.plan.cohorts import make_jobs, pretrain_runs, units_of
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.estimate import estimate
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.prepare import Prepared, configure, prepare
from kdzoo.suite.run.work import work
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training import cost
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
    """With a step that takes a second, it is the steps that are left."""
    monkeypatch.setattr("kdzoo.suite.run.estimate.seconds_an_epoch", lambda cohort: cohort.steps_an_epoch)
    made = prepared(methods=["none"], seeds=[3], val_fraction=0.0)
    write_plan(made.plan)
    assert estimate(made) == (2 + 1) * 4 * 5  # the student alone, plain KD and their teacher, four epochs of five steps
    with pytest.raises(Stopped):
        trained(made, steps=12)
    behind = sum(len(read_lines(path)) for path in place.glob("results/bench/runs/*/metrics.jsonl"))
    assert 0 < behind < 8
    assert estimate(made) == (2 * 4 - behind) * 5


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 1), (float("inf"), 6)])
def test_an_estimate_takes_one_step_of_each_kind_of_run_where_a_step_is_long(place, monkeypatch, seconds, steps):
    taken = []

    def counted(step, cohort):
        taken.append(cohort.members[0].run.id)
        return timed(step, cohort)

    timed = cost._timed
    monkeypatch.setattr(cost, "_timed", counted)
    monkeypatch.setattr(cost, "ESTIMATE_SECONDS", seconds)
    made = prepared(methods=["hinton"])
    write_plan(made.plan)
    assert estimate(made) > 0
    assert sorted(Counter(taken).values()) == [steps] * 3  # the student alone, plain KD, their teacher
