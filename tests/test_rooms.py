"""Imports point one way, and what must start fast never imports torch."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from grimp import build_graph
from importlinter.cli import lint_imports

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


def test_only_models_imports_timm_and_the_file_of_its_policies():
    assert [room(f) for f in FILES if uses(f, "timm") and not room(f).startswith("models/")] == ["data/policy.py"]


def test_only_the_files_about_wandb_import_it():
    assert {room(f) for f in FILES if uses(f, "wandb")} == {"runs/wandb.py", "runs/wandb_service.py"}


def test_methods_know_torch_pydantic_the_nouns_and_each_other():
    allowed = ("torch", "pydantic", "kdzoo.contract", "kdzoo.methods", "kdzoo.errors", "kdzoo.seeds")
    standard = sys.stdlib_module_names
    for file in (f for f in FILES if room(f).startswith("methods/")):
        strangers = {m for m in imported(file) if not m.startswith(allowed) and m.partition(".")[0] not in standard}
        assert not strangers, f"{room(file)} imports {strangers}"


def test_a_room_imports_only_what_stands_before_it(monkeypatch):
    """The contracts in pyproject.toml, by import-linter."""
    monkeypatch.chdir(PACKAGE.parent)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def test_no_files_import_each_other_in_a_circle_nor_for_their_types():
    graph = build_graph("kdzoo", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert "kdzoo.training.processes" in imports["kdzoo.training.member"]
    TopologicalSorter(imports).prepare()  # raises CycleError with the circle


def test_every_room_has_its_place_in_the_order():
    listed = {name for layer in contracts()["rooms"] for name in re.findall(r"[a-z_.]+", layer)}
    there = {f.relative_to(PACKAGE).with_suffix("").parts[0] for f in FILES} - {"__init__", "__main__", "configs"}
    assert there == {name.partition(".")[0] for name in listed}
    within = {name for layer in contracts()["suite"] for name in re.findall(r"[a-z_.]+", layer)}
    assert {f.relative_to(PACKAGE / "suite").parts[0] for f in FILES if room(f).startswith("suite/")} - {"__init__.py"} == within


def contracts() -> dict[str, list[str]]:
    """The layers of each contract by its first word."""
    found = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {one["name"].split()[0]: one["layers"] for one in found}


@pytest.mark.parametrize(
    "module",
    [
        "kdzoo",
        "kdzoo.contract.catalogue",
        "kdzoo.contract.explain",
        "kdzoo.suite.run.launchers.local",
        "kdzoo.suite.report.table_files",
        "kdzoo.suite.page.build",
        "kdzoo.cli",
    ],
)
def test_what_must_start_fast_never_imports_torch(module):
    """kdzoo.runs.spec, store, method and suite.config are among what these import."""
    code = f"import {module}, sys; print([m for m in ('torch', 'timm', 'scipy.stats', 'wandb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
