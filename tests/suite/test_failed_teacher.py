"""A teacher whose training failed: what the bench says, and how it is trained again."""

import pytest

from kdzoo.errors import WorkFailed
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.prepare import prepare

SMALL = {"data": "digits", "pairs": "digits", "recipe": "digits", "methods": "hinton", "limit": 300, "epochs": 1, "seeds": 1, "threads": 1}


@pytest.fixture
def prepared(place):
    made = prepare(bench_config({**SMALL, "allow_chance_teacher": True}, None))
    write_plan(made.plan)
    for run_id in made.plan.teachers:
        teacher_store().run(run_id).fail("Traceback\nFloatingPointError: the loss became NaN or infinite at step 7\n")
    return made


def test_it_fails_the_bench_with_the_reason_until_failed_runs_are_trained_again(prepared):
    with pytest.raises(WorkFailed, match=r"its training failed: FloatingPointError.*--retry-failed"):
        run(prepared, Here(), lambda _: None, retry_failed=False)
    outcome = run(prepared, Here(), lambda _: None, retry_failed=True)
    assert len(outcome.done) == 2
    assert not outcome.failed


def test_the_status_is_that_of_a_failed_run_and_not_of_bad_input(prepared, kdzoo):
    (teacher_id,) = prepared.plan.teachers
    words = ["--pairs", "digits", "--recipe", "digits", "--methods", "hinton", "--limit", 300, "--epochs", 1, "--seeds", 1, "--threads", 1]
    said = kdzoo("bench", *words, "--jobs", 1)
    assert said.status == 1
    assert f"teacher {teacher_id}: its training failed" in said.err
