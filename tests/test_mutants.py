"""Planted bugs: the operators change what they say, a planted bug is caught, and of every survivor it is said why, or that it is open."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from mutant_operators import OPERATORS, Source
from mutant_tests import BY_MODULE, ROOT, Selection, modules, selections
from mutant_trials import Answer, Copy, Job
from mutants import CAUGHT, SURVIVED, drawn, read_rows

TEACHER_TEST = "test_the_teacher_gets_no_gradient"
TEMPERATURE_TEST = "test_at_high_temperature_it_is_half_the_squared_distance_of_centred_logits_over_the_classes"
ROWS = read_rows(ROOT / "results" / "mutants" / "mutants.csv")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("-x", "x"),
        ("a + b", "a - b"),
        ("a / b", "a * b"),
        ("a - b", "a"),
        ("a < b", "a <= b"),
        ("a == b", "a != b"),
        ("x[1]", "x[2]"),
        ("x * 0.5", "x * 1.5"),
        ("x.sum(dim=1)", "x.sum(dim=0)"),
        ("x.amin(dim=0)", "x.amin(dim=-1)"),
        ("x.mean()", "x.sum()"),
        ("max(a, b)", "min(a, b)"),
        ("s.log_softmax(1)", "s.softmax(1)"),
        ("x.detach()", "x"),
        ("taught(x)", "x"),
        ("f(s, t)", "f(t, s)"),
        ("a if c else b", "a if not (c) else b"),
    ],
)
def test_an_operator_changes_what_it_says(before, after):
    source = Source(f"def f(x):\n    return {before}\n")
    assert f"def f(x):\n    return {after}\n" in [source.mutate(site) for site in source.sites]


def test_each_mutant_of_a_module_is_another_program_with_one_line_changed():
    text = (ROOT / "kdzoo/methods/at.py").read_text()
    source = Source(text)
    mutants = [source.mutate(site) for site in source.sites]
    assert len(set(mutants)) > 0.9 * len(mutants) > 10
    assert {site.kind for site in source.sites} <= {operator.__name__ for operator in OPERATORS}
    for mutant in mutants:
        compile(mutant, "at.py", "exec")
        assert sum(old != new for old, new in zip(text.splitlines(), mutant.splitlines(), strict=True)) == 1


def test_nothing_outside_functions_in_annotations_decorators_or_messages_is_changed():
    text = '@cut(1)\ndef f(x: Literal[1]) -> Literal[2]:\n    """3"""\n    raise ValueError(f"{x + 1}" + str(1))\n\n\nSIZE = 1 + 1\n'
    assert Source(text).sites == []


def planted(text, *changes):
    """The text with one change each."""
    assert all(old in text for old, _ in changes)
    return [text.replace(old, new) for old, new in changes]


def test_a_planted_bug_is_caught_and_the_module_itself_passes(tmp_path):
    """The first two change live functions; the third, a default, is seen by a new import alone, and the fourth changes nothing."""
    module = "kdzoo/methods/hinton.py"
    text = (ROOT / module).read_text()
    temperature = ("temperature**2 * (", "temperature * (")
    texts = planted(text, temperature, ("taught(teacher_logits)", "teacher_logits"), ("temperature: float)", "temperature: float = 1 / 0)"))
    near = Selection(("tests/methods/test_hinton.py",), (TEACHER_TEST, TEMPERATURE_TEST))
    jobs = [Job(module, text, [*texts, text + "\n"], near)]
    unchanged, *changed = Copy(tmp_path).first_failures(jobs)
    assert unchanged == Answer(0, None, None)
    assert [answer.failed is not None for answer in changed] == [True, True, True, False]
    assert changed[0].failed.endswith(TEMPERATURE_TEST)
    assert changed[1].failed.endswith(TEACHER_TEST)


def test_tests_that_fail_without_a_change_judge_nothing(tmp_path):
    broken = tmp_path / "test_broken.py"
    broken.write_text("def test_nothing():\n    assert False\n")
    module = "kdzoo/methods/hinton.py"
    text = (ROOT / module).read_text()
    job = Job(module, text, planted(text, ("temperature**2", "temperature")), Selection((str(broken),)))
    (answer,) = Copy(tmp_path / "copy").first_failures([job])
    assert (answer.text, answer.failed is None) == (None, False)


def test_the_draw_is_that_of_its_seed_and_takes_the_modules_in_turn():
    first = [mutant.key for mutant in drawn("training", 12)]
    assert first == [mutant.key for mutant in drawn("training", 40)][:12]
    assert len({module for module, *_ in first}) == len(modules()["training"])


def test_modules_and_the_tests_that_are_run_against_them_exist():
    for module in (module for area in modules().values() for module in area):
        assert (ROOT / module).is_file()
        for selection in selections(module):
            assert [file for file in selection.files if not (ROOT / file).is_file()] == []
            text = "".join((ROOT / file).read_text() for file in selection.files) + " ".join(selection.files)
            assert [name for name in selection.names if name not in text and name != Path(module).stem] == []
    assert set(BY_MODULE) <= {module for area in modules().values() for module in area}


def test_every_survivor_has_a_reason_or_is_open_and_what_was_caught_names_the_test():
    assert len(ROWS) == len({row.key for row in ROWS}) > 0
    for row in ROWS:
        assert row.outcome in {CAUGHT, SURVIVED}
        assert bool(row.reason) == (row.outcome == SURVIVED), row
        assert bool(row.by) == (row.outcome == CAUGHT), row
