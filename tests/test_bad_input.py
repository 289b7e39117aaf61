"""Bad input is said in a few lines on standard error, with status 2, before any work, and harms nothing on disk."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm_python import run_warm

from kdzoo.cli.output import columns_variable
from kdzoo.errors import InputError
from kdzoo.suite.plan.starts import read_starts
from kdzoo.suite.run.launchers.ray import numbers_of

QUICK = ("bench", "--threads", "1", "--jobs", "1", "--epochs", "1", "--seeds", "1", "--methods", "hinton", "--temperatures", "4")


def assert_refused(said, *words: str) -> None:
    """Status 2, every word on standard error, a few lines under the program's name and nothing else, no traceback, nothing on disk."""
    assert said.status == 2, said
    assert said.out == ""
    for word in words:
        assert word in said.err
    lines = said.err.strip().splitlines()
    assert 1 <= len(lines) <= 6, said.err
    assert all(line.startswith("kdzoo: ") for line in lines), said.err
    assert "Traceback" not in said.err
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "hintn"], ["unknown 'hintn'", "did you mean 'hinton'?"]),
        *((["--methods", word], [f"unknown {word!r}; did you mean 'hinton'? A method of your own"]) for word in ("kd", "KD", "vanilla")),
        (["--methods", "hinton,baseline"], ["unknown 'baseline'; the student alone is in every bench without being named"]),
        (["--methods", "0.1*ce+0.9*kd"], ["unknown 'kd'; did you mean 'hinton'?"]),
        (["--methods", "at+hintn"], ["unknown 'hintn'", "did you mean 'hinton'?"]),
        (["--methods", "0.1*ce+0.9*hintn"], ["unknown 'hintn'"]),
        (["--data", "digit"], ["unknown 'digit'", "did you mean 'digits'?"]),
        (["--data", "folder:nowhere"], ["no such folder"]),
        (["--teacher", "digits_techer", "--student", "digits_student"], ["did you mean 'digits_teacher'?"]),
        (["--teacher", "digits_teacher", "--student", "digits_studnt"], ["did you mean 'digits_student'?"]),
        (["--teacher", "digits_teacher"], ["student: missing"]),
        (["--teacher", "digits_teacher:gone.pth", "--student", "digits_student"], ["no such file: gone.pth"]),
        (["--pairs", "digts"], ["did you mean 'digits'?"]),
        (["--recipe", "digts"], ["did you mean 'digits'?"]),
        (["--recipe", "gone.yaml"], ["gone.yaml"]),
        (["--temperatures", "0"], ["hinton.temperature", "> 0", "got 0"]),
        (["--alphas", "2"], ["alphas", "[0, 1]", "got 2"]),
        (["--alphas", "half"], ["alphas", "half"]),
        (["--weights", "-1"], ["weights", ">= 0", "got -1"]),
        (["--epochs", "0"], ["epochs", "> 0", "got 0"]),
        (["--lr", "0"], ["lr", "> 0"]),
        (["--lr", "nan"], ["lr", "nan"]),
        (["--seeds", "0"], ["seeds"]),
        (["--tune", "0"], ["tune"]),
        (["--name", "../elsewhere"], ["name"]),
        (["--set", "recipe.epoch=3"], ["unknown 'recipe.epoch'", "did you mean 'recipe.epochs'?"]),
        (["--set", "epochs"], ["expected key=value"]),
        (["--set", "recipe.batch_size=many"], ["recipe.batch_size"]),
        (["--set", "recipe.augment.cutot=3"], ["unknown 'recipe.augment.cutot'", "did you mean 'recipe.augment.cutout'?"]),
        (["--set", "recipe.augment.cutout=-1"], ["recipe.augment.cutout", ">= 0", "got -1"]),
        (["--set", "recipe.augment.cutout=9"], ["recipe.augment.cutout", "at most 8", "got 9"]),
        (["--set", "recipe.augment.randaugment=many"], ["recipe.augment.randaugment", "many"]),
        (["--set", "recipe.augment.magnitude=5"], ["augment.magnitude", "expected augment.randaugment"]),
        (
            ["--set", "recipe.augment.randaugment=2", "--set", "recipe.augment.magnitude=31"],
            ["recipe.augment.magnitude", "<= 30", "got 31"],
        ),
        (["--set", "recipe.augment.saturation=-0.1"], ["recipe.augment.saturation", ">= 0"]),
        (["--set", "recipe.mixup=0"], ["recipe.mixup", "> 0", "got 0"]),
        (["--set", "recipe.mix_prob=0.5"], ["mix_prob", "expected mixup or cutmix"]),
        (["--set", "recipe.cutmix=1", "--set", "recipe.mix_prob=2"], ["recipe.mix_prob", "<= 1", "got 2"]),
        (["--methods", "pskd", "--set", "recipe.mixup=0.2"], ["pskd: cannot be trained with recipe.mixup", "another mix"]),
        (["--set", "recipe.batch_size=[1"], ["recipe.batch_size", "'[1'"]),
        (["--methods", ""], ["methods", "at least 1"]),
        (["--seeds", "one"], ["seeds: expected a valid integer, got 'one'"]),
        (["--keep", "student,prediction"], ["keep: ", "did you mean 'predictions'?"]),
        (["--grid", "hinton.temprature=1,2"], ["did you mean 'temperature'?"]),
        (["--grid", "hinton.temperature"], ["expected METHOD.FIELD=VALUE"]),
        (["--wandb", "offlin"], ["wandb", "did you mean 'offline'?"]),
        (["--device", "gpu"], ["device: expected auto, cpu, cuda or cuda:NUMBER, got 'gpu'"]),
        (["--plugin", "gone.py"], ["no such file: gone.py"]),
        (["--config", "gone.yaml"], ["gone.yaml"]),
        (["--metods", "hinton"], ["--metods", "--methods"]),
    ],
    ids=lambda value: " ".join(value) if value and str(value[0]).startswith("--") else "",
)
def test_a_bench_refuses(kdzoo, options, words):
    assert_refused(kdzoo(*QUICK, *options, "--dry-run"), *words)


def test_an_unknown_command_is_answered_with_the_nearest(kdzoo):
    assert_refused(kdzoo("bnch"), "No such command 'bnch'", "'bench'")


def test_all_problems_are_said_at_once(kdzoo):
    said = kdzoo("bench", "--methods", "hintn,rkdd", "--data", "digit", "--grid", "hinton.tau=1")
    assert_refused(said, "'hintn'", "'rkdd'", "'digit'", "hinton.tau: unknown")
    assert said.err.count("tau") == 1


def test_faults_of_options_and_of_what_they_come_to_are_said_together(kdzoo):
    said = kdzoo(
        "bench", "--epochs", "0", "--wandb", "on", "--methods", "hintn", "--recipe", "digit", "--set", "recipe.epoch=3", "--alphas", 2
    )
    assert_refused(said, "epochs: ", "wandb: ", "'hintn'", "recipe: unknown 'digit'", "'recipe.epoch'", "alphas: ")


def test_both_networks_of_a_pair_are_named(kdzoo):
    said = kdzoo("bench", "--teacher", "resnt20", "--student", "resnt8", "--data", "digit", "--device", "gpu")
    assert_refused(said, "did you mean 'resnet20'?", "did you mean 'resnet8'?", "'digit'", "device: ")


def test_every_broken_plugin_is_named(kdzoo, place):
    (place / "broken.py").write_text("def my_loss(student, teacher, batch:\n")
    (place / "failing.py").write_text("raise RuntimeError('no luck')\n")
    assert_refused(kdzoo("bench", "--plugin", "broken.py", "--plugin", "failing.py"), "broken.py:1", "failing.py:1")


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["plot"], ["Missing option '--kind'. Choose from: surface, slices, forest, ", "Missing option '--output' / '-o'"]),
        (["plot", "--kind", "forst"], ["--kind: 'forst' is not one of 'surface', ", "Missing option '--output' / '-o'"]),
        (["export"], ["Missing argument 'RUN'", "Missing option '--format'. Choose from: timm, onnx, hf", "Missing option '--out' / '-o'"]),
        (["distill", "photos", "--epochs", "b", "--seed", "a"], ["Missing option '--teacher'", "--epochs: expected", "--seed: expected"]),
    ],
)
def test_what_is_missing_or_wrong_on_a_command_line_is_said_all_at_once(kdzoo, words, faults):
    said = kdzoo(*words)
    assert_refused(said, *faults)
    assert len(said.err.splitlines()) == len(faults)
    assert "  " not in said.err


def test_faults_of_numbers_are_said_together(kdzoo):
    assert_refused(kdzoo("bench", "--temperatures", "0", "--alphas", "2"), "temperature", "alphas")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipee: digits\n", ["recipee", "did you mean 'recipe'?"]),
        ("methods: [hinton\n", ["bench.yaml:"]),
        ("- hinton\n", ["expected keys and values"]),
        ("set: {recipe.epoch: 3}\n", ["did you mean 'recipe.epochs'?"]),
        ("temperatures: [yes]\n", ["temperatures", "True"]),
        ("recipe: {epoch: 3}\n", ["recipe.epoch: unknown; did you mean 'epochs'?"]),
        ("recipe: {nmae: digits, augment: {padd: 2}}\n", ["did you mean 'name'?", "recipe.augment.padd: unknown; did you mean 'pad'?"]),
        ("recipe: {name: digts}\n", ["did you mean 'digits'?"]),
        ("recipe: {epochs: -1}\n", ["recipe.epochs: expected a number > 0, got -1"]),
        ("recipe: {val_fraction: 0.1}\n", ["recipe.val_fraction: not a key of a recipe; write val_fraction beside recipe"]),
        ("epochs: 3\nrecipe: {epochs: 4}\n", ["epochs: given twice"]),
    ],
)
def test_a_yaml_file_is_refused_with_its_fault(kdzoo, place, text, words):
    (place / "bench.yaml").write_text(text)
    assert_refused(kdzoo("bench", "-c", "bench.yaml"), *words)


def test_a_plugin_with_a_syntax_error_is_named_with_its_line(kdzoo, place):
    (place / "broken.py").write_text("import kdzoo\n\ndef my_loss(student, teacher, batch:\n    return 0\n")
    for words in (["bench", "--plugin", "broken.py"], ["check", "broken.py"], ["methods", "--plugin", "broken.py"]):
        assert_refused(kdzoo(*words), "broken.py:3", "syntax error")


def test_a_plugin_that_fails_is_named_with_its_line(kdzoo, place):
    (place / "failing.py").write_text("import kdzoo\n\nraise RuntimeError('no luck')\n")
    assert_refused(kdzoo("bench", "--plugin", "failing.py"), "failing.py:3", "RuntimeError: no luck")


def test_a_second_definition_of_a_method_names_both_places(kdzoo, place):
    (place / "mine.py").write_text("import kdzoo\n\n@kdzoo.register('hinton')\ndef hinton(s, t, b):\n    return s.logits.mean()\n")
    assert_refused(kdzoo("bench", "--plugin", "mine.py"), "defined twice", "mine.py", "hinton.py")


def folder_of_images(folder: Path, *, per_class: int = 6) -> Path:
    """Three classes of plain colours with noise."""
    random = np.random.default_rng(0)
    for label, colour in enumerate(([200, 40, 40], [40, 200, 40], [40, 40, 200])):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(per_class):
            pixels = np.clip(np.array(colour) + random.integers(-30, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.png")
    return folder


def test_an_unreadable_image_is_named(kdzoo, place):
    photos = folder_of_images(place / "photos")
    (photos / "class1" / "3.png").write_bytes(b"no image at all")
    assert_refused(kdzoo("bench", "--data", f"folder:{photos}", "--teacher", "resnet20", "--student", "resnet8"), "class1/3.png")


def weights(name: str, classes: int, path: Path) -> Path:
    """The file of an untrained network's weights, as timm makes it."""
    import timm
    import torch

    from kdzoo.models.names import load_zoo

    load_zoo()

    torch.manual_seed(0)
    torch.save(timm.create_model(name, num_classes=classes, in_chans=1).state_dict(), path)
    return path


def test_a_pair_whose_classes_differ_is_refused(kdzoo, place):
    file = weights("digits_teacher", 7, place / "seven.pth")
    said = kdzoo("bench", "--teacher", f"digits_teacher:{file}", "--student", "digits_student", "--data", "digits")
    assert_refused(said, "7 classes", "digits has 10")


def test_weights_that_do_not_fit_are_refused(kdzoo, place):
    file = weights("digits_student", 10, place / "other.pth")
    said = kdzoo(*QUICK, "--teacher", f"digits_teacher:{file}", "--student", "digits_student", "--data", "digits")
    assert_refused(said, "do not fit")


def test_published_weights_that_cannot_be_had_are_refused_before_any_work(kdzoo_process, place, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(place / "hub"))
    photos = folder_of_images(place / "photos")
    pair = ["--teacher", "resnet50:pretrained", "--student", "resnet18:pretrained", "--fine-tune"]
    assert_refused(
        kdzoo_process("bench", "--data", f"folder:{photos}", *pair),
        "resnet50: its pretrained",
        "resnet18: its pretrained",
        "the model hub cannot be reached",
    )
    assert list(place.glob("cache/teachers/runs/*")) == []


def test_the_short_way_says_all_that_is_wrong_too(kdzoo, place):
    photos = folder_of_images(place / "photos")
    said = kdzoo("distill", photos, "--teacher", "resnet20:random", "--student", "resnt8:random", "--epochs", "0", "--out", "small")
    assert_refused(said, "epochs: expected a number > 0, got 0", "did you mean 'resnet8'?")
    assert not (place / "small").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_a_teacher_at_chance_is_refused_before_it_teaches(kdzoo, place):
    file = weights("digits_teacher", 10, place / "untrained.pth")
    pair = ["--teacher", f"digits_teacher:{file}", "--student", "digits_student", "--data", "digits", "--recipe", "digits"]
    said = kdzoo(*QUICK, *pair)
    assert said.status == 2
    assert "not above chance" in said.err
    assert "--allow-chance-teacher" in said.err
    assert list(place.glob("results/*/runs/hinton-*/result.json")) == []
    allowed = kdzoo(*QUICK, *pair, "--allow-chance-teacher")
    assert allowed.status == 0, allowed


def test_a_results_folder_that_cannot_be_written_is_refused(kdzoo, place):
    (place / "taken").write_text("a file where the folder should be")
    said = kdzoo(*QUICK, "--results", "taken")
    assert_refused(said, "cannot write to taken")
    assert (place / "taken").read_text() == "a file where the folder should be"


def test_a_cache_that_cannot_be_written_is_refused(kdzoo, place, monkeypatch):
    (place / "taken").write_text("")
    monkeypatch.setenv("KDZOO_CACHE", str(place / "taken"))
    assert_refused(kdzoo(*QUICK), "cannot write to")


def test_every_bench_that_is_not_there_is_named(kdzoo):
    assert_refused(kdzoo("compare", "gone", "lost"), "unknown 'gone'", "unknown 'lost'")


@pytest.mark.parametrize("words", [["status", "gone"], ["leaderboard", "gone"], ["run", "gone"], ["evaluate", "gone"]])
def test_what_is_not_there_is_said(kdzoo, words):
    assert_refused(kdzoo(*words), "unknown 'gone'")


def test_debug_shows_the_traceback_wherever_it_stands(kdzoo):
    for words in (["--debug", "bench", "--epochs", "0"], ["bench", "--epochs", "0", "--debug"]):
        said = kdzoo(*words)
        assert said.status == 2
        assert "Traceback" in said.err
        assert "kdzoo: epochs: expected a number > 0, got 0" in said.err


def test_a_fault_of_kdzoo_itself_is_one_line_and_status_1(kdzoo, monkeypatch):
    from kdzoo.cli import status

    def broken(*given):
        raise ZeroDivisionError("something nobody thought of")

    monkeypatch.setattr(status, "benches", broken)
    said = kdzoo("status")
    assert said.status == 1
    assert "ZeroDivisionError: something nobody thought of" in said.err
    assert "--debug" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in kdzoo("status", "--debug").err


def digest(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.json"))}


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_a_damaged_result_is_named_and_redone_and_kept(kdzoo, place):
    """The rest of the table stays; the next bench trains that run again, to the same numbers, and keeps the damaged file."""
    assert kdzoo(*QUICK).status == 0
    before = digest(place / "results")
    damaged = next(place.glob("results/digits/runs/hinton-*/result.json"))
    whole = json.loads(damaged.read_text())
    damaged.write_text(damaged.read_text()[:100])
    table = kdzoo("leaderboard", "digits")
    assert table.status == 0
    assert str(damaged.relative_to(place)) in table.out.replace("\n", "")
    assert "none" in table.out
    assert kdzoo("status", "digits").out.count("damaged") >= 1
    assert kdzoo(*QUICK).status == 0
    assert json.loads(damaged.read_text())["last"] == whole["last"]
    assert (damaged.parent / "result.json.damaged").stat().st_size == 100
    after = digest(place / "results")
    assert {key: after[key] for key in before if key != str(damaged)} == {key: before[key] for key in before if key != str(damaged)}


def mounted(folder: Path, size: str) -> bool:
    """A file system of a given size at `folder`, where this user may mount one."""
    folder.mkdir()
    return (
        shutil.which("mount") is not None
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 14])
def test_a_full_disk_is_said_and_loses_nothing(kdzoo, place, left):
    """A real file system that is full when the plan is written, or with so many pages left, while runs are trained."""
    disk = place / "disk"
    if not mounted(disk, "600k"):
        pytest.skip("only who may mount a file system can fill one")
    try:
        options = [*QUICK, "--results", disk, "--name", "b", "--keep", "nothing"]
        assert kdzoo(*options).status == 0
        before = digest(disk)
        (first,) = read_starts(disk / "b")
        fill(disk / "filler", left)
        said = kdzoo(*options, "--seeds", "6")
        assert said.status == 2, said
        assert "No space left on device" in said.err
        assert "Traceback" not in said.err
        before.pop(next(path for path in before if Path(path).name == "bench.json"))  # the second command may stand in it too
        assert {path: content for path, content in digest(disk).items() if path in before} == before
        assert first in read_starts(disk / "b")
        (disk / "filler").unlink()
        assert kdzoo(*options, "--seeds", "6").status == 0
        assert len(list(disk.glob("b/runs/*/result.json"))) == 12
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(path: Path, pages_left: int) -> None:
    """Write a file until the file system takes no more, then give so many pages back."""
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        file.truncate(file.tell() - 4096 * pages_left)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(place):
    """The system refuses to write more than a few bytes, as a full disk does."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from kdzoo.runs.atomic import StoreError, write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "write_bytes(Path('result.json'), b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_bytes(Path('result.json'), b'n' * 5000)\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    said = run_warm([sys.executable, "-c", code], cwd=place)
    assert "cannot write result.json" in said.stdout
    assert (place / "result.json").read_text() == "old"
    assert sorted(entry.name for entry in place.iterdir()) == ["result.json"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--seeds", "99999999999999999999999"], "expected at most 100000 seeds"),
        (["--lease-seconds", "0.01"], "lease_seconds: expected a number >= 1, got 0.01"),
    ],
)
def test_numbers_that_nobody_can_mean_are_refused(kdzoo, place, words, fault):
    assert_refused(kdzoo("bench", *words), fault)


def test_what_a_task_of_ray_asks_for_is_a_number():
    assert numbers_of({"address": "auto", "num_cpus": "0.5"}) == {"num_cpus": 0.5}
    with pytest.raises(InputError) as refused:
        numbers_of({"num_cpus": "abc", "max_retries": "many"})
    assert list(refused.value.problems) == [
        "launcher_option: num_cpus: expected a number, got 'abc'",
        "launcher_option: max_retries: expected a number, got 'many'",
    ]


def test_columns_that_are_no_number_count_for_nothing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "²")
    assert columns_variable() is None
