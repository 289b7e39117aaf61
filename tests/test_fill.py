"""The strategy that fills a GPU best is the one that was measured to be fastest; the measurement is real, in processes of its own.

Where a bench chooses one, the planned device is a GPU that is not there: a plan needs no more of it than its name.
"""

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edited import edit
from registries import registered_for_a_while
from torch import nn

import kdzoo
from kdzoo.errors import InputError, KdzooError
from kdzoo.models.identity import module_name
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run import bench, fill, prepare
from kdzoo.suite.run.fill import Measurement, Strategy, fastest, measure, strategies_for
from kdzoo.suite.run.launchers.here import Here
from kdzoo.training.located import Modules

ONE, TWO, FOUR, SIX, STACK = Strategy(1), Strategy(2), Strategy(4), Strategy(6), Strategy(1, stacked=True)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({ONE: 1.0, TWO: 0.6, SIX: 0.3, STACK: 0.2}, STACK),
        ({ONE: 1.0, TWO: 0.6, SIX: 0.3, STACK: 0.5}, SIX),
        ({ONE: 1.0, TWO: 1.7, SIX: 4.0, STACK: 2.0}, ONE),
        # as fast, up to what a clock says
        ({ONE: 1.04, TWO: 1.0, SIX: 1.01}, ONE),
        ({ONE: 2.0, SIX: 1.04, STACK: 1.0}, SIX),
    ],
)
def test_the_fastest_is_taken_and_of_those_as_fast_the_one_with_the_fewest_processes(seconds, best):
    assert fastest(seconds) == best


def test_there_are_no_more_processes_than_runs_and_no_stack_of_one():
    assert strategies_for(1) == [ONE]
    assert strategies_for(5) == [ONE, TWO, FOUR, STACK]


def config(folder, **more):
    asked = {
        "data": "digits",
        "pairs": "mlp_64_64/mlp_32",
        "recipe": "digits",
        "limit": 300,
        "seeds": "1",
        "methods": "hinton,at",
        "alphas": "0.3,0.6",
        "results": str(folder),
        "name": "b",
        **more,
    }
    return bench_config(asked, None)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KDZOO_LAUNCHER", raising=False)


@pytest.fixture
def prepared(tmp_path):
    return prepare.prepare(config(tmp_path, jobs=2, threads=1))


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where temporary folders of this test are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def measured(prepared, *strategies: Strategy, plugins=(), **changes) -> Measurement:
    options = prepared.options.model_copy(update=changes)
    return measure(
        prepared.plan.students, lambda one: options.model_copy(update={"stack_students": one.stacked}), plugins, (), strategies=strategies
    )


# measured for real


def test_every_strategy_is_measured_for_real_and_leaves_nothing_behind(prepared, temporary):
    found = measured(prepared, TWO, STACK)
    assert found.failures == {}
    assert found.seconds.keys() == {TWO, STACK}
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.best in found.seconds
    assert str(found).startswith(f"a step of {len(prepared.plan.students)} runs takes: 2 processes ")
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("new_interpreters")
def test_a_strategy_that_cannot_be_measured_is_left_out_with_its_reason(tmp_path, prepared):
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('this plugin cannot be loaded')")
    with pytest.raises(KdzooError, match=r"nothing could be measured .*this plugin cannot be loaded"):
        measured(prepared, ONE, plugins=[str(broken)])


# processes that fail


READY = "print('{\"ready\": 1}', flush=True)"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "import os, sys; [print(text, file=sys.stderr) for text in ('one', 'two', 'three', '', 'four')]; sys.exit(3)",
            "the process ended with status 3; its last lines: two | three | four",
        ),
        (f"import os; {READY}; os.kill(os.getpid(), 9)", "the process ended with status -9"),
        ("print('downloading weights', flush=True); input()", "expected a number as 'ready', got 'downloading weights'"),
        ("print('[1]', flush=True); input()", "expected a number as 'ready', got '[1]'"),
        (f"{READY}; input(); print('{{\"ready\": 1}}', flush=True)", "expected a number as 'seconds', got '{\"ready\": 1}'"),
        ('print(\'{"error": "out of memory"}\', flush=True); input()', "out of memory"),
        (
            "import sys; print('waiting for a lock', file=sys.stderr, flush=True); input()",
            "no answer in 1.5 seconds (run_timeout); its last lines: waiting for a lock",
        ),
        (f"{READY}; input(); input()", "no answer in 1.5 seconds (run_timeout)"),
        ("raise ValueError('of no use')", "the process ended with status 1; its last lines: "),
    ],
    ids=["ends", "killed", "a line that is no JSON", "other JSON", "another answer", "an error", "hangs", "hangs later", "an exception"],
)
def test_what_a_failed_process_wrote_last_is_told_and_it_leaves_nothing_behind(prepared, temporary, monkeypatch, program, reason):
    monkeypatch.setattr(fill, "PROGRAM", ("-c", program))
    with pytest.raises(KdzooError) as caught:
        measured(prepared, ONE, TWO, run_timeout=1.5)
    assert f"nothing could be measured ({reason}" in str(caught.value)
    assert list(temporary.iterdir()) == []


def test_where_the_second_process_cannot_be_started_the_first_is_ended(prepared, temporary, monkeypatch):
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def first_alone(*args, **options):
        if started:
            raise OSError("no more processes")
        started.append(popen(*args, **options))
        return started[0]

    monkeypatch.setattr(fill, "PROGRAM", ("-c", "input()"))
    monkeypatch.setattr(fill.subprocess, "Popen", first_alone)
    with pytest.raises(KdzooError, match="a process cannot be started: no more processes"):
        measured(prepared, TWO)
    assert started[0].returncode == -9
    assert list(temporary.iterdir()) == []


# what a bench makes of it


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that a plan believes in, on a machine of sixteen cores."""
    monkeypatch.setattr(prepare, "device_of", lambda name: "cuda")
    monkeypatch.setattr(prepare, "machine_name", lambda device: "GPU A")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


class Measure:
    """In place of `measure`: what it was called with, and six processes as its answer."""

    def __init__(self) -> None:
        self.options = []

    def __call__(self, group, options_of, plugins, gpus):
        self.options.append({strategy: options_of(strategy) for strategy in (ONE, TWO, SIX, STACK)})
        return Measurement(6, {ONE: 1.0, SIX: 0.2, STACK: 0.2}, {TWO: "out of memory"})


@pytest.fixture
def measuring(monkeypatch) -> Measure:
    recorder = Measure()
    monkeypatch.setattr(prepare, "measure", recorder)
    return recorder


@pytest.mark.usefixtures("gpu")
def test_a_bench_takes_what_was_measured_to_be_best(tmp_path, measuring):
    chosen = prepare.prepare(config(tmp_path, fill_gpu=True))
    assert (chosen.jobs, chosen.options.jobs, chosen.options.stack_students) == (6, 6, False)
    assert "a step of 6 runs takes: 1 process 1e+03 ms, 6 processes 200 ms, a stack of students 200 ms; 2 processes: out of memory" in str(
        chosen.plan.notes
    )


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("gpus", "threads"), [(0, (16, 8, 2, 16)), (2, (8, 4, 1, 8))])
def test_every_strategy_is_measured_with_the_threads_and_memory_that_a_bench_gives_its_processes(
    tmp_path, measuring, monkeypatch, gpus, threads
):
    """Sixteen cores are divided among all processes of all GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(prepare, "free_memory", lambda device: 2**36)
    prepare.prepare(config(tmp_path, fill_gpu=True))
    (options,) = measuring.options
    assert tuple(one.threads for one in options.values()) == threads
    for strategy, one in options.items():
        plain = prepare.prepare(config(tmp_path, jobs=strategy.jobs * max(gpus, 1), stack_students=strategy.stacked)).options
        assert one.model_copy(update={"fill_gpu": False}) == plain


@pytest.mark.usefixtures("gpu")
def test_a_bench_that_is_resumed_takes_what_its_folder_has_and_measures_for_other_plans_and_machines(tmp_path, measuring, monkeypatch):
    short = {"epochs": 1, "set": {"teacher_recipe.epochs": 10}}
    first = prepare.prepare(config(tmp_path, fill_gpu=True, **short))
    on_cpu = replace(first, options=first.options.model_copy(update={"device": "cpu", "threads": 1}))
    bench.run(on_cpu, Here(), lambda _: None, retry_failed=False)

    def measures(**more) -> bool:
        before = len(measuring.options)
        again = prepare.prepare(config(tmp_path, fill_gpu=True, **{**short, **more}))
        assert (again.jobs, again.options.stack_students) == (6, False)
        is_new = len(measuring.options) > before
        assert (f"taken: 6 processes, as measured before ({tmp_path}/b/fill.json)" in str(again.plan.notes)) is not is_new
        return is_new

    assert not measures()  # nothing is left to train of this plan, but there may be a refit
    for run in sorted((tmp_path / "b/runs").glob("*/result.json"))[:2]:
        run.unlink()
    assert not measures()
    assert measures(seeds="2")
    assert measures(compile=True)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "machine_name", lambda device: "GPU B")
        assert measures()
    file = tmp_path / "b/fill.json"
    whole = file.read_text()
    edit(file, lambda content: content.update(measured=[]))
    assert measures()
    file.write_text(whole[:-20])
    assert measures()
    file.write_text(whole)
    assert not measures()


# what is refused


@pytest.fixture
def unmeasurable(monkeypatch):
    """Nothing may be measured."""

    def refuse(*_):
        pytest.fail("nothing is measured for a bench that is refused")

    monkeypatch.setattr(prepare, "measure", refuse)


CHOOSES = "fill_gpu: chooses jobs and stack_students itself; leave them out"
HERE = "fill_gpu: chooses how many processes of this machine train, each a part of the runs; take the launcher local"
LACKS = (
    "fill_gpu: measures in processes of its own, which lack the networks, methods or data of this script; leave it out, or register them "
    "in a file and name that as plugin"
)


@pytest.mark.usefixtures("gpu", "unmeasurable")
@pytest.mark.parametrize(
    ("more", "problem"),
    [({"jobs": 2}, CHOOSES), ({"stack_students": True}, CHOOSES), ({"launcher": "print"}, HERE), ({"launcher": "here"}, HERE)],
)
def test_what_it_chooses_itself_is_not_asked_for_beside_it(tmp_path, more, problem):
    with pytest.raises(InputError) as caught:
        prepare.prepare(config(tmp_path, fill_gpu=True, **more))
    assert problem in caught.value.problems


@pytest.mark.usefixtures("gpu", "unmeasurable")
def test_the_launcher_of_the_environment_counts_too(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_LAUNCHER", "here")
    with pytest.raises(InputError, match=HERE):
        prepare.prepare(config(tmp_path, fill_gpu=True))


@pytest.mark.usefixtures("unmeasurable")
def test_a_cpu_is_refused_beside_all_other_problems(tmp_path):
    with pytest.raises(InputError) as caught:
        prepare.prepare(config(tmp_path, fill_gpu=True, device="cpu", jobs=2))
    of_cpu = "fill_gpu: needs a GPU, and this runs on cpu; leave it out: there is one process for each core, or as many as jobs says"
    assert caught.value.problems == (of_cpu, CHOOSES)


@pytest.mark.usefixtures("gpu", "unmeasurable")
def test_networks_given_as_modules_are_refused(tmp_path):
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    name = module_name(student)
    with pytest.raises(InputError) as caught:
        prepare.prepare(
            config(tmp_path, fill_gpu=True, pairs=None, teacher="mlp_64_64", student=name, methods="hinton"), Modules({name: student})
        )
    assert caught.value.problems == (LACKS,)


@pytest.mark.usefixtures("gpu", "unmeasurable")
def test_methods_of_the_calling_script_are_refused(tmp_path):
    with registered_for_a_while():

        @kdzoo.register("of_this_script")
        def of_this_script(student, teacher, batch):
            return (student.logits - teacher.logits).square().mean()

        with pytest.raises(InputError) as caught:
            prepare.prepare(config(tmp_path, fill_gpu=True, methods="hinton,of_this_script", alphas=None))
    assert caught.value.problems == (LACKS,)
