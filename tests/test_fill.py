"""Which way fills a device best is what was measured to be fastest; the measurement is real, in processes of its own."""

import pytest

from kdzoo.errors import InputError, KdzooError
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run import prepare
from kdzoo.suite.run.fill import Filling, Way, fastest, measure, ways

ONE, TWO, SIX, STACK = Way(1), Way(2), Way(6), Way(1, stacked=True)


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
def test_the_fastest_is_taken_and_of_those_as_fast_the_one_that_takes_least(seconds, best):
    assert fastest(seconds) == best


def test_there_are_no_more_processes_than_runs_and_no_stack_of_one():
    assert ways(1) == [ONE]
    assert ways(5) == [ONE, TWO, Way(4), STACK]


def options(folder, **more) -> dict:
    return {
        "data": "digits",
        "pairs": "mlp_64_64/mlp_32",
        "recipe": "digits",
        "limit": 300,
        "seeds": "1",
        "methods": "hinton,at",
        "alphas": "0.3,0.6",
        "results": str(folder),
        "jobs": 2,
        **more,
    }


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    return prepare.prepare(bench_config(options(tmp_path, threads=1), None))


def test_every_way_is_measured_for_real(prepared):
    found = measure(prepared.plan.students, prepared.options, (), (), tried=(ONE, TWO, STACK))
    assert found.left_out == {}
    assert found.seconds.keys() == {ONE, TWO, STACK}
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.best in found.seconds
    assert str(found).startswith(f"a step of {len(prepared.plan.students)} runs takes: 1 process ")


def test_a_way_that_cannot_be_taken_is_left_out_with_its_reason(tmp_path, prepared):
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('this plugin cannot be loaded')")
    with pytest.raises(KdzooError, match=r"nothing could be measured .*this plugin cannot be loaded"):
        measure(prepared.plan.students, prepared.options, (str(broken),), (), tried=(ONE,))


def test_a_bench_takes_what_was_measured_to_be_best(tmp_path, monkeypatch, prepared):
    monkeypatch.setattr(prepare, "measure", lambda *_: Filling(6, {ONE: 1.0, SIX: 0.3, STACK: 0.2}, {TWO: "out of memory"}))
    asked = {name: value for name, value in options(tmp_path).items() if name != "jobs"}
    chosen = prepare.prepare(bench_config({**asked, "fill_gpu": True}, None))
    assert (chosen.jobs, chosen.options.stack_students) == (1, True)
    assert "a step of 6 runs takes: 1 process 1e+03 ms, 6 processes 300 ms, a stack of students 200 ms; 2 processes: out of memory" in str(
        chosen.plan.notes
    )


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"jobs": 2}, "fill_gpu: chooses jobs and stack_students itself; leave them out"),
        ({"stack_students": True}, "fill_gpu: chooses jobs and stack_students itself; leave them out"),
        (
            {"launcher": "print"},
            "fill_gpu: chooses how many processes of this machine train, each a part of the runs; take the launcher local",
        ),
    ],
)
def test_what_it_chooses_itself_is_not_asked_for_beside_it(tmp_path, more, problem):
    asked = {name: value for name, value in options(tmp_path).items() if name != "jobs"}
    with pytest.raises(InputError) as caught:
        prepare.prepare(bench_config({**asked, "fill_gpu": True, **more}, None))
    assert problem in caught.value.problems
