"""Every command that the README and the pages in docs/ show: run, or made short and run, and its options known to the parser.

Pages that are followed from top to bottom have tests of their own: `FOLLOWED`.
"""

import itertools
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from pages import FENCE, Page
from PIL import Image
from recordings import record
from safetensors.torch import save_file

from kdzoo.cli.app import app
from kdzoo.data.superclasses import SUPERCLASSES
from kdzoo.models.join import save_joined
from kdzoo.training.named_scores import save_named_scores

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLLOWED = {
    "saved-teachers.md": "test_commands.py",
    "deploy.md": "test_deploy.py",
    "add-a-method.md": "test_add_a_method.py",
    "add-your-own.md": "test_add_your_own.py",
    "recipes.md": "test_recipes.py",
    "living-table.md": "suite/test_submit.py",
    "text.md": "suite/test_text_bench.py",
}
"""pages whose commands are run in their order, by the test that is named"""
OTHERS = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "results/README.md", "benchmarks/README.md"]
SHORT: dict[str, list[str]] = {
    "bench .*--data cifar100": ["--set", "recipe.batch_size=2"],
    "finetune224": ["--set", "recipe.batch_size=2", "--set", "recipe.augment.size=64"],
    "distill ": ["--epochs", "1", "--image-size", "32"],
    "teachers join": ["--images", "50", "-o", "other.safetensors"],
    "teachers save-by-names": ["-o", "other.npz"],
}
"""what is added to a command in which a pattern is found, so that it takes seconds, and writes where nothing is yet"""
CLASSES = sorted(name for members in SUPERCLASSES.values() for name in members.split())
TEACHER, STUDENTS = "none-0123456789ab", ("hinton-0123456789ab", "hinton-ba9876543210")
"""ids of runs as the pages show them"""


def commands(file: Path) -> list[str]:
    """The lines of a page's shell blocks that start kdzoo, variables before them left out."""
    blocks = [code for language, code in FENCE.findall(file.read_text()) if language == "bash"]
    lines = [re.sub(r"^([A-Z_]+=\S+ )+", "", line) for code in blocks for line in code.strip().splitlines()]
    return [line for line in lines if line.startswith("kdzoo ")]


def mentioned(file: Path) -> list[str]:
    """The commands in a page's running text and in its blocks."""
    return [*commands(file), *re.findall(r"`(kdzoo [a-z][^`]*)`", file.read_text())]


SHOWN = [(file.name, line) for file in PAGES if file.name not in FOLLOWED for line in commands(file)]


def test_the_pages_that_are_followed_are_followed_by_their_tests():
    for name, test in FOLLOWED.items():
        assert f'"{name}"' in (ROOT / "tests" / test).read_text()
        assert commands(ROOT / "docs" / name)


def parsed(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words start with, such as `teachers save`, and the words behind it."""
    command, rest = app, words
    while rest and (inner := getattr(command, "commands", {}).get(rest[0])) is not None:
        command, rest = inner, rest[1:]
    return command, rest


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("file", [*PAGES, *(ROOT / name for name in OTHERS)], ids=lambda file: f"{file.parent.name}-{file.name}")
def test_every_command_and_option_that_a_page_mentions_exists(file):
    unknown = []
    for line in mentioned(file):
        words = re.sub(r"[][|,.;()`]+( |$)|[][|]", " ", line).split()[1:]
        command, rest = parsed(words)
        known = options_of(command) | options_of(app)
        unknown += [f"{word}: {line}" for word in words if word.startswith("--") and word.partition("=")[0] not in known]
        unknown += [f"no such command: {line}"] if rest == words and not words[0].startswith("-") else []
    assert unknown == []


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model hub's cache with weights of the networks that the pages name, random ones, as a download would leave it."""
    home = tmp_path_factory.mktemp("hub")
    for name in ("resnet50", "mobilenetv3_small_100"):
        repository = home / f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
        snapshot = repository / "snapshots" / "0"
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0")
        torch.manual_seed(0)
        save_file(timm.create_model(name).state_dict(), snapshot / "model.safetensors")
    return home


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of teachers that the pages name, with small networks in place of the pages', and embeddings of the classes' names."""
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), folder / "small.safetensors")
    small, names = f"test_efficientnet:{folder / 'small.safetensors'}@norm=0.5", [*CLASSES]
    save_joined([small, small], torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8), folder / "joined.safetensors")
    random = np.random.default_rng(1)
    for file, width in (("names.npz", 2048), ("small.npz", 256)):
        np.savez(folder / file, names=names, embeddings=random.normal(size=(len(names), width)))
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, teachers: Path) -> Path:
    """The files that the pages name: photographs of two colours, images of a hundred patterns, recordings, weights, a loss."""
    shelf = tmp_path_factory.mktemp("shelf")
    random = np.random.default_rng(0)
    for colour, number in itertools.product(("red", "blue"), range(40)):
        folder = shelf / "photos" / colour
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60, (40, 40, 3)).astype(np.uint8)
        pixels[..., ("red", "green", "blue").index(colour)] += 180
        Image.fromarray(pixels).save(folder / f"{number}.png")
    patterns = random.integers(0, 240, (100, 32, 32, 3), dtype=np.uint8)
    for data in ("data", "sets"):
        (shelf / data / "cifar100").mkdir(parents=True)
        for part, count in (("train", 400), ("test", 100)):
            labels = np.arange(count) % 100
            images = patterns[labels] + random.integers(0, 16, (count, 32, 32, 3), dtype=np.uint8)
            np.savez(shelf / data / "cifar100" / f"{part}.npz", images=images, labels=labels, classes=CLASSES)
    record(shelf / "sets", takes=50)
    torch.manual_seed(1)
    torch.save(timm.create_model("resnet50").state_dict(), shelf / "my_resnet50.pth")
    (shelf / "my_weights.pth").hardlink_to(shelf / "my_resnet50.pth")
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), shelf / "tf_efficientnet_lite0.safetensors")
    for name in ("joined.safetensors", "names.npz"):
        shutil.copy(teachers / name, shelf / name)
    small = f"test_efficientnet:{teachers / 'small.safetensors'}@norm=0.5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("KDZOO_DATA", str(shelf / "sets"))
        save_named_scores(small, teachers / "small.npz", "cifar100", shelf / "by-names.npz")
    (shelf / "my_bench.yaml").write_text("methods: [hinton, at]\n")
    (shelf / "my_loss.py").write_text(
        next(code for code in Page((ROOT / "README.md").read_text()).blocks("python") if "# my_loss.py" in code)
    )
    return shelf


@pytest.fixture
def furnished(place: Path, hub: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name, linked, and a bench."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))  # the variables are read when it is imported
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("KDZOO_DATA", str(place / "sets"))
    shutil.copytree(shelf, place, copy_function=os.link, dirs_exist_ok=True)
    shutil.copytree(ROOT / "results" / "digits", place / "results" / "digits")
    return place


def shortened(line: str) -> list[str]:
    """The words of a command behind `kdzoo`: a bench is planned and its time estimated, all else is run."""
    words = shlex.split(line, comments=True)[1:]
    more = [word for pattern, added in SHORT.items() if re.search(pattern, line) for word in added]
    return [*words, *more, *(["--dry-run"] if words[0] == "bench" and "--dry-run" not in words else [])]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), SHOWN, ids=[f"{name}-{number}" for number, (name, _) in enumerate(SHOWN)])
@pytest.mark.usefixtures("furnished", "train_here")
def test_a_command_of_a_page_does_what_it_says(page, line, kdzoo):
    said = kdzoo(*shortened(line))
    assert said.status == 0, f"{page}: {line}\n{said.out}\n{said.err}"


@pytest.mark.slow
@pytest.mark.usefixtures("furnished", "train_here")
def test_a_teacher_is_saved_checked_and_teaches_as_its_page_says(kdzoo):
    pattern = ["--data", "cifar100", "--epochs", "8", "--set", "recipe.lr=0.01"]
    assert kdzoo("train", "mlp_64", *pattern).status == 0
    teacher = json.loads(kdzoo("teachers", "--json").out)[0]["id"]
    assert (
        kdzoo(
            "bench",
            "--teacher",
            teacher,
            "--student",
            "mlp_16",
            *pattern,
            "--methods",
            "hinton",
            "--seeds",
            2,
            "--no-refit",
            "--name",
            "own",
        ).status
        == 0
    )
    students = sorted(folder.name for folder in Path("results").glob("own/runs/hinton-*"))[:2]
    ids = dict(zip((TEACHER, *STUDENTS), (teacher, *students), strict=True))
    of_digits = next(Path("results/digits/runs").glob("hinton-*")).name
    other = kdzoo("teachers", "save", teacher, "-o", "other.npz", "--views", f"{students[0]},{of_digits}")
    assert (other.status, Path("other.npz").exists()) == (2, False)
    assert f"these are on others: {of_digits} (digits)" in other.err
    teach, *save = commands(ROOT / "docs" / "saved-teachers.md")
    for line in save:
        said = kdzoo(*shlex.split(re.sub("|".join(ids), lambda found: ids[found[0]], line))[1:])
        assert said.status == 0, f"{line}\n{said.err}"
    said = kdzoo(*shortened(teach), "--epochs", 1)
    assert said.status == 0, said.err
