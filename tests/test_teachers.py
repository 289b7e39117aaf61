"""Teachers before they teach: measured against chance, under the usual normalisations, and by the names of their classes."""

import argparse
import json

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn

import kdzoo as zoo
from kdzoo.data.class_names import difference, same_classes
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.names import load_zoo
from kdzoo.models.network import freeze
from kdzoo.models.normalisation import USUAL
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import teacher_store
from kdzoo.tasks.classification import against_chance, binomial_tail
from kdzoo.tasks.task import CHANCE_SIZE


def answers(right: int, images: int, classes: int = 5, commonest: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities that are right on so many images, whose commonest class has so many more than its share."""
    targets = torch.arange(images) % classes
    targets[:commonest] = 0
    named = torch.where(torch.arange(images) < right, targets, (targets + 1) % classes)
    return F.one_hot(named, classes).float().clamp(min=1e-6).log(), targets


@pytest.mark.parametrize(("images", "classes"), [(50, 5), (288, 10), (2000, 100)])
def test_chance_is_refused_at_the_size_that_is_stated(images, classes):
    """The least number of right answers that passes is scipy's own quantile of the binomial distribution."""
    least = int(scipy.stats.binom.isf(CHANCE_SIZE, images, 1 / classes)) + 1
    assert against_chance(*answers(least, images, classes)).above
    assert not against_chance(*answers(least - 1, images, classes)).above
    assert binomial_tail(least, images, 1 / classes) == pytest.approx(scipy.stats.binom.sf(least - 1, images, 1 / classes))


def test_so_few_images_are_no_ground_to_refuse_on():
    log_probs, targets = answers(7, 17, commonest=2)
    found = against_chance(log_probs, targets)
    assert (found.above, found.tells) == (False, False)
    enough = against_chance(*answers(58, 288, 5))
    assert (enough.above, enough.tells) == (False, True)
    assert against_chance(*answers(15, 17)).above


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        (["ant", "bee"], ["ant", "bee"], True),
        (["Ant", "honey_bee"], ["ant", "honey bee"], True),
        (["ant", "bee"], ["bee", "ant"], False),
        (["ant", "bee"], ["ant", "fly"], False),
        (["ant", "bee"], ["ant", "bee", "fly"], False),
        (["0", "1"], ["ant", "bee"], None),
        (["0", "1"], ["0", "1"], True),
        (None, ["ant", "bee"], None),
        (["A+", "A", "A-"], ["A-", "A", "A+"], False),
        (["A+", "A", "A-"], ["A+", "A", "A-"], True),
    ],
)
def test_whether_classes_are_the_same_is_true_false_or_unknown(theirs, ours, same):
    assert same_classes(theirs, ours) is same


def test_a_difference_names_both_lists_and_the_first_places():
    assert difference(["ant", "bee", "fly"], ["ant", "fly", "bee"], "photos") == (
        "has the same classes in another order (class 1 is 'bee', in photos 'fly'; class 2 is 'fly', in photos 'bee'): "
        "its classes: ant, bee, fly; those of photos: ant, fly, bee"
    )


def digits(count: int = 1200) -> tuple[torch.Tensor, torch.Tensor]:
    bunch = load_digits()
    pixels = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:count, None]
    return pixels, torch.from_numpy(bunch.target[:count].astype(np.int64))


def fitted(module: nn.Module, scale, *, steps: int = 120) -> nn.Module:
    """A module trained on real digits whose pixels are scaled by `scale`."""
    x, y = digits()
    x = scale(x.float())
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(0, len(x), (128,))
        optimizer.zero_grad()
        F.cross_entropy(module(x[batch]), y[batch]).backward()
        optimizer.step()
    return module.eval()


class Net(nn.Module):
    def __init__(self, end=lambda scores: scores) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(256, 10)
        self.end = end

    def forward(self, x):
        return self.end(self.head(self.body(x)))


def student() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))


SHORT = {
    "data": "digits",
    "limit": 1000,
    "recipe": "digits",
    "epochs": 2,
    "seeds": 1,
    "refit": False,
    "methods": "hinton",
    "execution": zoo.Execution(threads=1),
}


@pytest.mark.slow
def test_a_student_learns_from_probabilities_what_it_learns_from_scores(place, capsys):
    scores = fitted(Net(), lambda x: (x / 255 - 0.306) / 0.377)
    ended = Net(lambda scores: scores.softmax(1))
    ended.load_state_dict(scores.state_dict())
    found = {}
    for name, teacher in {"scores": scores, "ended": ended}.items():
        board = zoo.bench(teacher=teacher, student=student(), name=name, **SHORT)
        found[name] = board.set_index("method").loc["hinton"]
    assert found["ended"]["test_nll"] == pytest.approx(found["scores"]["test_nll"], rel=1e-3)
    assert "ends in a softmax" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match="ends in a softmax"):
        zoo.bench(teacher=scores, student=ended, name="student", **SHORT)
    assert not list(place.glob("results/student/runs/*"))


def test_the_normalisation_of_a_file_is_measured_told_and_taken_where_it_is_asked_for(place):
    import timm

    from kdzoo.models.placement import Placement
    from kdzoo.suite.plan.layers import bench_config
    from kdzoo.suite.plan.sweep import plan
    from kdzoo.teachers.checks import notes_on_teacher
    from kdzoo.training.located import LocatedRun, Modules
    from kdzoo.training.run_data import load_run_data
    from kdzoo.training.run_teacher import load_teacher

    torch.manual_seed(0)
    load_zoo()
    module = fitted(timm.create_model("digits_teacher", num_classes=10, in_chans=1), lambda x: x - 128.0)
    torch.save({"state_dict": module.state_dict(), "args": argparse.Namespace(lr=0.1)}, place / "t@1.pth")

    def planned(option: str, **keys):
        options = {"data": "digits", "limit": 1000, "student": "digits_student", "methods": "hinton", "recipe": "digits", "seeds": 1}
        made = plan(bench_config({**options, "teacher": f"digits_teacher:t@1.pth{option}", "set": keys}, None))
        return next(p for p in made.students if p.run.teacher), made.notes

    def measured(found) -> tuple[float, list[str]]:
        located = LocatedRun(found.run, teacher_store().run(found.run.id), found.about["paths"])
        images, parts = load_run_data(located)
        execution = Placement(WorkerOptions(teacher_cache=0))
        teacher, _ = load_teacher(located, images, parts, execution, Modules())
        return teacher.test_metrics["top1"], notes_on_teacher(teacher, parts, found.run.recipe.augment, execution)

    (plain, notes), (auto, told), (named, _), (keyed, _) = (
        planned(""),
        planned("@norm=auto"),
        planned("@norm=centred"),
        planned("", **{"teacher.norm": "centred"}),
    )
    assert plain.run.teacher.norm is None
    assert any("the names of its classes are unknown" in note for note in notes)
    assert auto.run.teacher.norm == USUAL["centred"]
    assert any("normalised with centred, which suits it best" in note for note in told)
    assert auto.run.id == named.run.id == keyed.run.id != plain.run.id
    assumed, (remark,) = measured(plain)
    assert "another one is clearly better" in remark
    assert "@norm=centred" in remark
    top1, remark = measured(named)
    assert remark == []
    assert top1 > assumed + 0.1
    with pytest.raises(InputError, match="norm=auto is measured on weights made for the classes"):
        plan(bench_config({"data": "digits", "teacher": "digits_teacher@norm=auto", "student": "digits_student"}, None))


def test_a_teacher_that_is_good_as_it_is_is_measured_once(monkeypatch):
    from kdzoo.data.dataset import Subset
    from kdzoo.runs.recipe import Augment
    from kdzoo.teachers import checks as teachers

    module = fitted(Net(), lambda x: (x / 255 - 0.5) / 0.5, steps=600)
    pixels, targets = digits()
    part, cpu = Subset(pixels, targets), torch.device("cpu")

    def network(mean: float, std: float):
        spec = NetworkSpec(name="module:Net-0", classes=10)
        return freeze(build_network(spec, channels=1, side=8, mean=(mean,), std=(std,), seed=0, module=module))

    good, off = (teachers.measure_norms(network(*norm), None, part, Augment(), cpu) for norm in ((0.5, 0.5), (0.0, 1 / 255)))
    assert good.others == {}
    assert good.better() is None
    assert off.better() == "0.5"
    with torch.no_grad():
        norm = USUAL["0.5"]
        x = (pixels[:512].float() / 255 - norm.mean[0]) / norm.std[0]
        assert torch.equal(off.others["0.5"], module(x).argmax(1) == targets[:512])


def photographs(folder, names: dict[int, str], first: int = 0):
    """Handwritten digits as PNG files from number `first` on, a sub-folder a class of these names."""
    bunch = load_digits()
    for label, name in names.items():
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(bunch.images[bunch.target == label][first : first + 40]):
            Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_a_kept_teacher_of_other_classes_or_another_order_is_refused_before_training_with_both_lists(kdzoo, place):
    first = photographs(place / "first", {0: "ant", 1: "bee", 2: "cat"})
    other = photographs(place / "other", {0: "ant", 1: "fly", 2: "cow"})
    more = photographs(place / "more", {0: "ant", 1: "bee", 2: "cat"}, first=40)
    whole = ["--recipe", "smoke", "--epochs", 8, "--set", "recipe.augment.size=8", "--jobs", 1, "--threads", 1]
    done = kdzoo("train", "digits_teacher", "--data", f"folder:{first}", *whole[:6], "--threads", 1)
    assert done.status == 0, done.err
    (teacher,) = teacher_store().ids()
    kept = teacher_store().run(teacher)
    assert kept.read_plan()[1]["class_names"] == ["ant", "bee", "cat"]
    words = ["bench", "--student", "digits_student", "--methods", "hinton", "--seeds", 1, "--no-refit", *whole]

    def asked(data, teacher: str, *more: str):
        return kdzoo(*words, "--data", f"folder:{data}", "--teacher", teacher, "--name", data.name, *more)

    shutil_copy = place / "mine.safetensors"
    shutil_copy.write_bytes(kept.student.read_bytes())
    for name in (teacher, f"digits_teacher:{shutil_copy}"):
        refused = asked(other, name)
        assert refused.status == 2
        text = " ".join(refused.err.split())
        assert "was trained on other classes (class 1 is 'bee', in folder 'cow'; class 2 is 'cat', in folder 'fly')" in text
        assert "its classes: ant, bee, cat; those of folder: ant, cow, fly" in text
    assert not (place / "results/other").exists()
    same = asked(more, teacher)
    assert same.status == 0, same.err
    assert "names of its classes" not in same.out
    nameless = place / "nameless.safetensors"
    save_file(load_file(kept.student), nameless)
    told = asked(more, f"digits_teacher:{nameless}", "--allow-chance-teacher")
    assert told.status == 0, told.err
    assert "the names of its classes are unknown; expected, in this order: ant, bee, cat" in " ".join(told.out.split())


@pytest.mark.slow
def test_distill_from_python_takes_threads_or_torchs_own_number_and_tells_its_notes(place):
    pixels, targets = digits(600)
    data = ((pixels[:500].numpy(), targets[:500].numpy()), (pixels[500:].numpy(), targets[500:].numpy()))
    teacher = fitted(Net(lambda scores: scores.softmax(1)), lambda x: (x / 255 - 0.306) / 0.377)
    before = torch.get_num_threads()

    def threads(name: str, **more) -> int:
        found = zoo.distill(student(), teacher, data, epochs=1, results=place / name, **more)
        assert any("ends in a softmax" in note for note in found.verdict.notes)
        (result,) = (place / name).glob("distill/runs/hinton-*/result.json")
        return json.loads(result.read_text())["environment"]["threads"]

    try:
        torch.set_num_threads(1)
        assert threads("own") == 1
        assert threads("two", execution=zoo.Execution(threads=2)) == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_environments_threads_are_taken_unless_others_are_asked_for(monkeypatch):
    from kdzoo.suite.run.prepare import environments_threads

    for text, found in {"3": 3, "2,4": 2, "": None, "0": None, "many": None}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert environments_threads() == found
