"""Execution is declared once: the command line, a bench's YAML file, Python and the workers have the same options."""

import inspect

import pytest
import yaml
from bench_words import bench_of

import kdzoo
from kdzoo.cli.app import app
from kdzoo.runs.options import ALL, ONE_RUN, ExecutionSpec, WorkerOptions, option_of
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.plan.layers import bench_config

EXAMPLES = {
    "device": (["--device", "cuda:1"], "cuda:1", "cuda:1"),
    "launcher": (["--launcher", "slurm"], "slurm", "slurm"),
    "launcher_option": (["--launcher-option", "address=auto"], ["address=auto"], ("address=auto",)),
    "run_timeout": (["--run-timeout", "90"], 90.0, 90.0),
    "lease_seconds": (["--lease-seconds", "60"], 60.0, 60.0),
    "jobs": (["-j", "3"], 3, 3),
    "processes_per_run": (["--processes-per-run", "2"], 2, 2),
    "threads": (["--threads", "2"], 2, 2),
    "tf32": (["--tf32"], True, True),
    "deterministic": (["--deterministic"], True, True),
    "image_cache": (["--image-cache", "1KB"], "1KB", 1024),
    "channels_last": (["--channels-first"], False, False),
    "fill_gpu": (["--fill-gpu"], True, True),
    "stack_students": (["--stack-students"], True, True),
    "compile": (["--compile"], True, True),
    "graphs": (["--graphs"], True, True),
    "teacher_cache": (["--teacher-cache", "off"], "off", 0),
    "checkpoint_seconds": (["--checkpoint-seconds", "2.5"], 2.5, 2.5),
    "keep": (["--keep", "student,checkpoint"], ["student", "checkpoint"], ("student", "checkpoint")),
    "oracle": (["--oracle"], True, True),
    "check": (["--check", "7"], 7, 7),
    "allow_chance_teacher": (["--allow-chance-teacher"], True, True),
}
"""of every option: words of the command line, the value in a YAML file and in Python, and what all of them mean"""


@pytest.fixture(scope="module")
def bench():
    return app.commands["bench"]


def test_every_option_has_an_example():
    assert EXAMPLES.keys() == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_command_line_file_and_python_mean_the_same_by_an_option(bench, tmp_path, name):
    words, value, meant = EXAMPLES[name]
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump({name: value}))
    asked = [
        bench_of(*words),
        bench_config({}, file),
        bench_config(kdzoo.Execution(**{name: value}).explicit(), None),
    ]
    assert asked[0] == asked[1] == asked[2] != bench_config({}, None)
    assert getattr(asked[0], name) == meant
    assert getattr(WorkerOptions(**{name: value}), name) == meant


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_an_option_is_its_declaration(bench, name):
    (found,) = [one for one in bench.params if one.name == name]
    declared = option_of(name)
    assert found.help.startswith(declared.text)
    assert found.rich_help_panel == declared.panel
    assert (found.metavar or "") == declared.metavar
    assert found.is_flag == (declared.metavar == "")


@pytest.mark.parametrize("function", [kdzoo.bench, kdzoo.reproduce, kdzoo.distill])
def test_python_takes_execution_as_one_argument(function):
    parameters = inspect.signature(function).parameters
    assert "execution" in parameters
    assert not parameters.keys() & set(ALL)


@pytest.mark.parametrize("command", ["train", "run", "distill"])
def test_what_trains_a_single_run_takes_the_options_that_say_something_of_one(command):
    assert {one.name for one in app.commands[command].params} & set(ALL) == set(ONE_RUN)


def test_everything_wrong_with_an_execution_is_told_at_once():
    with pytest.raises(kdzoo.InputError) as caught:
        kdzoo.Execution(thread=1, jobs=0, device="gpu", teacher_cache="much")
    assert sorted(caught.value.problems) == [
        "execution.device: expected auto, cpu, cuda or cuda:NUMBER, got 'gpu'; did you mean 'cpu'?",
        "execution.jobs: expected a number > 0, got 0",
        "execution.teacher_cache: expected off, auto or a size such as 500MB or 4GB, got 'much'",
        "execution.thread: unknown; did you mean 'threads'?",
    ]


def test_an_execution_is_written_as_it_was_asked_for():
    assert repr(kdzoo.Execution(threads=1, compile=True)) == "Execution(threads=1, compile=True)"


def test_a_job_takes_its_options_through_the_pipe_to_its_worker():
    options = WorkerOptions(threads=2, teacher_cache=None, image_cache=1024, keep=("checkpoint",), oracle=True, wandb={"mode": "offline"})
    job = Job("a job", "students", "results/b", ("hinton-0123456789ab",), options, checked_run=("results/b", "none-0123456789ab"))
    assert Job.from_json(job.to_json()) == job
    assert set(ExecutionSpec.model_fields) < set(WorkerOptions.model_fields)
