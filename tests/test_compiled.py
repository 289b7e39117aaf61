"""Students run through torch.compile end where they end without it, and what cannot be compiled is told and trained all the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trained_teachers import written_bench

from kdzoo.models import network
from kdzoo.runs.events import Note, RunFailed
from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.train import Stopped

COMPILED = WorkerOptions(compile=True)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def planned(folder: Path, methods: str) -> Plan:
    """A bench of one epoch, whose last batch is short."""
    return written_bench(folder, methods=methods, epochs=1, set={"teacher_recipe.epochs": 10})


def ids_of(made: Plan) -> list[str]:
    return [student.run.id for student in made.students]


@pytest.fixture
def counted(monkeypatch):
    """How often a compiled and an ordinary body of a network in training ran."""
    calls = {"compiled": 0, "ordinary": 0}
    real, ordinary = network.compiled_body(), network.body

    def compiled(*given):
        calls["compiled"] += 1
        return real(*given)

    def plain(model, *given):
        calls["ordinary"] += model.training
        return ordinary(model, *given)

    monkeypatch.setattr(network, "compiled_body", lambda: compiled)
    monkeypatch.setattr(network, "body", plain)
    return calls


@pytest.mark.slow
def test_compiled_students_end_where_they_end_without_and_go_on_from_a_checkpoint_to_the_same_bits(tmp_path, counted):
    made = {name: planned(tmp_path / name, "at+crd,ofd") for name in ("compiled", "ordinary", "stopped")}
    ids, notes = ids_of(made["compiled"]), []
    train_runs(made["ordinary"].store, ids, WorkerOptions(), WorkerState(), lambda _: None, lambda: False)
    counted.update(compiled=0)
    train_runs(made["compiled"].store, ids, COMPILED, WorkerState(), notes.append, lambda: False)
    assert [note for note in notes if isinstance(note, Note | RunFailed)] == []
    # The student alone, plain KD, and what reads stages and embedding: ofd reads what lies inside of the network, and
    # short batches are not worth compiling for.
    assert counted["compiled"] >= 3 * 3

    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    with pytest.raises(Stopped):
        train_runs(
            made["stopped"].store, ids, COMPILED.model_copy(update={"checkpoint_seconds": 1e-9}), WorkerState(), lambda _: None, stop
        )
    train_runs(made["stopped"].store, ids, COMPILED, WorkerState(), lambda _: None, lambda: False)
    for run_id in ids:
        found = {name: load_file(bench.store.run(run_id).student) for name, bench in made.items()}
        assert made["compiled"].store.run(run_id).result()["environment"]["compile"] is True
        for name, expected in found["ordinary"].items():
            assert torch.allclose(expected.double(), found["compiled"][name].double(), rtol=1e-3, atol=1e-4), (run_id, name)
            assert torch.equal(found["compiled"][name], found["stopped"][name]), (run_id, name)


@pytest.mark.slow
def test_a_network_that_cannot_be_compiled_is_told_and_trained_as_it_is(tmp_path, monkeypatch):
    def broken() -> object:
        raise RuntimeError("no compiler was found\nand more")

    monkeypatch.setattr(network, "compiled_body", broken)
    made, notes = planned(tmp_path, "hinton"), []
    train_runs(made.store, ids_of(made), COMPILED, WorkerState(), notes.append, lambda: False)
    assert [note.text for note in notes if isinstance(note, Note)] == ["students are not compiled: no compiler was found"]
    assert {made.store.run(run_id).state() for run_id in ids_of(made)} == {"done"}
