"""A change that moves no number shows it: the ids of runs stay, and the guard that compares two checkouts sees any difference."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from run_ids import CONFIGURATIONS, FILE, planned_ids
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("same_weights", ROOT / "benchmarks" / "same_weights.py")
assert SPEC is not None
assert SPEC.loader is not None
same_weights = importlib.util.module_from_spec(SPEC)
sys.modules["same_weights"] = same_weights  # dataclasses look their module up
SPEC.loader.exec_module(same_weights)

COMMITTED = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_ids_of_a_configuration_are_those_committed(name, tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    assert planned_ids(CONFIGURATIONS[name], tmp_path) == COMMITTED[name]


def test_no_two_configurations_plan_the_same_runs():
    assert COMMITTED.keys() == CONFIGURATIONS.keys()
    assert len({tuple(ids) for ids in COMMITTED.values()}) == len(COMMITTED)


@pytest.fixture
def two_sides(tmp_path) -> tuple[Path, Path]:
    """A committed bench, and a copy of it as another checkout would have trained it."""
    for side in ("ours", "base"):
        shutil.copytree(ROOT / "results" / "digits" / "runs", tmp_path / side / "digits" / "runs")
    return tmp_path / "ours", tmp_path / "base"


def a_run(side: Path) -> Path:
    return min((side / "digits" / "runs").glob("at-*"))


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_copies_do_not_differ(two_sides):
    assert same_weights.differences(*two_sides) == []


def test_what_a_schema_adds_is_no_difference_and_a_number_of_both_is(two_sides):
    result = a_run(two_sides[0]) / "result.json"
    found = json.loads(result.read_text())
    result.write_text(json.dumps({**found, "schema": 99, "added": 3}))
    assert same_weights.differences(*two_sides) == []
    found["last"]["test"]["top1"] = 0.5
    result.write_text(json.dumps({**found, "schema": 99}))
    assert [line.partition(": ")[2] for line in same_weights.differences(*two_sides)] == ["result.json: last.test.top1"]


def test_clocks_and_the_environment_are_no_difference(two_sides):
    result = a_run(two_sides[0]) / "result.json"
    found = json.loads(result.read_text())
    found |= {"seconds": 1.0, "started": "2020-01-01T00:00:00Z", "environment": {"torch": "0"}}
    found["cost"]["time_ratio"] = 99.0
    result.write_text(json.dumps(found))
    assert same_weights.differences(*two_sides) == []


def test_an_accuracy_of_the_last_bit_is_a_difference(two_sides):
    result = a_run(two_sides[0]) / "result.json"
    found = json.loads(result.read_text())
    found["last"]["test"]["nll"] = float(np.nextafter(found["last"]["test"]["nll"], 1))
    result.write_text(json.dumps(found))
    assert [line.rpartition(": ")[2] for line in same_weights.differences(*two_sides)] == ["last.test.nll"]


def test_the_loss_of_one_epoch_is_a_difference(two_sides):
    rewrite(a_run(two_sides[1]) / "metrics.jsonl", '"loss":', '"loss":1')
    assert [line.rpartition(": ")[2] for line in same_weights.differences(*two_sides)] == ["0.loss"]


def test_one_bit_of_one_weight_is_a_difference(two_sides, tmp_path):
    for side, change in zip(two_sides, (0.0, 1e-7), strict=True):
        weights = {"conv.weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)}
        weights["bias"][1] += np.float32(change)
        save_file(weights, a_run(side) / "student.safetensors")
    assert load_file(a_run(two_sides[0]) / "student.safetensors")["bias"][1] == 1
    assert [line.rpartition(": ")[2] for line in same_weights.differences(*two_sides)] == ["bias"]


def test_a_missing_run_and_a_missing_file_are_told_with_their_side(two_sides):
    ours, base = two_sides
    shutil.rmtree(a_run(ours))
    (a_run(base.parent / "ours") / "metrics.jsonl").unlink()
    found = same_weights.differences(ours, base)
    assert sum("only in the base" in line for line in found) == 2
    assert any(line.endswith("metrics.jsonl only in the base") for line in found)


def test_nothing_to_compare_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no runs"):
        same_weights.differences(tmp_path / "a", tmp_path / "b")
