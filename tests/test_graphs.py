"""Steps that are recorded and replayed end where steps that are computed one by one end; what cannot be recorded is told.

On a CPU a tape stands for CUDA's graphs: it runs the operators of a recorded step again, and nothing of its Python.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tape import Tape
from trained_teachers import train_teachers

from kdzoo.errors import InputError
from kdzoo.runs.events import Note, RunFailed
from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run import accelerators
from kdzoo.suite.run.prepare import prepare
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.train import Stopped

GRAPHS = WorkerOptions(graphs=True)
CLOCKS = {"seconds"}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture
def tape(monkeypatch) -> Tape:
    """What records the steps of this test."""
    recorder = Tape()
    monkeypatch.setattr(accelerators, "recorder_of", lambda device: recorder)
    return recorder


def planned(folder: Path, **options) -> Plan:
    """A bench of two epochs of the digits, whose last batch is short; its teacher trained."""
    given = {
        "results": str(folder),
        "name": "b",
        "data": "digits",
        "pairs": "digits",
        "recipe": "digits",
        "epochs": 2,
        "limit": 300,
        "seeds": "1",
        "methods": "hinton",
        **options,
        "set": {"teacher_recipe.epochs": 10, "recipe.batch_size": 32, **options.get("set", {})},
    }
    made = plan(bench_config(given, None))
    for student in made.students:
        made.store.run(student.run.id).plan(student.run, student.about)
    train_teachers(made)
    return made


def train(made: Plan, options: WorkerOptions, stop=lambda: False) -> list[str]:
    """Train a bench; what was noted."""
    events: list[object] = []
    train_runs(made.store, [student.run.id for student in made.students], options, WorkerState(), events.append, stop)
    assert [event for event in events if isinstance(event, RunFailed)] == []
    return [event.text for event in events if isinstance(event, Note)]


def differences(one: Plan, other: Plan) -> list[str]:
    """What differs of weights, statistics and the lines of all epochs, to the bit."""
    found = []
    for student in one.students:
        folders = [made.store.run(student.run.id) for made in (one, other)]
        first, second = (load_file(folder.student) for folder in folders)
        found += [f"{student.run.id}: {name}" for name in first if not torch.equal(first[name], second[name])]
        lines = [[{k: v for k, v in line.items() if k not in CLOCKS} for line in read_lines(f.metrics, student.run.id)] for f in folders]
        assert lines[0]
        found += [f"{student.run.id}: line {number}" for number, pair in enumerate(zip(*lines, strict=True)) if pair[0] != pair[1]]
    return found


def test_try(tmp_path, tape):
    made = {name: planned(tmp_path / name, methods="hinton,at,crd,rkd,dkd,ctkd,reviewkd,dml") for name in ("plain", "recorded")}
    train(made["plain"], WorkerOptions())
    print(train(made["recorded"], GRAPHS))
    print(tape.recorded, tape.replayed)
    assert differences(made["plain"], made["recorded"]) == []
