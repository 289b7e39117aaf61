"""What a bench will write is counted before it starts, and a disk without as much space is told."""

import shutil
import subprocess
from pathlib import Path

import pytest
from test_training import planned, train

from kdzoo.runs.options import ExecutionSpec
from kdzoo.suite.plan.budget import search_rungs
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.disk_space import bytes_of_bench, bytes_of_results, note_of_space
from kdzoo.suite.run.untrained import Untrained
from kdzoo.training.located import Modules

ALL = ("predictions", "student", "checkpoint")


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))


def size_of(folder: Path, *names: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and (not names or file.name in names))


def test_it_is_what_the_files_of_a_run_take(tmp_path):
    """Never less; by half more at most, since predictions are compressed."""
    made = planned(tmp_path, methods="hinton", pairs="digits_teacher/mlp_300_300", limit=1000, epochs=1)
    (student, *_) = [p for p in made.students if p.run.objective.terms]
    train(made, [student.run.id])
    folder, untrained = made.store.run(student.run.id).path, Untrained(Modules())
    names = {"predictions": "predictions.npz", "student": "student.safetensors"}
    records = bytes_of_results([student], made, (), untrained)
    for kept, name in names.items():
        told = bytes_of_results([student], made, (kept,), untrained) - records
        assert told == pytest.approx(size_of(folder, name), rel=0.5)
    assert size_of(folder) <= bytes_of_results([student], made, ("predictions", "student"), untrained)
    assert bytes_of_results(made.students[:1] * 3, made, ALL, untrained) == 3 * bytes_of_results(made.students[:1], made, ALL, untrained)


def test_a_disk_without_the_space_is_told_before_the_start(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only who may mount a file system can have a small one")
    try:
        made = planned(disk, methods="hinton", pairs="digits_teacher/mlp_300_300")
        untrained = Untrained(Modules())
        note = note_of_space(made, bytes_of_results(made.students, made, ExecutionSpec().keep, untrained), ExecutionSpec().keep)
        assert note is not None
        assert "the results will take about" in note
        assert str(made.folder) in note
        assert note_of_space(made, bytes_of_results(made.students, made, (), untrained), ()) is None
        assert note_of_space(made, 0, ExecutionSpec().keep) is None
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_checkpoints_of_runs_that_a_search_pauses_are_counted(place):
    """The most that lies there at once are the results of the settings that come to whole runs, and a checkpoint of every other."""
    words = {"data": "digits", "pairs": "digits", "recipe": "digits", "methods": "hinton", "temperatures": "1,2,3,4,5,6,7,8"}
    config = bench_config({**words, "alphas": "0.5", "seeds": 1, "epochs": 9, "budget": 5, "keep": "student"}, None)
    made, untrained = plan(config), Untrained(Modules())
    whole = search_rungs(config, made.students)[-1].settings
    assert 0 < whole < len(made.students)
    to_the_end, paused = (bytes_of_results(made.students[:1], made, what, untrained) for what in (ALL[1:], ("checkpoint",)))
    left = len(made.students) - whole
    assert bytes_of_bench(config, made.students, made, untrained) == whole * to_the_end + left * paused
    for number, planned_run in enumerate(made.students, start=1):
        made.store.run(planned_run.run.id).pause(1, 9)
        new = len(made.students) - number
        assert bytes_of_bench(config, made.students, made, untrained) == whole * to_the_end + min(left, new) * paused, (
            "its checkpoint is there"
        )
