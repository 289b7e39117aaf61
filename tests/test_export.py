"""What is exported: the code of each README, run as it stands, says what kdzoo says, also of images that most programs read otherwise."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import timm
import torch
import yaml
from odd_photos import CLASSES, bare_python, write_odd_photos
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from warm_python import WarmPopen

from kdzoo.data import network_input, preprocess
from kdzoo.data.canonical import Raw, make_dataset
from kdzoo.data.dataset import Dataset, Subset
from kdzoo.data.files import content_digest
from kdzoo.data.folder import load_folder
from kdzoo.data.listing import list_images
from kdzoo.data.network_input import centre
from kdzoo.data.views import evaluation_view
from kdzoo.errors import InputError, WorkFailed
from kdzoo.models.build import build_network
from kdzoo.models.network import Network
from kdzoo.models.predict import predict
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.export.graph import check_graph, graph_scores, open_graph, write_graph
from kdzoo.suite.export.hf_format import configuration, write_hf
from kdzoo.suite.export.onnx_format import write_onnx
from kdzoo.suite.export.reading import array_code, pixel_code, reading_of, tensor_code
from kdzoo.suite.export.student import Student
from kdzoo.suite.export.timm_format import write_timm

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch_size=8, lr=0.1, augment=Augment(crop="resized", size=32, flip=True))
OWN = NetworkSpec(name="wrn_16_1", classes=CLASSES)
VIT = NetworkSpec(name="test_vit", classes=CLASSES, image_size=48)


@pytest.fixture(scope="module")
def odd_photos(tmp_path_factory) -> Path:
    return write_odd_photos(tmp_path_factory.mktemp("odd") / "photos")


def student_of(spec: NetworkSpec, data: Dataset, recipe: Recipe = RECIPE, *, from_files: bool = True) -> Student:
    """A student that was not trained, of which every class is named now and then."""
    side = recipe.augment.size or data.height
    network = build_network(spec, channels=data.channels, side=side, mean=data.mean, std=data.std, seed=1).eval()
    with torch.no_grad():  # an untrained network names one class alone, until the mean of its scores is taken off
        network.classifier.bias -= network.logits(centre(data.train.images, recipe.augment.size)).mean(0)
    return Student(network, spec, data, recipe, {"architecture": spec.name}, "trained by nobody", from_files)


def code_of(folder: Path) -> str:
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def what_the_readme_says(folder: Path, paths: list[str], python: str | Path = sys.executable, popen=WarmPopen) -> list[str]:
    """What the code of a folder's README says of image files, run as it stands in a process of its own."""
    (folder / "image.jpg").write_bytes(Path(paths[0]).read_bytes())
    script = f"{code_of(folder)}\nfor path in {paths!r}:\n    print(classify(path))\n"
    with popen([str(python), "-c", script], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        first, *spoken = process.communicate()[0].split()
    assert first == spoken[0]
    return spoken


def what_kdzoo_says(student: Student, data: Dataset, paths: list[str]) -> list[str]:
    own = {
        bytes(key.tolist()): data.classes[label]
        for subset in (data.train, data.test)
        for key, label in zip(subset.keys, predict(student.network, subset, student.recipe.augment, CPU).argmax(1).tolist(), strict=True)
    }
    expected = [own[digest_of(path)] for path in paths]
    assert Counter(expected).most_common(2)[1][1] >= 5, "the comparison needs a network that tells images apart"
    assert naive(student.body, paths, data.classes) != expected, "the comparison needs images on which preprocessing matters"
    return expected


def naive(network: Network, paths: list[str], classes: tuple[str, ...]) -> list[str]:
    """What the network says of the same files as most programs read them."""
    squares = [np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (32, 32))) for path in paths]
    images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
    return [classes[label] for label in network.logits(images).argmax(1).tolist()]


def digest_of(path: str) -> bytes:
    return content_digest(Path(path).parent.name, Path(path).read_bytes())


def train_paths(folder: Path) -> list[str]:
    return [path for path, _ in list_images(folder).parts["train"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "popen"),
    [
        (OWN, subprocess.Popen),
        (NetworkSpec(name="test_resnet", classes=CLASSES, stem="small"), WarmPopen),
        (VIT, WarmPopen),
        (NetworkSpec(name="mlp_20_10", classes=CLASSES), WarmPopen),
    ],
    ids=["kdzoo's own", "small stem", "ViT of another side", "of any widths"],
)
def test_the_readme_for_timm_says_what_kdzoo_says(odd_photos, tmp_path, spec, popen):
    data = load_folder(odd_photos, RECIPE.augment.size)
    assert data.scales["16-bit"] == 2**12
    student, paths = student_of(spec, data), train_paths(odd_photos)
    write_timm(tmp_path, student, "measured")
    assert what_the_readme_says(tmp_path, paths, popen=popen) == what_kdzoo_says(student, data, paths)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [OWN, VIT], ids=["kdzoo's own", "ViT of another side"])
def test_the_model_card_says_what_kdzoo_says(odd_photos, tmp_path, spec):
    data = load_folder(odd_photos, RECIPE.augment.size)
    student, paths = student_of(spec, data), train_paths(odd_photos)
    write_hf(tmp_path, student, "measured")
    assert what_the_readme_says(tmp_path, paths) == what_kdzoo_says(student, data, paths)
    _, front, _ = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "timm"
    assert json.loads((tmp_path / "config.json").read_text())["label_names"] == list(data.classes)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [False, True], ids=["normalised by numpy", "normalised by the graph"])
@pytest.mark.parametrize("spec", [OWN, VIT], ids=["kdzoo's own", "ViT of another side"])
def test_the_readme_for_onnxruntime_says_what_kdzoo_says(odd_photos, tmp_path, spec, pixels):
    data = load_folder(odd_photos, RECIPE.augment.size)
    student, paths = student_of(spec, data), train_paths(odd_photos)
    found = write_onnx(tmp_path, student, splits_of(data), "measured", pixels=pixels).agreement
    assert found.images == found.same == len(data.test.targets)
    assert what_the_readme_says(tmp_path, paths) == what_kdzoo_says(student, data, paths)
    assert ("import torch" in code_of(tmp_path)) is (spec is VIT and not pixels), "only torch resizes to the side of another network"


@pytest.mark.slow
def test_an_exported_graph_runs_where_neither_torch_nor_kdzoo_is_installed(odd_photos, tmp_path):
    data = load_folder(odd_photos, RECIPE.augment.size)
    student, paths = student_of(OWN, data), train_paths(odd_photos)
    write_onnx(tmp_path, student, splits_of(data), "measured", pixels=False)
    python = bare_python(tmp_path / "bare", "onnxruntime", "numpy", "Pillow")
    probe = "import importlib.util as u; print([u.find_spec(name) for name in ('torch', 'kdzoo', 'timm')])"
    environment = {"PATH": "/usr/bin:/bin"}
    told = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert told.stdout.strip() == "[None, None, None]"

    def without_variables(command, **options):
        return subprocess.Popen(command, **options, env=environment)

    assert what_the_readme_says(tmp_path, paths, python, without_variables) == what_kdzoo_says(student, data, paths)


def splits_of(data: Dataset):
    from kdzoo.data.split import split
    from kdzoo.runs.spec import DataSpec

    return split(data, DataSpec(name=data.name, fingerprint=data.fingerprint, classes=len(data.classes)))


def test_the_code_beside_an_export_is_that_of_training_and_needs_no_kdzoo():
    from kdzoo.data import pixels, views
    from kdzoo.models import network as networks

    assert pixels.square is preprocess.square
    assert views.centre is network_input.centre
    assert networks.normalise is network_input.normalise
    sources = [Path(module.__file__).read_text() for module in (preprocess, network_input)]
    assert not any("kdzoo import" in source or "import kdzoo" in source or "from kdzoo" in source for source in sources)
    assert "torch" not in re.sub(r'""".*?"""', "", sources[0], flags=re.DOTALL)


def read_by_code(code, path: str) -> torch.Tensor:
    """What the lines of a README leave as `image`, with training's modules in the place of their copies."""
    names = {"torch": torch, "path": path}
    names |= {name: getattr(module, name) for module in code.modules for name in dir(module) if not name.startswith("_")}
    exec("\n".join(code.statements), names)
    return torch.as_tensor(names["image"])


@pytest.mark.parametrize("spec", [OWN, VIT], ids=["as it is", "resized by the network"])
def test_every_odd_image_is_read_to_the_last_bit_as_in_training(odd_photos, spec):
    data = load_folder(odd_photos, RECIPE.augment.size)
    student = student_of(spec, data)
    reading = reading_of(student)
    assert reading.resizes is (spec is VIT)
    places = {bytes(key.tolist()): (subset, i) for subset in (data.train, data.test) for i, key in enumerate(subset.keys)}
    for path in train_paths(odd_photos):
        subset, place = places[digest_of(path)]
        seen = evaluation_view(subset.images[place : place + 1], RECIPE.augment)
        expected = student.body.normalise(seen)
        assert torch.equal(read_by_code(tensor_code(reading), path), expected), path
        assert torch.equal(read_by_code(array_code(reading), path), expected), path
        assert torch.equal(read_by_code(pixel_code(reading), path), seen), path


@pytest.mark.parametrize("size", [None, 6, 12], ids=["all of the image", "its centre", "enlarged"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_with_the_pixels_of_an_array_is_read_as_the_array(tmp_path, size, channels):
    random = np.random.default_rng(1)
    shape = (8, 9, 9) if channels == 1 else (8, 9, 9, 3)
    part = (random.integers(0, 256, shape).astype(np.uint8), np.arange(8) % 2)
    data = make_dataset("arrays", Raw(part, part), "made up")
    recipe = replace_augment(size)
    student = student_of(NetworkSpec(name="resnet8", classes=2), data, recipe, from_files=False)
    reading = reading_of(student)
    assert (reading.grey, reading.channels, reading.resizes) == (channels == 1, channels, size == 12)
    for place, image in enumerate(data.test.images):
        path = tmp_path / f"{place}.png"
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy() if channels == 1 else image.permute(1, 2, 0).numpy()).save(path)
        expected = student.body.normalise(evaluation_view(image[None], recipe.augment))
        assert torch.equal(read_by_code(array_code(reading), str(path)), expected)


def replace_augment(size: int | None) -> Recipe:
    return RECIPE.model_copy(update={"augment": Augment(size=size)})


def test_a_configuration_has_a_mean_and_a_deviation_for_every_channel(odd_photos):
    data = load_folder(odd_photos, 32)
    student = student_of(NetworkSpec(name="test_resnet", classes=CLASSES), data)
    halves = replace(student, network=Network(student.body.model, channels=3, mean=(0.5,), std=(0.25,)))
    of_halves, of_data = (configuration(one, reading_of(one))["pretrained_cfg"] for one in (halves, student))
    assert (of_halves["mean"], of_halves["std"]) == ([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])
    assert of_data["mean"] == pytest.approx(data.mean)


def test_grey_images_under_a_network_of_colours_have_three_equal_channels(tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (6, 8, 8)).astype(np.uint8)
    data = make_dataset("arrays", Raw((images, np.arange(6) % 2), (images, np.arange(6) % 2)), "made up")
    student = student_of(NetworkSpec(name="resnet8", classes=2), data, replace_augment(None), from_files=False)
    colour = Network(student.body.model, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    student = replace(student, network=colour)
    path = tmp_path / "one.png"
    Image.fromarray(data.test.images[0, 0].numpy()).save(path)
    expected = colour.normalise(data.test.images[:1])
    assert expected.shape == (1, 3, 8, 8)
    assert torch.equal(read_by_code(array_code(reading_of(student)), str(path)), expected)


def test_oblong_images_are_refused_by_name():
    images = np.zeros((6, 8, 10), np.uint8)
    images[:, 0, 0] = np.arange(6)
    data = make_dataset("oblong", Raw((images, np.arange(6) % 2), (images, np.arange(6) % 2)), "made up")
    network = Network(nn.Identity(), channels=1, mean=(0.0,), std=(1.0,))
    student = Student(network, NetworkSpec(name="resnet8", classes=2), data, replace_augment(None), {}, "", False)
    with pytest.raises(InputError, match=r"oblong: expected square images of 1 or 3 channels, .* got 1 channels of 8x10"):
        reading_of(student)


class EveryPixel(nn.Module):
    """A network whose class scores are its inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def test_the_graph_scales_and_normalises_to_1e_6(tmp_path):
    """Against numbers of float64: every level from 0 to 255 in each of three channels."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network = Network(EveryPixel(), channels=3, mean=mean, std=std).eval()
    images = levels.transpose(0, 2, 3, 1)
    part = (np.concatenate([images, 255 - images]), np.array([0, 1]))
    data = make_dataset("levels", Raw(part, part), "made up")
    student = Student(network, NetworkSpec(name="every_pixel", classes=768), data, replace_augment(None), {}, "", False)
    write_graph(tmp_path / "g.onnx", student, reading_of(student), {}, pixels=True)
    given = graph_scores(open_graph(tmp_path / "g.onnx"), levels).reshape(levels.shape)
    exact = (levels / 255 - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    assert np.abs(given - exact).max() <= 1e-6


def test_a_graph_takes_any_number_of_images_and_knows_its_classes(odd_photos, tmp_path):
    data = load_folder(odd_photos, 32)
    student = student_of(OWN, data)
    written = write_onnx(tmp_path, student, splits_of(data), "measured", pixels=True)
    opset, found = written.opset, written.agreement
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"), providers=["CPUExecutionProvider"])
    seen = evaluation_view(data.test.images, RECIPE.augment)
    with torch.no_grad():
        expected = student.network.logits(seen).numpy()
    for count in (1, 3, len(seen)):
        (scores,) = session.run(None, {"images": seen[:count].numpy()})
        assert scores.shape == (count, CLASSES)
        np.testing.assert_allclose(scores, expected[:count], atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list(data.classes)
    assert json.loads(about["reading"]) == {"decode_side": 37, "crop_side": 32, "scales": {"16-bit": 4096}}
    model = onnx.load(tmp_path / "student.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert opset == max(one.version for one in model.opset_import if not one.domain)
    assert f"ONNX opset {opset}" in (tmp_path / "README.md").read_text()
    assert found.difference < 1e-4


def test_a_graph_of_another_network_is_told(odd_photos, tmp_path):
    data = load_folder(odd_photos, 32)
    student = student_of(OWN, data)
    write_graph(tmp_path / "g.onnx", student, reading_of(student), {}, pixels=True)
    with torch.no_grad():
        student.body.classifier.bias += 0.01
    with pytest.raises(WorkFailed, match=r"g\.onnx is not the student that was trained: on 12 test images the largest difference"):
        check_graph(tmp_path / "g.onnx", student, data.test, count=256, pixels=True)


def test_timm_is_enough_for_a_network_of_timms(odd_photos, tmp_path):
    data = load_folder(odd_photos, 32)
    write_timm(tmp_path, student_of(NetworkSpec(name="test_resnet", classes=CLASSES), data), "measured")
    assert "kdzoo" not in code_of(tmp_path)
    assert timm.create_model("test_resnet", num_classes=CLASSES, checkpoint_path=str(tmp_path / "student.safetensors"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    """The folder of a bench on the digits with the student alone, plain KD and a method that ships parts of its own."""
    import kdzoo

    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder / "cache"))
        patch.setenv("KDZOO_LAUNCHER", "here")
        kdzoo.bench(methods=["hinton", "simkd"], seeds=2, epochs=3, tune=1, data="digits", name="small", results=folder)
        patch.delenv("KDZOO_LAUNCHER")
    return folder / "small"


@pytest.fixture
def teachers_of_bench(kdzoo, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache folder in which the bench keeps its teacher."""
    monkeypatch.setenv("KDZOO_CACHE", str(bench.parent / "cache"))


def run_of(bench: Path, method: str) -> RunFolder:
    store = Store(bench)
    return store.run(next(run_id for run_id in store.ids() if run_id.startswith(f"{method}-")))


@pytest.mark.slow
def test_an_exported_graph_has_the_accuracy_of_its_run(kdzoo, bench, teachers_of_bench, tmp_path):
    from kdzoo.data.sources import load

    test: Subset = load("digits").test
    for method in ("hinton", "simkd"):
        run, out = run_of(bench, method), tmp_path / method
        said = kdzoo("export", run.path, "--format", "onnx", "--pixels", "-o", out)
        assert said.status == 0, said.err
        assert re.search(r"onnx: opset \d+; on 256 test images the largest difference of a score is \S+ .*256 of 256", said.out)
        scores = graph_scores(open_graph(out / "student.onnx"), test.images.numpy())
        top1 = float((scores.argmax(1) == test.targets.numpy()).mean())
        assert top1 == pytest.approx(run.result()["last"]["test"]["top1"], abs=1e-3)


@pytest.mark.slow
def test_a_card_has_the_run_its_row_and_its_limits(kdzoo, bench, tmp_path):
    run = run_of(bench, "hinton")
    assert kdzoo("export", run.id, "--results", bench.parent, "--format", "hf", "-o", tmp_path / "hf").status == 0
    text = (tmp_path / "hf" / "README.md").read_text()
    test = run.result()["last"]["test"]
    assert f"Run: `{run.id}`" in text
    assert f"top-1 {100 * test['top1']:.2f} % [" in text
    head, row = re.search(r"(\| # \| .*)\n\|.*---.*\n(\| .*)\n", text).groups()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    board = pd.read_csv(bench / "leaderboard.csv").set_index("method")
    assert cells["method"] == "hinton"
    assert cells["n"] == "2"
    assert cells["test top-1"] == f"{100 * board.test_top1['hinton']:.2f} ± {100 * board.test_sd['hinton']:.2f}"
    assert cells["vs student alone"].startswith(f"{100 * board.vs_alone['hinton']:+.2f} [")
    assert "also an image of none of them" in text
    assert "not on image files" in text
    assert "`digits_student` for 10 classes, distilled with kdzoo from `digits_teacher`, which was trained here." in text
    assert "- data `digits`: CC-BY-4.0" in text
    licences = "Licences: teacher digits_teacher: own; student's start random weights: own; data digits: CC-BY-4.0."
    assert licences in (bench / "leaderboard.md").read_text()
    with safe_open(tmp_path / "hf" / "model.safetensors", "pt") as file:
        assert file.metadata()["owner"] == run.id
    kept = load_file(run.student)
    assert all(torch.equal(kept[name], value) for name, value in load_file(tmp_path / "hf" / "model.safetensors").items())


@pytest.mark.slow
def test_what_cannot_be_exported_is_refused_with_what_can(kdzoo, bench, teachers_of_bench, tmp_path):
    out = tmp_path / "out"

    def refused(*words: object) -> str:
        said = kdzoo("export", *words, "-o", out)
        assert said.status == 2
        return said.err

    assert "simkd ships the student without its classifier" in refused(run_of(bench, "simkd").path, "--format", "timm")
    assert "`--format onnx` holds all of it" in refused(run_of(bench, "simkd").path, "--format", "hf")
    assert "--pixels: only for an ONNX graph; leave it out" in refused(run_of(bench, "hinton").path, "--format", "timm", "--pixels")
    assert "'tflite' is not one of 'timm', 'onnx', 'hf'" in refused(run_of(bench, "hinton").path, "--format", "tflite")
    assert not out.exists()
    out.mkdir()
    (out / "student.onnx").write_bytes(b"an earlier export")
    assert f"out: {out} holds something already; name a new folder" in refused(run_of(bench, "hinton").path, "--format", "onnx")
    assert (out / "student.onnx").read_bytes() == b"an earlier export"


@pytest.mark.slow
def test_weights_that_are_not_kept_are_named_with_the_commands_that_keep_them(kdzoo, bench, tmp_path, monkeypatch):
    run = run_of(bench, "none")
    copy = RunFolder(tmp_path / "copy" / "runs" / run.id)
    shutil.copytree(run.path, copy.path)
    before = load_file(copy.student)
    copy.student.unlink()
    said = kdzoo("export", copy.path, "--format", "timm", "-o", tmp_path / "out")
    assert said.status == 2
    remove, train = re.search(r"rm (\S+); kdzoo run (\S+)", said.err).groups()
    Path(remove).unlink()
    monkeypatch.setenv("KDZOO_LAUNCHER", "here")
    assert "not finished (new)" in kdzoo("export", copy.path, "--format", "timm", "-o", tmp_path / "out").err
    assert kdzoo("run", train).status == 0
    assert kdzoo("export", copy.path, "--format", "timm", "-o", tmp_path / "out").status == 0
    again = load_file(tmp_path / "out" / "student.safetensors")
    assert all(torch.equal(before[name], value) for name, value in again.items())
