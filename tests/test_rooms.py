"""Imports point one way, and what must start fast never imports torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "kdzoo"
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Every module that a file imports anywhere, with the names taken from kdzoo's packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def uses(file: Path, package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imported(file))


def test_only_models_imports_timm():
    assert [room(f) for f in FILES if uses(f, "timm") and not room(f).startswith("models/")] == []


def test_only_sinks_imports_wandb():
    assert [room(f) for f in FILES if uses(f, "wandb") and room(f) != "sinks.py"] == []


def test_methods_know_torch_pydantic_the_nouns_and_each_other():
    allowed = ("torch", "pydantic", "kdzoo.signals", "kdzoo.method", "kdzoo.methods", "kdzoo.errors", "kdzoo.seeds")
    standard = sys.stdlib_module_names
    for file in (f for f in FILES if room(f).startswith("methods/")):
        strangers = {m for m in imported(file) if not m.startswith(allowed) and m.partition(".")[0] not in standard}
        assert not strangers, f"{room(file)} imports {strangers}"


@pytest.mark.parametrize("name", ["signals.py", "method.py", "spec.py", "seeds.py", "errors.py", "objective.py", "evaluate.py"])
def test_the_nouns_know_nothing_of_the_suite(name):
    assert not uses(PACKAGE / name, "kdzoo.suite")
    assert not uses(PACKAGE / name, "kdzoo.cli")


def test_only_the_suite_and_its_front_doors_know_the_suite():
    doors = ("suite/", "cli/", "api.py", "shortway.py", "__init__.py")
    assert [room(f) for f in FILES if uses(f, "kdzoo.suite") and not room(f).startswith(doors)] == []


def test_nobody_imports_the_command_line():
    assert [room(f) for f in FILES if uses(f, "kdzoo.cli") and not room(f).startswith("cli")] == []


@pytest.mark.parametrize(
    "module",
    ["kdzoo", "kdzoo.catalogue", "kdzoo.explain", "kdzoo.suite.launch", "kdzoo.suite.leaderboard", "kdzoo.cli"],
)
def test_what_must_start_fast_never_imports_torch(module):
    """kdzoo.spec, store, method and suite.config are among what these import."""
    code = f"import {module}, sys; print([m for m in ('torch', 'timm', 'scipy.stats', 'wandb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
