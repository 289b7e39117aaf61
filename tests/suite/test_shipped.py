"""A method that ships another student than the one it trained: measured, counted, kept and measured again as shipped."""

import json

import pytest
import torch
from safetensors.torch import load_file

from kdzoo.errors import InputError
from kdzoo.models.checkpoints import read_state
from kdzoo.models.predict import predict
from kdzoo.runs.store import RunFolder
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_student import load_trained_student


@pytest.fixture
def shipped(kdzoo, place, train_here) -> RunFolder:
    said = kdzoo("bench", "--epochs", "6", "--seeds", "1", "--methods", "simkd", "--keep", "student,predictions", "--jobs", "1")
    assert said.status == 0, said.err
    found = sorted((place / "results" / "digits" / "runs").glob("simkd-*"))[0]
    return RunFolder(found)


@pytest.mark.slow
def test_simkd_is_measured_with_its_projector_and_the_teachers_classifier(kdzoo, shipped):
    said = kdzoo("evaluate", str(shipped.path))
    assert said.status == 0, said.err
    assert "as recorded" in said.out

    located = LocatedRun.read(shipped)
    images, parts = load_run_data(located)
    student = load_trained_student(located, images, parts, Modules())
    held = load_file(shipped.student)
    own = sum(v.numel() for k, v in held.items() if not k.startswith("shipped_with.") and "running" not in k and "num_batches" not in k)
    dropped = sum(p.numel() for p in student.network.model.classifier.parameters())
    added = sum(p.numel() for p in student.module.parameters())
    assert added > 0
    assert shipped.result()["student"]["parameters"] == own - dropped + added

    without = predict(student.network, parts.test, located.run.recipe.augment, torch.device("cpu"))
    alone = float((without.argmax(1) == parts.test.targets).double().mean())
    assert alone < shipped.result()["last"]["test"]["top1"]  # the student's own classifier was never trained

    teacher = json.loads((shipped.path / "run.json").read_text())["about"]["teacher_id"]
    assert teacher.startswith("none-")
    with pytest.raises(InputError, match="needs parts of its method at inference"):
        read_state(shipped.student)


def test_the_short_way_refuses_what_plain_timm_cannot_load(kdzoo, place):
    (place / "images" / "a").mkdir(parents=True)
    said = kdzoo("distill", "images", "--teacher", "resnet18:random", "--method", "simkd")
    assert said.status == 2
    assert "simkd ships" in said.err
