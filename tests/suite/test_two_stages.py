"""Methods that train in two stages: the first is a run of its own, from whose student and module the second goes on."""

import copy
import json
import os
import re
import shutil
import sys

import pandas as pd
import pytest
import torch
from filelock import FileLock
from warm_python import run_warm

from kdzoo.contract.card import Setting
from kdzoo.errors import InputError
from kdzoo.models.measure import measure_shapes
from kdzoo.models.placement import Placement
from kdzoo.runs.events import Note, RunsLocked
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import ObjectiveSpec, Run
from kdzoo.runs.store import Store
from kdzoo.suite.plan.objectives import objective
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.run.members import load_pretrain_stage
from kdzoo.suite.run.train_runs import train_pretrain_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.checkpoint import read_checkpoint
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_networks import load_network
from kdzoo.training.run_student import build_member

QUICK = ("bench", "--epochs", "8", "--limit", "300", "--seeds", "2", "--results", "results", "--jobs", "1")


def made(text: str, *, epochs: int = 240, alpha: float | None = None, **hyperparameters):
    request = parse_request(text)
    return objective(request, Setting(alpha=alpha), {request.terms[0]: hyperparameters}, "deep", epochs)


def test_the_first_stage_is_the_hint_alone_and_the_second_is_hintons_loss():
    found = made("fitnet_two_stage", stage=1)
    assert found.label == "fitnet_two_stage"
    assert found.first.epochs == 30
    assert found.first.term.hyperparameters["stage"] == 1
    assert [(term.method, term.coefficient) for term in found.terms] == [("hinton", 0.9)]
    assert found.task == 0.1


def test_alpha_weighs_the_second_stage_and_0_is_the_student_alone():
    assert made("fitnet_two_stage", alpha=0.5).task == 0.5
    assert made("fitnet_two_stage", alpha=0.0) == ObjectiveSpec(task=1.0)


def test_a_method_of_one_stage_says_nothing_of_a_first():
    assert "first" not in made("hinton").model_dump(mode="json")


def test_a_first_stage_has_no_place_in_an_exact_sum():
    with pytest.raises(InputError, match="fitnet_two_stage is a pretrain stage"):
        made("0.1*ce+0.9*fitnet_two_stage")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    place = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "KDZOO_CACHE": str(place / "cache"), "WANDB_MODE": "disabled"}
    command = [sys.executable, "-m", "kdzoo", *QUICK, "--methods", "fitnet_two_stage,fitnet"]
    said = run_warm(command, cwd=place, env=environment)
    assert said.returncode == 0, said.stdout + said.stderr
    assert re.search(r"^pretrain stage trained: fitnet_two_stage, seed 0$", said.stdout, re.MULTILINE), "no setting: nobody chose one"
    return place / "results" / "digits"


def runs(bench, kind: str, label: str) -> dict[int, tuple[Run, dict]]:
    found = {}
    for path in (bench / "runs").glob(f"{label}-*/run.json"):
        run = Run.model_validate(json.loads(path.read_text())["run"])
        if run.kind == kind:
            found[run.seed] = (run, json.loads((path.parent / "result.json").read_text()))
    return found


def test_every_seed_has_a_first_stage_that_no_table_shows(bench):
    firsts, seconds = runs(bench, "pretrain", "fitnet_two_stage"), runs(bench, "train", "fitnet_two_stage")
    assert firsts.keys() == seconds.keys() == {0, 1}
    for seed, (run, _) in seconds.items():
        assert run.pretrain_run == firsts[seed][0]
        assert firsts[seed][0].recipe.epochs == 1
    rows = pd.read_csv(bench / "runs.csv")
    assert set(rows["method"]) == {"none", "hinton", "fitnet", "fitnet_two_stage"}
    assert not set(rows["id"]) & {run.id for run, _ in firsts.values()}


def test_the_second_stage_starts_where_the_first_ended(bench):
    (run, _), *_ = runs(bench, "train", "fitnet_two_stage").values()
    located, first = (LocatedRun.read(Store(bench).run(id_)) for id_ in (run.id, run.pretrain_run.id))
    images, parts = load_run_data(located)
    execution = Placement(WorkerOptions(teacher_cache=0))
    teacher = measure_shapes(
        load_network(run.teacher.model_copy(update={"start": "random"}), images, side=8, seed=0, path=None, modules=Modules()), (1, 8, 8)
    )
    member = build_member(located, images, parts, teacher, execution, Modules())
    fresh = copy.deepcopy(member.network.state_dict())
    load_pretrain_stage(member, first)
    ended = read_checkpoint(first.folder, torch.device("cpu"))["network"]
    assert all(torch.equal(value, ended[name]) for name, value in member.network.state_dict().items())
    moved = {name for name, value in ended.items() if not torch.equal(value, fresh[name])}
    assert any("stage" in name for name in moved)
    assert not any("classifier" in name for name in moved)  # cross-entropy has no part in the pretrain stage


def test_the_first_stages_time_is_added_to_the_seconds(bench):
    firsts, seconds = runs(bench, "pretrain", "fitnet_two_stage"), runs(bench, "train", "fitnet_two_stage")
    for seed, (_, result) in seconds.items():
        alone = result["cost"]["step_seconds"] * result["train"]["steps"]
        assert result["cost"]["train_seconds"] == pytest.approx(alone + firsts[seed][1]["cost"]["train_seconds"])


def test_a_first_stage_that_another_process_trains_is_waited_for_and_becomes_no_job_of_its_own(bench, tmp_path):
    folder = shutil.copytree(bench, tmp_path / "copy")
    (run, _), *_ = runs(folder, "train", "fitnet_two_stage").values()
    second, first = (Store(folder).run(id_) for id_ in (run.id, run.pretrain_run.id))
    second.reset()
    held = FileLock(first.path / ".lock")
    held.acquire()
    events = []

    def emit(event):
        events.append(event)
        if "another process is training the pretrain stage" in (event.text if isinstance(event, Note) else ""):
            held.release()

    waiting = [(LocatedRun.read(second), run.pretrain_run)]
    train_pretrain_runs(Store(folder), waiting, WorkerOptions(), WorkerState(), emit, lambda: False)
    assert [type(event) for event in events if isinstance(event, Note | RunsLocked)] == [Note]
    assert first.state() == "done"
