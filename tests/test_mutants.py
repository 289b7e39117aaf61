"""Planted bugs: the operators change what they say, a planted bug is caught, and of every survivor it is said why, or that it is open."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from mutant_operators import OPERATORS, Source
from mutant_tests import BY_MODULE, ROOT, Selection, modules, selections
from mutants import CAUGHT, SURVIVED, Copy, drawn, read_rows

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


def test_a_planted_bug_is_caught_and_the_module_itself_passes(tmp_path):
    copy = Copy(tmp_path)
    near = Selection(("tests/methods/test_hinton.py",), "numerical or high_temperature")
    module = "kdzoo/methods/hinton.py"
    text = (ROOT / module).read_text()
    assert copy.first_failure_unchanged(near) is None
    assert "test_at_high_temperature" in copy.first_failure(module, text.replace("temperature**2 * (", "temperature * ("), near)
    assert copy.first_failure_unchanged(near) is None


def test_the_draw_is_that_of_its_seed_and_takes_the_modules_in_turn():
    first = [(module, site.line, site.kind, site.after) for module, _, site in drawn("training", 12)]
    assert first == [(module, site.line, site.kind, site.after) for module, _, site in drawn("training", 40)][:12]
    assert len({module for module, *_ in first}) == len(modules()["training"])


def test_modules_and_the_tests_that_are_run_against_them_exist():
    for module in (module for area in modules().values() for module in area):
        assert (ROOT / module).is_file()
        assert [file for file in selections(module)[0].files if not (ROOT / file).is_file()] == []
    assert set(BY_MODULE) <= {module for area in modules().values() for module in area}


def test_every_survivor_has_a_reason_or_is_open_and_what_was_caught_names_the_test():
    assert len(ROWS) == len({row.key for row in ROWS}) > 0
    for row in ROWS:
        assert row.outcome in {CAUGHT, SURVIVED}
        assert bool(row.reason) == (row.outcome == SURVIVED), row
        assert bool(row.by) == (row.outcome == CAUGHT), row
