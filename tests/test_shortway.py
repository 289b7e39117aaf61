"""The short way on real image files: fine-tuned teacher, fair verdict, a student that plain timm loads, nothing done twice."""

import inspect
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from warm_python import run_warm

from kdzoo.cli import distill as short
from kdzoo.cli.app import status_of
from kdzoo.contract.needs import Need
from kdzoo.contract.register import register
from kdzoo.errors import InputError, WorkFailed
from kdzoo.models.names import load_zoo
from kdzoo.models.request import pretrained_by_default
from kdzoo.runs.costs import RunCost, keep_costs, read_costs
from kdzoo.runs.events import Note
from kdzoo.runs.options import Execution
from kdzoo.suite.distill import time_limit
from kdzoo.suite.distill.arrays import data_name
from kdzoo.suite.distill.distill import distill, distill_folder
from kdzoo.suite.distill.plan import plan_distillation
from kdzoo.suite.distill.verdict import Measured, Verdict, conclusion, table, table_of_width
from kdzoo.suite.distill.wish import Wish
from kdzoo.suite.plan.config import DISTILL_METHOD, DISTILL_RECIPE
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.run.estimate import Probes, estimate
from kdzoo.text import shortened
from kdzoo.training.located import Modules


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))


def write_images(folder: Path, classes: int = 4, each: int = 70) -> Path:
    """Handwritten digits as PNG files of 32x32 pixels, a sub-folder a class."""
    bunch = load_digits(n_class=classes)
    for label in range(classes):
        (folder / f"digit-{label}").mkdir(parents=True)
        for number, image in enumerate(bunch.images[bunch.target == label][:each]):
            pixels = Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)).resize((32, 32))
            pixels.save(folder / f"digit-{label}" / f"{number}.png")
    return folder


def foreign_teacher(folder: Path) -> Path:
    """Weights of a network for nine classes."""
    load_zoo()
    torch.manual_seed(0)
    file = folder / "my_wrn.pth"
    torch.save(timm.create_model("wrn_16_2", num_classes=9).state_dict(), file)
    return file


def verdict_of(name: str = "mobilenetv3_small_100", **changes) -> Verdict:
    """A verdict over 100 images on which the two students name the same number right."""
    one = Measured(
        name, accuracy=0.9, low=0.8, high=0.95, balanced=0.9, parameters=2_500_000, macs=60_000_000, milliseconds={1: 4.0, 32: 40.0}
    )
    values = {
        "distilled": one, "alone": one, "teacher": replace(one, name="resnet50"), "classes": ("a", "b"), "images": 100,
        "validation_images": 0, "only_distilled": 0, "only_alone": 0, "difference_low": -0.0004, "difference_high": 0.0004, "p": 1.0,
        "method": "hinton", "threads": 1, "device": "cpu", "load": "idle", "notes": (),
    }  # fmt: skip
    return Verdict(**{**values, **changes})


def test_the_images_on_which_one_student_alone_is_right_cannot_be_taken_for_those_of_the_student_alone():
    said = conclusion(verdict_of(only_distilled=1, only_alone=17))
    assert "the distilled one is right on 1 image on which the other is wrong, and wrong on 17 on which the other is right" in said


def test_a_verdict_has_no_negative_zero():
    assert "95 % interval +0.0 to +0.0" in conclusion(verdict_of())
    assert "95 % interval -1.2 to +0.0" in conclusion(verdict_of(difference_low=-0.012))


def test_two_students_are_told_apart_where_the_interval_and_the_exact_test_agree():
    """Newcombe's interval may leave out 0 where the exact McNemar test, which is more careful, has p above 0.05."""
    doubtful = conclusion(verdict_of(difference_low=0.015, difference_high=0.579, p=0.077))
    assert "95 % interval +1.5 to +57.9" in doubtful
    assert "is not shown to be better or worse than the same student trained alone: +0.0 points" in doubtful
    assert "exact McNemar test p = 0.077, so these few images do not tell the two apart" in doubtful
    assert "do not tell the two apart" in conclusion(verdict_of(p=0.04)), "the interval has 0 in it"
    assert "apart" not in conclusion(verdict_of(difference_low=0.015, difference_high=0.579, p=0.04))


def test_the_distilled_student_is_kept_unless_it_is_shown_to_be_worse():
    """A loss is shown by what a gain is shown by: a difference that chance explains keeps the distilled one."""
    assert verdict_of(difference_low=-0.3, difference_high=0.001, p=0.04).kept == "distilled"
    assert verdict_of(difference_low=-0.579, difference_high=-0.015, p=0.077).kept == "distilled"
    worse = verdict_of(difference_low=-0.3, difference_high=-0.001, p=0.04)
    assert worse.kept == "alone"
    assert "It is worse, so the student trained alone is the one that is kept." in conclusion(worse)
    assert "do not tell the two apart" not in conclusion(worse)


@pytest.mark.parametrize("small", ["photos/small", "photos"])
def test_results_among_the_images_are_refused_before_anything_is_written(kdzoo, place, small):
    photos = write_images(place / "photos", classes=2, each=12)
    before = sorted(photos.rglob("*"))
    told = kdzoo("distill", "photos", "--teacher", "wrn_16_1:random", "--student", "resnet8", "--epochs", "1", "--out", small)
    assert told.status == 2
    assert f"{small} lies in the folder of the images" in told.err
    bench = kdzoo("bench", "--data", "folder:photos", "--pairs", "wrn_16_1/resnet8", "--results", "photos/results", "--dry-run")
    assert (bench.status, "lies in the folder of the images" in bench.err) == (2, True)
    assert sorted(photos.rglob("*")) == before


def test_results_beside_the_parts_of_a_data_set_are_no_class_of_it(kdzoo, place):
    for part in ("train", "test"):
        write_images(place / "photos" / part, classes=2, each=12)
    words = ["bench", "--data", "folder:photos", "--pairs", "wrn_16_1/resnet8", "--dry-run", "--set", "recipe.augment.size=32", "--results"]
    assert kdzoo(*words, "photos/results").status == 0
    assert kdzoo(*words, "photos/train/results").status == 2


@pytest.mark.parametrize("side", ["100000", "4097"])
def test_an_image_size_that_no_memory_holds_is_refused_before_an_image_is_decoded(kdzoo, place, side):
    write_images(place / "photos", classes=2, each=12)
    told = kdzoo("distill", "photos", "--teacher", "wrn_16_1:random", "--student", "resnet8", "--image-size", side)
    assert told.status == 2
    assert f"size: expected a number <= 4096, got {side}" in told.err


def test_too_few_images_are_told_with_how_many_are_needed(kdzoo, place):
    write_images(place / "photos", classes=2, each=2)
    told = kdzoo("distill", "photos", "--teacher", "wrn_16_1:random", "--student", "resnet8", "--epochs", "1", "--image-size", "16")
    assert told.status == 2
    assert "2 training images of 2 classes are too few" in told.err
    assert "expected at least 5" in told.err


@pytest.mark.slow
def test_a_distillation_goes_on_and_is_exported_from_another_folder_and_with_its_images_moved(kdzoo, place, monkeypatch):
    """The names of the files are not all UTF-8, and the same command from another working folder trains nothing again."""
    photos = write_images(place / "photos", classes=2, each=12)
    first = next(path for path in sorted(photos.rglob("*")) if path.is_file())
    first.rename(first.with_name(os.fsdecode(b"caf\xe9") + first.suffix))
    words = ["--teacher", "wrn_16_1:random", "--student", "resnet8", "--epochs", "1", "--image-size", "16", "--out", place / "small"]
    assert kdzoo("distill", "photos", *words).status == 0
    results = {path: path.stat().st_mtime_ns for path in (place / "small").rglob("result.json")}
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert kdzoo("export", place / "small", "--format", "timm", "-o", "exported").status == 0
    photos.rename(place / "moved")
    lost = kdzoo("export", place / "small", "--format", "timm", "-o", "again")
    assert (lost.status, Path("again").exists()) == (2, False)
    assert "their new place with --data folder:PATH" in " ".join(lost.err.split())
    found = kdzoo("export", place / "small", "--format", "timm", "-o", "again", "--data", f"folder:{place / 'moved'}")
    assert found.status == 0, found.err
    again = kdzoo("distill", place / "moved", *words)
    assert again.status == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in (place / "small").rglob("result.json")} == results


def test_the_table_of_a_verdict_fits_80_columns_and_names_the_columns_it_leaves_out():
    lines = table_of_width(verdict_of(), 80, "small/README.md")
    assert max(map(len, lines)) <= 80
    assert [line.split("  ")[0] for line in lines[1:4]] == ["distilled", "student alone", "teacher"]
    assert lines[1].split() == ["distilled", "mobilenetv3_small_100", "90.0", "%", "[80.0,", "95.0]", "2.50", "M", "60", "M"]
    assert lines[4:] == ["not shown: ms (batch 1), ms (batch 32); see small/README.md"]
    assert table_of_width(verdict_of(), 120, "small/README.md") == table(verdict_of())


def test_a_verdict_on_networks_with_long_names_has_lines_of_its_own_for_each():
    lines = table_of_width(verdict_of("a_network_of_mine_with_a_name_as_long_as_this_one"), 80, "small/README.md")
    assert lines[:4] == [
        "distilled",
        "  network: a_network_of_mine_with_a_name_as_long_as_this_one",
        "  accuracy on 100 images: 90.0 % [80.0, 95.0]",
        "  parameters: 2.50 M",
    ]
    assert "  ms (batch 32): 40.0" in lines


@pytest.mark.slow
def test_from_a_folder_and_a_foreign_teacher_to_a_small_network_for_plain_timm(tmp_path):
    photos, out, said = write_images(tmp_path / "photos"), tmp_path / "small", []
    teacher = f"wrn_16_2:{foreign_teacher(tmp_path)}"
    options = {
        "teacher": teacher,
        "student": "test_resnet:random",
        "results": out,
        "recipe": "digits",
        "epochs": 25,
        "image_size": 16,
        "execution": {"threads": 1},
    }
    wish = Wish(data=f"folder:{photos}", **options)
    verdict = distill_folder(wish, said.append)

    notes = " ".join(event.text for event in said if isinstance(event, Note))
    assert "made for other classes and is fine-tuned" in notes
    assert verdict.classes == ("digit-0", "digit-1", "digit-2", "digit-3")
    assert (verdict.images, verdict.validation_images) == (56 + 45, 45), "a fifth is for testing, a fifth of the rest for validation"
    assert verdict.teacher.accuracy > 0.6
    assert verdict.teacher.parameters > verdict.distilled.parameters
    assert verdict.distilled.low <= verdict.distilled.accuracy <= verdict.distilled.high
    assert all(ms > 0 for one in (verdict.distilled, verdict.teacher) for ms in one.milliseconds.values())
    assert json.loads((out / "verdict.json").read_text())["distilled"]["accuracy"] == verdict.distilled.accuracy
    assert json.loads((out / "classes.json").read_text()) == {str(i): f"digit-{i}" for i in range(4)}

    plain = (
        "import sys, timm\nfrom safetensors.torch import load_file\n"
        "model = timm.create_model('test_resnet', num_classes=4)\n"
        "model.load_state_dict(load_file(sys.argv[1]))\n"
        "assert not any(name.startswith('kdzoo') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", plain, str(out / "student.safetensors")], check=True)
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0].replace("image.jpg", "image.png")
    (out / "image.png").write_bytes(next((photos / "digit-2").glob("*.png")).read_bytes())
    spoken = run_warm([sys.executable, "-c", code], cwd=out).stdout.strip()
    assert spoken in verdict.classes

    counts = re.findall(r'<td class="(right|wrong)"[^>]*>(\d*)</td>', (out / "report.html").read_text())
    kept = verdict.alone if verdict.kept == "alone" else verdict.distilled
    assert sum(int(count or 0) for _, count in counts) == verdict.images
    assert sum(int(count or 0) for kind, count in counts if kind == "right") == round(kept.accuracy * verdict.images)

    before = {file: file.stat().st_mtime_ns for file in out.rglob("result.json")}
    again = distill_folder(wish)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("result.json")} == before
    assert again.distilled.accuracy == verdict.distilled.accuracy


def test_an_unreadable_image_and_weights_that_are_not_there_are_refused_before_any_work(tmp_path):
    photos = write_images(tmp_path / "photos", classes=2, each=6)
    wish = Wish(f"folder:{photos}", "resnet10t:random", tmp_path / "small", "resnet10t", image_size=32)
    with pytest.raises(InputError, match=r"pretrained weights are not available offline.*:FILE.*:random"):
        distill_folder(wish)
    (photos / "digit-1" / "torn.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match=r"torn\.png.*--skip-unreadable"):
        distill_folder(replace(wish, student="resnet10t:random"))
    assert not (tmp_path / "small").exists()


def test_everything_that_is_wrong_with_a_distillation_is_told_at_once(tmp_path):
    with pytest.raises(InputError) as error:
        distill("resnet99", "nosuch.pth", "folder:nowhere", method="simkd", results=tmp_path, progress=False)
    told = error.value.problems
    assert len(told) == 4
    for words in ("simkd ships the student", "no such file: nosuch.pth", "folder:nowhere: no such folder", "unknown 'resnet99'"):
        assert sum(words in problem for problem in told) == 1, words


def test_what_is_wrong_with_pretrained_weights_is_said_once_and_in_whole_words(tmp_path):
    photos = write_images(tmp_path / "photos", classes=2, each=6)
    with pytest.raises(InputError) as error:
        distill_folder(Wish(f"folder:{photos}", "resnet18", tmp_path / "small", "resnet10t", image_size=32))
    assert [problem.partition(":")[0] for problem in error.value.problems] == ["resnet18", "resnet10t"]
    assert shortened("a word and another", 12) == "a word and …"
    assert shortened("a word", 12) == "a word"


def test_python_and_the_command_line_have_one_recipe_image_size_and_method():
    command = {name: parameter.default for name, parameter in inspect.signature(short.distill).parameters.items()}
    here = {name: parameter.default for name, parameter in inspect.signature(distill).parameters.items()}
    wish = {field.name: field.default for field in fields(Wish)}
    shared = ("recipe", "epochs", "image_size", "seed", "skip_unreadable")
    assert [command[name] for name in shared] == [here[name] for name in shared] == [wish[name] for name in shared]
    assert here["method"] == wish["method"] == DISTILL_METHOD
    assert command["method"] is None, "DISTILL_METHOD, or another without labels"
    assert recipe_file(command["recipe"]).sizes


def test_python_plans_the_very_runs_of_the_command_line(tmp_path):
    """The same ids: of the same network, recipe and image size, for a teacher in the same words."""
    photos = write_images(tmp_path / "photos", classes=2, each=30)
    words = {
        "teacher": f"wrn_16_2:{foreign_teacher(tmp_path)}",
        "student": "test_resnet:random",
        "method": DISTILL_METHOD,
        "recipe": DISTILL_RECIPE,
    }
    common = {
        "epochs": None,
        "lr": None,
        "image_size": None,
        "seed": 0,
        "execution": {"device": "cpu", "threads": 1},
        "skip_unreadable": False,
    }
    wishes = [
        Wish(data=data, results=tmp_path, name=name, **words, **common)
        for data, name in ((f"folder:{photos}", "runs"), (data_name(photos), "distill"))
    ]
    plans = [plan_distillation(wish, Modules()) for wish in wishes]
    ids = [[planned.run.id for planned in prepared.plan.students] for prepared, _ in plans]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 2
    assert plans[0][1] == plans[1][1]
    assert plans[0][1][0].startswith("image size ")
    assert plans[0][1][1].startswith("images of 32x32 are enlarged to ")


@pytest.mark.slow
def test_python_leaves_the_files_and_the_words_of_the_command_line(tmp_path):
    """Times of forwards are measured anew; all else is equal, the weights to the last bit."""
    photos = write_images(tmp_path / "photos", classes=2, each=30)
    words = {"teacher": f"wrn_16_2:{foreign_teacher(tmp_path)}", "student": "test_resnet:random"}
    options = {"epochs": 2, "image_size": 16, "threads": 1}
    folders = tmp_path / "command", tmp_path / "python"
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    pair = [part for name, value in words.items() for part in (f"--{name}", value)]
    assert status_of(["distill", str(photos), *pair, *flags, "--out", str(folders[0]), "--format", "onnx"], debug=False) == 0
    distill(
        words["student"], words["teacher"], photos, out=folders[1], progress=False, epochs=2, image_size=16, format="onnx",
        execution=Execution(threads=1),
    )  # fmt: skip

    names = [sorted(file.name for file in folder.iterdir()) for folder in folders]
    assert names[0] == names[1] == [
        "README.md", "classes.json", "onnx", "preprocess.py", "report.html", "runs", "student.safetensors", "verdict.json"
    ]  # fmt: skip
    images = [re.findall('data:image/png[^"]*', (folder / "report.html").read_text()) for folder in folders]
    assert images[0]
    assert images[0] == images[1]
    runs = [sorted(file.relative_to(folder) for file in folder.glob("runs/runs/*/*")) for folder in folders]
    assert runs[0] == runs[1]
    assert all((folder / "onnx" / "student.onnx").is_file() for folder in folders)
    for name in ("classes.json", "preprocess.py"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    weights, about = zip(*(contents(folder / "student.safetensors") for folder in folders), strict=True)
    assert about[0] == about[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    assert without_times(folders[0] / "README.md") == without_times(folders[1] / "README.md")
    verdicts = [json.loads((folder / "verdict.json").read_text()) for folder in folders]
    for verdict in verdicts:
        verdict["load"] = ""
        for network in ("distilled", "alone", "teacher"):
            verdict[network]["milliseconds"] = {}
    assert verdicts[0] == verdicts[1]


def contents(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata, whose order in the file is not fixed."""
    with safe_open(file, "pt") as opened:
        return load_file(file), opened.metadata()


def without_times(readme: Path) -> str:
    """The text of a README without what is measured of times and load, which no two measurements agree on."""
    text = re.sub(r"( +[\d.]+){2}$", "", readme.read_text(), flags=re.MULTILINE)
    text = re.sub(r"takes \d+ % of its time", "", text)
    return re.sub(r"\(\d+ threads?, cpu; .*?\)\.$", "", text, flags=re.MULTILINE)


def test_what_cannot_be_left_in_a_folder_is_refused_before_any_work(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    for student, data in ((network, write_images(tmp_path / "photos", classes=2, each=6)), ("digits_student", "digits")):
        with pytest.raises(InputError, match="out: expected a folder of images as data and the name of a network as student"):
            distill(student, "digits_teacher:random", data, out=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_bare_name_means_published_weights_where_there_are_any():
    assert pretrained_by_default("resnet18@64") == "resnet18:pretrained@64"
    assert pretrained_by_default("digits_teacher") == "digits_teacher"
    assert pretrained_by_default("resnet18:random") == "resnet18:random"


@pytest.mark.slow
def test_from_python_with_modules_and_arrays(tmp_path, capsys):
    bunch = load_digits()
    images = np.round(bunch.images * 255 / 16).astype(np.uint8)
    train, test = (images[:1200], bunch.target[:1200]), (images[1200:], bunch.target[1200:])

    def network(width: int, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3, padding=1),
            torch.nn.BatchNorm2d(width),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(width * 16, 10),
        )

    taught = network(32, 0)
    pixels = (torch.from_numpy(train[0])[:, None].float() / 255 - images[:1200].mean() / 255) / (images[:1200].std() / 255)
    optimizer = torch.optim.Adam(taught.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(taught(pixels), torch.from_numpy(train[1])).backward()
        optimizer.step()
    student = network(4, 1)
    start = {name: value.clone() for name, value in student.state_dict().items()}
    found = distill(student, taught, (train, test), method="hinton", epochs=5, lr=0.01, results=tmp_path / "results")
    assert "hinton" in capsys.readouterr().out, "progress is shown in Python too"
    assert found.teacher_accuracy > 0.85
    assert found.accuracy > 0.5
    assert type(found.student) is type(student)
    assert not found.student.training
    assert all(torch.equal(start[name], value) for name, value in student.state_dict().items()), "the given student was changed"
    weights = load_file(next((tmp_path / "results/distill/runs").glob("hinton-*/student.safetensors")))
    assert all(torch.equal(weights[name], value) for name, value in found.student.state_dict().items())
    drowned = "0.000001*ce+1000000*nst"  # a weight with which a student learns to imitate maps and no class
    harmed = distill(student, taught, (train, test), method=drowned, epochs=5, lr=0.01, results=tmp_path / "results")
    assert harmed.accuracy < harmed.baseline - 0.1
    assert harmed.verdict.kept == "alone"
    alone = load_file(next((tmp_path / "results/distill/runs").glob("none-*/student.safetensors")))
    assert all(torch.equal(alone[name], value) for name, value in harmed.student.state_dict().items())


def test_a_format_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    photos = f"folder:{write_images(tmp_path / 'photos', 2, 10)}"
    with pytest.raises(InputError, match=r"--int8: only for an ONNX graph; leave it out, or use `--format onnx` instead of hf"):
        distill("resnet8", "resnet20:random", photos, out=tmp_path / "out", format="hf", int8="static")
    with pytest.raises(InputError, match="format: hf is written into a folder; give out=FOLDER"):
        distill("resnet8", "resnet20:random", photos, format="hf")
    assert not (tmp_path / "out").exists()


def test_a_time_that_cannot_be_read_or_stands_beside_epochs_is_refused(tmp_path):
    photos = f"folder:{write_images(tmp_path / 'photos', 2, 10)}"
    with pytest.raises(InputError, match=r"time: expected a time such as 45m, 2h or 1h30m, got 'soon'"):
        distill("resnet8", "resnet20", photos, time="soon")
    with pytest.raises(InputError, match="leave --epochs or --time out"):
        distill("resnet8", "resnet20:random", photos, time="1m", epochs=3)


@pytest.mark.slow
def test_as_many_epochs_are_planned_as_fit_into_the_time_and_the_same_wish_has_them_again(tmp_path):
    photos, teacher = write_images(tmp_path / "photos"), foreign_teacher(tmp_path)
    wish = Wish(f"folder:{photos}", f"wrn_16_2:{teacher}", tmp_path / "out", student="resnet8:random", image_size=32, seconds=120)
    prepared, notes = plan_distillation(wish, Modules())
    (epochs,) = {planned.run.recipe.epochs for planned in prepared.plan.students}
    assert epochs > 1
    assert f"time: {epochs} epochs of both students are expected to fit" in notes
    without, _ = plan_distillation(replace(wish, seconds=None), Modules())
    assert prepared.plan.teachers.keys() == without.plan.teachers.keys()
    longer = time_limit.with_epochs(prepared.plan, 2 * epochs)
    probes = Probes.of(prepared)
    assert estimate(prepared, probes) < 120 < 2 * estimate(replace(prepared, plan=longer, states={}), probes)
    keep_costs({kind: RunCost(cost.setup, 9 * cost.image, cost.evaluated) for kind, cost in read_costs().items()})
    again, _ = plan_distillation(wish, Modules())
    assert [planned.run.id for planned in again.plan.students] == [planned.run.id for planned in prepared.plan.students]
    with pytest.raises(InputError, match="time: too short: the teacher and one epoch of both students take about"):
        plan_distillation(replace(wish, seconds=0.1), Modules())


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] if (run / "metrics.jsonl").exists() else []


@pytest.mark.slow
def test_where_the_time_is_over_early_the_students_of_the_best_validation_epochs_are_judged_by_test_images(tmp_path, monkeypatch):
    photos, teacher = write_images(tmp_path / "photos"), foreign_teacher(tmp_path)
    wish = Wish(f"folder:{photos}", f"wrn_16_2:{teacher}", tmp_path / "out", student="resnet8:random", image_size=16, seconds=900)
    runs = tmp_path / "out/runs/runs"

    def clock() -> float:
        """As if the time were over when both students have trained three epochs."""
        return time.monotonic() + 1000 * (len(list(runs.glob("*"))) == 2 and all(len(lines_of(run)) >= 3 for run in runs.glob("*")))

    monkeypatch.setattr(time_limit, "monotonic", clock)
    verdict = distill_folder(wish)
    cut = verdict.cut_short
    assert not list(runs.glob("*/result.json"))
    assert cut is not None
    assert cut.trained_epochs >= 3
    assert cut.planned_epochs > cut.trained_epochs
    for method, epoch in (("hinton", cut.distilled_epoch), ("none", cut.alone_epoch)):
        (run,) = runs.glob(f"{method}-*")
        best = min(lines_of(run), key=lambda line: (-line["val"]["top1"], line["val"]["nll"], line["epoch"]))
        assert epoch == best["epoch"]
    assert verdict.images == 56
    assert verdict.validation_images == 0
    said = f"The time was over after {cut.trained_epochs} of {cut.planned_epochs} epochs."
    assert said in (tmp_path / "out/README.md").read_text()
    assert said in (tmp_path / "out/report.html").read_text()

    load_zoo()
    model = timm.create_model("resnet8", num_classes=4, checkpoint_path=str(tmp_path / "out/student.safetensors"))
    names = json.loads((tmp_path / "out/classes.json").read_text())
    assert list(names.values()) == list(verdict.classes)
    assert sum(p.numel() for p in model.parameters()) == verdict.distilled.parameters

    again, _ = plan_distillation(wish, Modules())
    assert {planned.run.id for planned in again.plan.students} == {file.parent.name for file in runs.glob("*/checkpoint")}


@pytest.mark.slow
def test_where_the_time_is_over_before_both_students_have_trained_an_epoch_there_is_no_verdict(tmp_path, monkeypatch):
    photos, teacher = write_images(tmp_path / "photos"), foreign_teacher(tmp_path)
    wish = Wish(f"folder:{photos}", f"wrn_16_2:{teacher}", tmp_path / "out", student="resnet8:random", image_size=16, seconds=900)
    planned = tmp_path / "out/runs/runs"
    monkeypatch.setattr(time_limit, "monotonic", lambda: time.monotonic() + 1000 * planned.exists())
    with pytest.raises(WorkFailed, match="time: it is over before every student has ended an epoch"):
        distill_folder(wish)
    assert not (tmp_path / "out/student.safetensors").exists()


@pytest.mark.slow
def test_a_run_that_fails_is_said_and_is_no_bad_input(tmp_path):
    @register("short_failing", needs=Need.LOGITS)
    def short_failing(student, teacher, batch):
        if batch.clock.step == 2:  # not in the steps that are tried before training
            raise RuntimeError("as planned")
        return (student.logits - teacher.logits.detach()).pow(2).mean()

    with pytest.raises(WorkFailed, match=r"short_failing-[0-9a-f]{12} failed: RuntimeError: as planned"):
        distill(
            "digits_student",
            "digits_teacher",
            "digits",
            method="short_failing",
            epochs=3,
            results=tmp_path / "results",
            execution=Execution(threads=1),
        )
